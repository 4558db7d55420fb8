//! [`PoolStats`]: how a pool's blocks are used.

/// How the blocks of a pool are used now, and what was counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Tokens of a block.
    pub block_size: usize,
    /// Blocks there may be: `in_use + cached + free`.
    pub total: usize,
    /// Blocks that somebody holds.
    pub in_use: usize,
    /// Blocks that nobody holds, whose content can be used again.
    pub cached: usize,
    /// Blocks that nobody holds and that hold nothing of use.
    pub free: usize,
    /// Blocks that have memory.
    pub reserved: usize,
    /// Blocks, in use or not, whose content can be found.
    pub known: usize,
    /// Tokens in them.
    pub known_tokens: usize,
    /// Most blocks that were in use at a time.
    pub peak_in_use: usize,
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Tokens that look-ups found.
    pub hit_tokens: u64,
    /// Tokens that were looked up.
    pub lookup_tokens: u64,
    /// Cached blocks whose content was forgotten for that of others.
    pub evictions: u64,
    /// Blocks that were copied since somebody wanted to write what others rely on.
    pub copies: u64,
}

impl PoolStats {
    /// The share of the tokens looked up that were found, 0 to 1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        share(self.hit_tokens, self.lookup_tokens)
    }

    /// The share of the room in known blocks that holds no token, 0 to 1: what texts lose that end within a block.
    pub fn fragmentation(&self) -> f64 {
        let room = (self.known * self.block_size) as u64;
        share(room - self.known_tokens as u64, room)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What a pool counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) peak_in_use: usize,
    pub(super) evictions: u64,
    pub(super) copies: u64,
    hits: u64,
    misses: u64,
    hit_tokens: u64,
    lookup_tokens: u64,
}

impl Counters {
    /// Counts a look-up of some tokens that found so many.
    pub(super) fn looked_up(&mut self, tokens: usize, found: usize) {
        *if found > 0 { &mut self.hits } else { &mut self.misses } += 1;
        self.hit_tokens += found as u64;
        self.lookup_tokens += tokens as u64;
    }

    /// Adds what was counted to what is the case now.
    pub(super) fn stats(&self, now: PoolStats) -> PoolStats {
        PoolStats {
            peak_in_use: self.peak_in_use,
            hits: self.hits,
            misses: self.misses,
            hit_tokens: self.hit_tokens,
            lookup_tokens: self.lookup_tokens,
            evictions: self.evictions,
            copies: self.copies,
            ..now
        }
    }
}
