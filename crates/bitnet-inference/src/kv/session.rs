//! [`Session`]: a conversation and its keys and values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitnet_model::{ExecError, Executor};

use super::tree::common;
use super::{BlockPool, PoolExhausted, PrefixMatch};

/// The tokens of a conversation and the KV blocks that hold what was computed of them.
///
/// The first [`computed`](Self::computed) tokens have keys and values in the blocks; the rest wait to be computed.
/// [`extend`](Self::extend) replaces the text but keeps what both have in common at the beginning, so a chat computes each
/// turn only once; and it finds what other sessions of the pool have computed of the same beginning, now or earlier.
/// Dropping a session gives its blocks back, where they can be found until others need them.
///
/// One step of computing is: [`cover`](Self::cover) the positions, let the executor have the memory that the pool misses,
/// [`run_copy`](Self::run_copy), a forward call over the tokens from [`computed`](Self::computed) on,
/// [`set_computed`](Self::set_computed).
#[derive(Debug)]
pub struct Session {
    tokens: Vec<u32>,
    computed: usize,
    blocks: Vec<u32>,
    block_size: usize,
    context: usize,
    pool: Arc<Mutex<BlockPool>>,
    /// Whether it uses what others computed, and they what it computes.
    shares: bool,
    /// What must be copied before the next forward call.
    copy: Option<Copy>,
    /// The pool's [`losses`](BlockPool::losses) when its first block was computed. If there were more since, nothing in its
    /// blocks is what it was.
    losses: u64,
}

/// A block of the table that others rely on was replaced, and its content must be copied before anything is computed.
#[derive(Debug, Clone, Copy)]
struct Copy {
    /// The block of before, to which there is still a reference.
    from: u32,
    /// Its place in the table.
    index: usize,
}

/// Locks a pool. A thread that panicked with the lock cannot have left it half changed: every operation on it is one step.
pub(crate) fn lock(pool: &Mutex<BlockPool>) -> MutexGuard<'_, BlockPool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// An empty conversation of at most `context` tokens that takes its blocks from `pool`.
    pub fn new(pool: Arc<Mutex<BlockPool>>, context: usize) -> Self {
        let (block_size, losses) = {
            let pool = lock(&pool);
            (pool.block_size(), pool.losses())
        };
        let (tokens, blocks) = (Vec::new(), Vec::new());
        Self { tokens, computed: 0, blocks, block_size, context, pool, shares: true, copy: None, losses }
    }

    /// The same, but it computes all of its text itself, and nobody finds what it computes.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.shares = false;
        self
    }

    /// All tokens: prompt and generated ones.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens, from the first, have keys and values in the blocks.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Most tokens the conversation may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The block table: position `p` lies in `blocks()[p / block_size]`.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Makes `text` the conversation's tokens. Keeps the keys and values of the longest common beginning, or takes those of
    /// a longer one that the pool knows; but never of the last token, whose logits the next step needs. Returns how many
    /// tokens need not be computed.
    pub fn extend(&mut self, text: &[u32]) -> usize {
        let most = text.len().saturating_sub(1);
        let own = common(&self.tokens[..self.computed], text).min(most);
        match self.find(&text[..most], own) {
            Some((found, losses)) => self.adopt(found, losses),
            None => self.truncate(own),
        }
        self.tokens.clear();
        self.tokens.extend_from_slice(text);
        self.computed
    }

    /// Gives all blocks back, where they can be found until others need them, but keeps the tokens.
    pub fn suspend(&mut self) {
        self.release(0);
    }

    /// Finds what is left of the blocks of a suspended session. Returns how many tokens need not be computed, never the last.
    pub fn recall(&mut self) -> usize {
        let most = self.tokens.len().saturating_sub(1);
        if let Some((found, losses)) = self.find(&self.tokens[..most], self.computed) {
            self.adopt(found, losses);
        }
        self.computed
    }

    /// Finds the blocks of a beginning of `text` that the pool knows, if it is longer than the `own` tokens that the session
    /// has of it itself. Gives them with the pool's losses of that moment.
    fn find(&self, text: &[u32], own: usize) -> Option<(PrefixMatch, u64)> {
        if !self.shares || own >= text.len() {
            return None;
        }
        let mut pool = lock(&self.pool);
        let found = pool.lookup(text);
        if found.tokens > own {
            return Some((found, pool.losses()));
        }
        pool.give_back(found.blocks);
        None
    }

    /// Puts blocks that were found in the place of its own.
    fn adopt(&mut self, found: PrefixMatch, losses: u64) {
        self.release(0);
        self.blocks.extend(found.blocks);
        self.computed = found.tokens;
        self.losses = losses;
    }

    /// Another conversation with the same tokens, which shares what is computed of them.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        self.undo_copy();
        let blocks = self.blocks[..self.computed.div_ceil(self.block_size)].to_vec();
        let mut pool = lock(&self.pool);
        blocks.iter().for_each(|&block| pool.share(block));
        drop(pool);
        Self { tokens: self.tokens.clone(), blocks, pool: Arc::clone(&self.pool), copy: None, ..*self }
    }

    /// Appends a token that is to be computed next.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// Forgets all but the first `len` tokens and gives back the blocks that held only the rest.
    pub fn truncate(&mut self, len: usize) {
        self.release(len);
        self.tokens.truncate(len);
    }

    /// Keeps what is computed of the first `len` tokens only.
    fn release(&mut self, len: usize) {
        self.undo_copy();
        let computed = self.computed.min(len);
        let keep = computed.div_ceil(self.block_size);
        if keep < self.blocks.len() {
            let mut pool = lock(&self.pool);
            if self.shares && self.losses == pool.losses() {
                // Full blocks are known already, a last one that is filled in part not yet.
                pool.register(&self.tokens[..self.computed], &mut self.blocks);
            }
            pool.give_back(self.blocks.drain(keep..));
        }
        self.computed = computed;
    }

    /// Forgets all but the first `len` tokens, at least one, the last of which is to be computed again: the next step
    /// needs its logits.
    pub(crate) fn rewind(&mut self, len: usize) {
        let last = self.tokens[len - 1];
        self.truncate(len - 1);
        self.push(last);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Makes the block table cover positions `0..len`, and those that are not computed yet writable: what others rely on is
    /// replaced by a block of its own, which [`run_copy`](Self::run_copy) fills.
    ///
    /// # Errors
    /// [`PoolExhausted`]; the blocks of before, and those got on the way, stay with the session.
    pub fn cover(&mut self, len: usize) -> Result<(), PoolExhausted> {
        let (index, slot) = (self.computed / self.block_size, self.computed % self.block_size);
        let needed = len.div_ceil(self.block_size);
        let mut pool = lock(&self.pool);
        if slot > 0
            && len > self.computed
            && let Some(own) = pool.writable(self.blocks[index], slot)?
        {
            let from = std::mem::replace(&mut self.blocks[index], own);
            self.copy = Some(Copy { from, index });
        }
        while self.blocks.len() < needed {
            self.blocks.push(pool.take()?);
        }
        Ok(())
    }

    /// Lets `executor`, which has memory for all blocks of the table, copy what [`cover`](Self::cover) found to need it.
    /// Must come before the forward call. If the executor cannot copy, the tokens of that block are to be computed again.
    ///
    /// # Errors
    /// As [`Executor::copy_block`]; the session is then as if nothing had been covered. [`ExecError::ContextLost`] if what it
    /// had computed was lost since; [`renew`](Self::renew) it then.
    pub fn run_copy(&mut self, executor: &mut dyn Executor) -> Result<(), ExecError> {
        let losses = lock(&self.pool).losses();
        if self.computed == 0 {
            self.losses = losses;
        } else if self.losses != losses {
            return Err(ExecError::ContextLost {
                why: "another text met a failure of the device".to_owned(),
            });
        }
        self.copy_by(|from, to| executor.copy_block(from, to))
    }

    fn copy_by(&mut self, copy: impl FnOnce(u32, u32) -> Result<(), ExecError>) -> Result<(), ExecError> {
        let Some(Copy { from, index }) = self.copy else { return Ok(()) };
        match copy(from, self.blocks[index]) {
            Ok(()) => {}
            Err(ExecError::Unsupported { .. }) => self.computed = index * self.block_size,
            Err(error) => {
                self.undo_copy();
                return Err(error);
            }
        }
        self.copy = None;
        lock(&self.pool).give_back([from]);
        Ok(())
    }

    /// Takes the block that was to be copied back into the table.
    fn undo_copy(&mut self) {
        if let Some(Copy { from, index }) = self.copy.take() {
            let to = std::mem::replace(&mut self.blocks[index], from);
            lock(&self.pool).give_back([to]);
        }
    }

    /// Notes that the executor has computed the first `len` tokens. Blocks that are full now can be found by others; where
    /// one of them has the same content in another block, that takes its place in the table.
    ///
    /// # Panics
    /// If there are fewer tokens, the block table does not cover them, or a copy was left out.
    pub fn set_computed(&mut self, len: usize) {
        assert!(len <= self.tokens.len() && len <= self.blocks.len() * self.block_size);
        assert!(self.copy.is_none(), "`run_copy` comes before a forward call");
        let full = len / self.block_size;
        if self.shares && full > self.computed / self.block_size {
            let (tokens, mut pool) = (&self.tokens[..full * self.block_size], lock(&self.pool));
            if self.losses == pool.losses() {
                pool.register(tokens, &mut self.blocks[..full]);
            }
        }
        self.computed = len;
    }

    /// Keeps the tokens, but nothing of what was computed of them if that was lost. Returns whether it was.
    pub fn renew(&mut self) -> bool {
        let losses = lock(&self.pool).losses();
        let lost = self.losses != losses;
        if lost {
            self.release(0);
            self.losses = losses;
        }
        lost
    }

    /// The blocks of what is computed, with how many tokens each of them holds.
    pub(super) fn computed_blocks(&mut self) -> impl Iterator<Item = (u32, usize)> {
        self.undo_copy();
        let (computed, size) = (self.computed, self.block_size);
        self.blocks.iter().enumerate().map_while(move |(index, &block)| {
            let held = computed.saturating_sub(index * size).min(size);
            (held > 0).then_some((block, held))
        })
    }

    /// Lets others find all that is computed, a last block that is filled in part included.
    pub(crate) fn publish(&mut self) {
        let mut pool = lock(&self.pool);
        if self.shares && self.copy.is_none() && self.losses == pool.losses() {
            pool.register(&self.tokens[..self.computed], &mut self.blocks);
        }
    }

    /// Whether the session takes its blocks from `pool`.
    pub(crate) fn is_of(&self, pool: &Arc<Mutex<BlockPool>>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Room for `additional` more tokens, so that pushing them allocates nothing.
    pub(crate) fn reserve(&mut self, additional: usize) {
        self.tokens.reserve(additional);
        self.blocks.reserve(
            (self.tokens.len() + additional).div_ceil(self.block_size).saturating_sub(self.blocks.len()),
        );
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.release(0);
    }
}

#[cfg(test)]
mod tests;
