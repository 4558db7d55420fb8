//! [`BlockPool`]: hands out KV block numbers within a fixed budget.

/// No block is left within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {budget} KV blocks are in use by other sessions; drop one or allow more sessions at a time")]
pub struct PoolExhausted {
    /// Blocks there may be.
    pub budget: usize,
}

/// Numbers `0..budget` of KV blocks; each is either free or belongs to one session.
#[derive(Debug)]
pub struct BlockPool {
    budget: usize,
    /// Numbers below this were handed out at least once.
    touched: usize,
    /// Those of them that came back.
    free: Vec<u32>,
    /// Blocks the executor has memory for.
    reserved: usize,
}

impl BlockPool {
    /// An unused pool of `budget` blocks, none of which has memory yet.
    pub fn new(budget: usize) -> Self {
        Self { budget: budget.min(u32::MAX as usize), touched: 0, free: Vec::new(), reserved: 0 }
    }

    /// Takes a free block; one that was used before if there is one, so that memory grows only when it must.
    ///
    /// # Errors
    /// [`PoolExhausted`] if all are taken.
    pub fn take(&mut self) -> Result<u32, PoolExhausted> {
        if let Some(block) = self.free.pop() {
            return Ok(block);
        }
        if self.touched == self.budget {
            return Err(PoolExhausted { budget: self.budget });
        }
        self.touched += 1;
        Ok((self.touched - 1) as u32)
    }

    /// Takes blocks back.
    pub fn give_back(&mut self, blocks: impl IntoIterator<Item = u32>) {
        self.free.extend(blocks);
    }

    /// How many blocks the executor should reserve so that all blocks in use have memory; `None` if it has enough.
    /// Grows by doubling, so that a long text makes few reservations.
    pub fn missing_memory(&self) -> Option<usize> {
        (self.touched > self.reserved).then(|| self.touched.max(self.reserved * 2).min(self.budget))
    }

    /// Notes that the executor has memory for `count` blocks.
    pub fn set_reserved(&mut self, count: usize) {
        self.reserved = self.reserved.max(count);
    }

    /// Blocks that have memory.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Blocks that belong to sessions.
    pub fn in_use(&self) -> usize {
        self.touched - self.free.len()
    }

    /// Blocks there may be.
    pub fn budget(&self) -> usize {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_every_number_once_and_reuses_them() {
        let mut pool = BlockPool::new(5);
        let taken: Vec<u32> = (0..5).map(|_| pool.take().unwrap()).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        assert_eq!(pool.take(), Err(PoolExhausted { budget: 5 }));
        pool.give_back([1, 3]);
        assert_eq!(pool.in_use(), 3);
        let mut again = [pool.take().unwrap(), pool.take().unwrap()];
        again.sort_unstable();
        assert_eq!(again, [1, 3]);
        assert!(pool.take().is_err());
    }

    #[test]
    fn memory_doubles_within_the_budget() {
        let mut pool = BlockPool::new(7);
        let mut reservations = Vec::new();
        for _ in 0..7 {
            pool.take().unwrap();
            if let Some(count) = pool.missing_memory() {
                pool.set_reserved(count);
                reservations.push(count);
            }
        }
        assert_eq!(reservations, [1, 2, 4, 7]);
        assert_eq!(pool.missing_memory(), None);
    }
}
