//! Bookkeeping of the paged KV cache: who holds which block, what is in it, and what a conversation has in its blocks.
//!
//! * [`BlockPool`]: the numbers of all blocks that there may be, with references and a cache of known beginnings of texts.
//! * [`Session`]: a conversation: its tokens, its block table, and how far the executor has computed it.
//! * [`SessionFileError`]: why a conversation that was written to a file cannot go on from there; the rest is in `file`.
//!
//! The memory behind the numbers is the executor's.

mod file;
mod lru;
mod pool;
mod session;
mod stats;
mod tree;

pub use file::SessionFileError;
pub use pool::{BlockPool, PoolExhausted, PrefixMatch};
pub use session::Session;
pub(crate) use session::lock;
pub use stats::PoolStats;
