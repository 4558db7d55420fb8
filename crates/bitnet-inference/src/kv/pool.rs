//! [`BlockPool`]: hands out KV block numbers within a fixed budget, and finds those whose content can be used again.
//!
//! A block is in exactly one of three states:
//!
//! * *in use*: at least one block table holds a reference to it;
//! * *cached*: nobody holds it, but it is known what it contains, so that a text that begins the same way may take it again;
//! * *free*: nobody holds it, and nothing is known of its content.
//!
//! Free blocks are handed out first, then those that were never used, then cached ones: the least recently used first,
//! the last blocks of a text before its first. What is known of a block does not depend on whether it is in use: a text
//! finds blocks of others that are still at work. Who writes asks [`BlockPool::writable`] first, which keeps content that
//! others rely on from being overwritten.

use super::lru::Lru;
use super::stats::{Counters, PoolStats};
use super::tree::{PrefixTree, ROOT};

/// No block is left within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {budget} KV blocks are in use by other sessions; drop one or allow more sessions at a time")]
pub struct PoolExhausted {
    /// Blocks there may be.
    pub budget: usize,
}

/// A beginning of a text that is in the pool's blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrefixMatch {
    /// Its block table. The receiver has a reference to each of them.
    pub blocks: Vec<u32>,
    /// How many tokens it has. If they end within the last block, that may hold other tokens behind them, and whoever
    /// writes to it asks [`BlockPool::writable`] first.
    pub tokens: usize,
}

/// Numbers `0..budget` of KV blocks. See the module's head.
#[derive(Debug)]
pub struct BlockPool {
    budget: usize,
    block_size: usize,
    /// Whether content is remembered.
    caching: bool,
    /// Numbers below this were handed out at least once.
    touched: usize,
    /// Those of them that are free.
    free: Vec<u32>,
    /// Blocks the executor has memory for.
    reserved: usize,
    /// How many block tables hold each block.
    references: Vec<u32>,
    /// What blocks hold.
    tree: PrefixTree,
    /// Cached blocks.
    cached: Lru,
    /// How often the content of all blocks was lost.
    losses: u64,
    counters: Counters,
}

impl BlockPool {
    /// An unused pool of `budget` blocks of `block_size` tokens, none of which has memory yet.
    pub fn new(budget: usize, block_size: usize) -> Self {
        Self {
            budget: budget.min(u32::MAX as usize),
            block_size,
            caching: true,
            touched: 0,
            free: Vec::new(),
            reserved: 0,
            references: Vec::new(),
            tree: PrefixTree::new(block_size),
            cached: Lru::new(),
            losses: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a block for somebody: a free one if there is one, so that memory grows only when it must, else the cached one
    /// whose content is needed least.
    ///
    /// # Errors
    /// [`PoolExhausted`] if all are in use.
    pub fn take(&mut self) -> Result<u32, PoolExhausted> {
        let block = match self.free.pop() {
            Some(block) => block,
            None if self.touched < self.budget => self.touch(),
            None => self.evict().ok_or(PoolExhausted { budget: self.budget })?,
        };
        self.references[block as usize] = 1;
        self.note_peak();
        Ok(block)
    }

    /// The next number that was never handed out.
    fn touch(&mut self) -> u32 {
        let block = self.touched as u32;
        self.touched += 1;
        if self.touched > self.references.len() {
            // As memory is, in steps of twice the size: the steps in between allocate nothing.
            let room = self.touched.next_power_of_two().min(self.budget);
            self.references.resize(room, 0);
            self.tree.grow(room);
            self.cached.grow(room);
            self.free.reserve(room);
        }
        block
    }

    /// Forgets what a cached block holds: the least recently used one, unless cached blocks continue it, which are worth
    /// less than it.
    fn evict(&mut self) -> Option<u32> {
        let mut block = self.cached.oldest()?;
        while let Some(child) = self.tree.children(block).filter(|&b| self.references[b as usize] == 0).last()
        {
            block = child;
        }
        self.counters.evictions += 1;
        self.forget(block);
        // `forget` made it the last free block.
        self.free.pop()
    }

    /// Forgets what a block and all that continue it hold; those that nobody uses become free, `block` last.
    fn forget(&mut self, block: u32) {
        let Self { tree, cached, free, references, .. } = self;
        tree.remove(block, |block| {
            if references[block as usize] == 0 {
                cached.remove(block);
                free.push(block);
            }
        });
    }

    /// Takes back one reference to each of the blocks of a table. Blocks of known content stay cached, the first ones of the
    /// table longest.
    ///
    /// # Panics
    /// If nobody holds a block.
    pub fn give_back(&mut self, blocks: impl IntoIterator<Item = u32, IntoIter: DoubleEndedIterator>) {
        for block in blocks.into_iter().rev() {
            let references = &mut self.references[block as usize];
            assert!(*references > 0, "KV block {block} was given back more often than taken");
            *references -= 1;
            if *references == 0 {
                if self.tree.contains(block) {
                    self.cached.push(block);
                } else {
                    self.free.push(block);
                }
            }
        }
    }

    /// One more reference to a block that is in use.
    ///
    /// # Panics
    /// If nobody holds it.
    pub fn share(&mut self, block: u32) {
        assert!(self.references[block as usize] > 0, "KV block {block} is not in use");
        self.references[block as usize] += 1;
    }

    /// One more reference to a block that is in use or cached.
    fn hold(&mut self, block: u32) {
        if self.references[block as usize] == 0 {
            self.cached.remove(block);
        }
        self.references[block as usize] += 1;
        self.note_peak();
    }

    /// Finds the longest beginning of `tokens` that is in the pool's blocks, and takes a reference to each of them. Who needs
    /// the logits of the last token looks up all tokens but that.
    pub fn lookup(&mut self, tokens: &[u32]) -> PrefixMatch {
        let mut found = PrefixMatch::default();
        if !self.caching {
            return found;
        }
        let (mut parent, mut rest) = (ROOT, tokens);
        while let Some((full, behind)) = rest.split_at_checked(self.block_size)
            && let Some(block) = self.tree.full_child(parent, full)
        {
            self.hold(block);
            found.blocks.push(block);
            found.tokens += self.block_size;
            (parent, rest) = (block, behind);
        }
        if let Some((block, same)) = self.tree.closest_child(parent, rest) {
            self.hold(block);
            found.blocks.push(block);
            found.tokens += same;
        }
        self.counters.looked_up(tokens.len(), found.tokens);
        found
    }

    /// Notes that `blocks`, a table whose blocks the caller holds, contain the keys and values of `tokens`, so that
    /// [`lookup`](Self::lookup) finds them, a last block that is filled in part included. Where the same tokens are in
    /// another block already, the table gets a reference to that instead of its own.
    ///
    /// # Panics
    /// If the table does not cover the tokens.
    pub fn register(&mut self, tokens: &[u32], blocks: &mut [u32]) {
        if !self.caching {
            return;
        }
        let mut parent = ROOT;
        for (index, tokens) in tokens.chunks(self.block_size).enumerate() {
            let own = blocks[index];
            if tokens.len() < self.block_size {
                self.register_part(own, parent, tokens);
                return;
            }
            if self.tree.len(own) < self.block_size {
                match self.tree.full_child(parent, tokens) {
                    Some(other) => {
                        self.hold(other);
                        if self.tree.contains(own) {
                            self.forget(own);
                        }
                        self.give_back([own]);
                        blocks[index] = other;
                    }
                    None => self.insert(own, parent, tokens),
                }
            } else if self.tree.parent(own) != parent {
                // It is known as part of another text; nothing can be said of what is behind it.
                return;
            }
            parent = blocks[index];
        }
    }

    /// Registers a block that is filled in part, unless its tokens can be found already.
    fn register_part(&mut self, own: u32, parent: u32, tokens: &[u32]) {
        let known = self.tree.closest_child(parent, tokens).is_some_and(|(_, same)| same == tokens.len());
        if !known {
            self.insert(own, parent, tokens);
        }
    }

    /// Puts a block into the tree in place of those that hold only a beginning of its tokens, itself perhaps.
    fn insert(&mut self, own: u32, parent: u32, tokens: &[u32]) {
        loop {
            let tree = &self.tree;
            let beginning = |&b: &u32| tree.len(b) < tokens.len() && tokens.starts_with(tree.tokens(b));
            let Some(part) = tree.children(parent).find(beginning) else { break };
            self.forget(part);
        }
        if self.tree.contains(own) {
            self.forget(own);
        }
        self.tree.insert(own, parent, tokens);
    }

    /// Asks to write to a block, which the caller holds, from `slot` on. `None`: it may. Otherwise somebody relies on what is
    /// there: the caller gets a new block to put into its table, copies the slots before `slot` from the old block, and
    /// gives that back then.
    ///
    /// Where no block is left for the copy, content that only the cache relies on is forgotten instead.
    ///
    /// # Errors
    /// [`PoolExhausted`] if others hold the block and none is left.
    pub fn writable(&mut self, block: u32, slot: usize) -> Result<Option<u32>, PoolExhausted> {
        let alone = self.references[block as usize] == 1;
        if alone && self.tree.len(block) <= slot {
            return Ok(None);
        }
        match self.take() {
            Ok(copy) => {
                self.counters.copies += 1;
                Ok(Some(copy))
            }
            Err(_) if alone => {
                self.forget(block);
                Ok(None)
            }
            Err(exhausted) => Err(exhausted),
        }
    }

    /// Whether what blocks hold is remembered, as it is at first. Switching it off forgets what is known.
    pub fn set_prefix_cache(&mut self, on: bool) {
        self.caching = on;
        if !on {
            self.forget_cached();
        }
    }

    /// Whether what blocks hold is remembered.
    pub fn prefix_cache(&self) -> bool {
        self.caching
    }

    /// Forgets what all blocks hold: cached blocks become free, and nothing that was computed so far is found again.
    pub fn forget_cached(&mut self) {
        loop {
            let first = self.tree.children(ROOT).next();
            let Some(block) = first else { return };
            self.forget(block);
        }
    }

    /// Notes that the memory behind the blocks was lost with its content. Sessions notice it before they compute, by
    /// [`losses`](Self::losses).
    pub fn lose_contents(&mut self) {
        self.losses += 1;
        self.forget_cached();
    }

    /// How often the content of all blocks was lost.
    pub fn losses(&self) -> u64 {
        self.losses
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

    /// Blocks that are in use.
    pub fn in_use(&self) -> usize {
        self.touched - self.free.len() - self.cached.len()
    }

    /// Blocks that [`take`](Self::take) can give.
    pub fn available(&self) -> usize {
        self.budget - self.in_use()
    }

    /// Blocks there may be.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// How blocks are used, and what the cache was good for.
    pub fn stats(&self) -> PoolStats {
        let (in_use, cached) = (self.in_use(), self.cached.len());
        let (known, known_tokens) = self.tree.known();
        self.counters.stats(PoolStats {
            block_size: self.block_size,
            total: self.budget,
            in_use,
            cached,
            free: self.budget - in_use - cached,
            reserved: self.reserved,
            known,
            known_tokens,
            ..PoolStats::default()
        })
    }

    fn note_peak(&mut self) {
        self.counters.peak_in_use = self.counters.peak_in_use.max(self.in_use());
    }
}

#[cfg(test)]
mod tests;
