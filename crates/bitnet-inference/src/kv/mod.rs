//! Bookkeeping of the paged KV cache: who owns which block, and what a conversation has in its blocks.
//!
//! * [`BlockPool`]: the numbers of all blocks that there may be.
//! * [`Session`]: a conversation: its tokens, its block table, and how far the executor has computed it.
//!
//! The memory behind the numbers is the executor's.

mod pool;
mod session;

pub use pool::{BlockPool, PoolExhausted};
pub use session::Session;
pub(crate) use session::lock;
