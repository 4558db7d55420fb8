//! The models of a server: which there are, loading them when they are asked for, unloading them.
//!
//! Entries are what may be asked for; the engines themselves are in a [`ModelCache`] under the memory budget. Loading takes
//! place on threads for blocking work, one load a model however many wait for it.

mod handle;
mod registry;
mod source;
mod tracked;

pub use handle::ModelHandle;
pub(crate) use registry::Models;
pub use registry::{ModelState, ModelSummary};
pub use tracked::TrackedStream;
