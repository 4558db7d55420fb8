//! Models from the Hugging Face Hub, in the cache that other programs share.
//!
//! * [`Hub`] finds a model in the cache ([`Hub::find`]) and fetches it ([`Hub::plan`], [`Hub::fetch`]).
//! * [`ModelName`] is what people write: `org/name[@revision][:file-or-quant]`.
//! * [`HubConfig`] is where, with which token and how patiently; [`HubConfig::from_env`] reads what `huggingface_hub` does.
//! * [`Cache`] lists, removes, budgets and checks what is there.
//!
//! The cache has the layout of `huggingface_hub` and is shared with it in both directions:
//!
//! ```text
//! <cache>/models--org--name/refs/<revision>            commit, as text
//!                          /blobs/<etag>               content; <etag>.incomplete while it comes
//!                          /snapshots/<commit>/<path>  -> ../../blobs/<etag>
//!                          /.bitnet/used/<commit>      ours: its time is when the model was last used
//!        /.locks/models--org--name/<etag>.lock         held while the blob is written
//! ```
//!
//! A blob is renamed into place only when size and hash are right, weights are linked only when all other files are
//! there, and the reference is written last: a process that is killed leaves nothing that looks complete and is not.
//! Nothing here parses weights or prints.
#![forbid(unsafe_code)]

mod api;
mod cache;
mod choose;
mod config;
mod digest;
mod download;
mod error;
mod events;
mod http;
mod hub;
mod name;
mod pull;
mod retry;
mod url;

pub use cache::{
    Budget, Cache, CacheCheck, CacheFault, CachedFile, CachedModel, CachedRepo, CachedRevision, Eviction,
    FaultKind, Found, Leftover, Removal, keeping_access_times,
};
pub use choose::WeightKind;
pub use config::{HubConfig, Token};
pub use error::{HubError, Result};
pub use events::{Event, Observer, silent};
pub use http::tls_config;
pub use hub::{Hub, Reached};
pub use name::{ModelName, RepoId};
pub use pull::{FileState, Plan, PlannedFile};
