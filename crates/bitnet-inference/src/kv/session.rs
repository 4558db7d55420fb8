//! [`Session`]: a conversation and its keys and values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlockPool, PoolExhausted};

/// The tokens of a conversation and the KV blocks that hold what was computed of them.
///
/// The first [`computed`](Self::computed) tokens have keys and values in the blocks; the rest wait to be computed.
/// [`extend`](Self::extend) replaces the text but keeps what both have in common at the beginning, so a chat computes each
/// turn only once. Dropping a session gives its blocks back.
#[derive(Debug)]
pub struct Session {
    tokens: Vec<u32>,
    computed: usize,
    blocks: Vec<u32>,
    block_size: usize,
    context: usize,
    pool: Arc<Mutex<BlockPool>>,
}

/// Locks a pool. A thread that panicked with the lock cannot have left it half changed: every operation on it is one step.
pub(crate) fn lock(pool: &Mutex<BlockPool>) -> MutexGuard<'_, BlockPool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// An empty conversation of at most `context` tokens that takes its blocks, of `block_size` tokens, from `pool`.
    pub fn new(pool: Arc<Mutex<BlockPool>>, block_size: usize, context: usize) -> Self {
        Self { tokens: Vec::new(), computed: 0, blocks: Vec::new(), block_size, context, pool }
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

    /// Makes `text` the conversation's tokens. Keeps the keys and values of the longest common beginning, but never of
    /// the last token, whose logits the next step needs. Returns how many were kept.
    pub fn extend(&mut self, text: &[u32]) -> usize {
        let known = &self.tokens[..self.computed];
        let common = known.iter().zip(text).take_while(|(a, b)| a == b).count();
        self.truncate(common.min(text.len().saturating_sub(1)));
        self.tokens.extend_from_slice(&text[self.tokens.len()..]);
        self.computed
    }

    /// Appends a token that is to be computed next.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// Forgets all but the first `len` tokens and gives back the blocks that held only the rest.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.computed = self.computed.min(len);
        let keep = self.computed.div_ceil(self.block_size);
        if keep < self.blocks.len() {
            lock(&self.pool).give_back(self.blocks.drain(keep..));
        }
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

    /// Makes the block table cover positions `0..len`.
    ///
    /// # Errors
    /// [`PoolExhausted`]; the blocks of before, and those got on the way, stay with the session.
    pub fn cover(&mut self, len: usize) -> Result<(), PoolExhausted> {
        let needed = len.div_ceil(self.block_size);
        if needed > self.blocks.len() {
            let mut pool = lock(&self.pool);
            while self.blocks.len() < needed {
                self.blocks.push(pool.take()?);
            }
        }
        Ok(())
    }

    /// Notes that the executor has computed the first `len` tokens.
    ///
    /// # Panics
    /// If there are fewer tokens or the block table does not cover them.
    pub fn set_computed(&mut self, len: usize) {
        assert!(len <= self.tokens.len() && len <= self.blocks.len() * self.block_size);
        self.computed = len;
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
        lock(&self.pool).give_back(self.blocks.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(session: &mut Session, text: &[u32]) -> usize {
        let kept = session.extend(text);
        session.cover(text.len()).unwrap();
        session.set_computed(text.len());
        kept
    }

    #[test]
    fn keeps_the_common_beginning() {
        let pool = Arc::new(Mutex::new(BlockPool::new(8)));
        let mut session = Session::new(Arc::clone(&pool), 4, 32);
        assert_eq!(computed(&mut session, &[1, 2, 3, 4, 5]), 0);
        assert_eq!(session.blocks().len(), 2);
        assert_eq!(
            computed(&mut session, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            5,
            "a longer text keeps all of the old"
        );
        assert_eq!(
            computed(&mut session, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            8,
            "the same text computes its last token again"
        );
        assert_eq!(computed(&mut session, &[1, 2, 9]), 2);
        assert_eq!(session.blocks().len(), 1);
        assert_eq!(lock(&pool).in_use(), 1);
        assert_eq!(computed(&mut session, &[7]), 0);
    }

    #[test]
    fn tokens_that_were_not_computed_are_not_kept() {
        let mut session = Session::new(Arc::new(Mutex::new(BlockPool::new(8))), 4, 32);
        computed(&mut session, &[1, 2, 3]);
        session.push(4);
        assert_eq!(session.extend(&[1, 2, 3, 4, 5]), 3);
        assert_eq!(session.tokens(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn blocks_come_back_when_a_session_ends() {
        let pool = Arc::new(Mutex::new(BlockPool::new(2)));
        let mut first = Session::new(Arc::clone(&pool), 4, 32);
        computed(&mut first, &[1; 8]);
        let mut second = Session::new(Arc::clone(&pool), 4, 32);
        assert_eq!(second.cover(1), Err(PoolExhausted { budget: 2 }));
        drop(first);
        second.cover(8).unwrap();
        second.clear();
        assert_eq!(lock(&pool).in_use(), 0);
    }
}
