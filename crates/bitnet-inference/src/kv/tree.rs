//! [`PrefixTree`]: which tokens the blocks hold that may be used again.
//!
//! A node is a block with the tokens in it; its parent is the block that holds the tokens before. So a path from the root is
//! a beginning of a text, and texts with the same beginning share its path. Full blocks are found by a hash of parent and
//! tokens and verified against both, so that no collision gives the wrong block; a block that is filled in part has no
//! children and is found by looking through its siblings.
//!
//! Everything is kept in a few vectors that grow with the number of blocks: adding and removing nodes allocates nothing.

use std::hash::{BuildHasher, RandomState};

use super::lru::NONE;

/// The parent of blocks that begin a text.
pub(super) const ROOT: u32 = NONE;

#[derive(Debug, Clone, Copy)]
struct Node {
    /// Tokens that the block is known to hold; 0 if it is not in the tree.
    len: usize,
    parent: u32,
    child: u32,
    /// Siblings.
    previous: u32,
    next: u32,
    /// The next full block in the same bucket.
    same_bucket: u32,
}

const OUTSIDE: Node =
    Node { len: 0, parent: NONE, child: NONE, previous: NONE, next: NONE, same_bucket: NONE };

/// The blocks that can be found by what they hold.
#[derive(Debug)]
pub(super) struct PrefixTree {
    block_size: usize,
    nodes: Vec<Node>,
    /// `[block][block_size]`, of which the first `len` of each count.
    tokens: Vec<u32>,
    /// Blocks in the tree, and their tokens.
    known: (usize, usize),
    /// The newest child of the root.
    first: u32,
    /// Heads of the lists of full blocks; a power of two of them, or none yet.
    buckets: Vec<u32>,
    hasher: RandomState,
}

/// How many elements both have in common at the beginning.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl PrefixTree {
    pub(super) fn new(block_size: usize) -> Self {
        Self {
            block_size,
            nodes: Vec::new(),
            tokens: Vec::new(),
            known: (0, 0),
            first: NONE,
            buckets: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// Makes room for the blocks `0..count`.
    pub(super) fn grow(&mut self, count: usize) {
        self.nodes.resize(count, OUTSIDE);
        self.tokens.resize(count * self.block_size, 0);
        self.set_buckets((2 * count).next_power_of_two());
    }

    /// Spreads the full blocks over `count` buckets.
    fn set_buckets(&mut self, count: usize) {
        self.buckets.clear();
        self.buckets.resize(count, NONE);
        for block in 0..self.nodes.len() as u32 {
            if self.len(block) == self.block_size {
                self.put_into_bucket(block);
            }
        }
    }

    /// Tokens that a block is known to hold; 0 if it is not in the tree.
    pub(super) fn len(&self, block: u32) -> usize {
        self.nodes[block as usize].len
    }

    /// How many blocks are in the tree, and how many tokens they hold.
    pub(super) fn known(&self) -> (usize, usize) {
        self.known
    }

    pub(super) fn contains(&self, block: u32) -> bool {
        self.len(block) > 0
    }

    pub(super) fn parent(&self, block: u32) -> u32 {
        self.nodes[block as usize].parent
    }

    /// The tokens of a block.
    pub(super) fn tokens(&self, block: u32) -> &[u32] {
        let start = block as usize * self.block_size;
        &self.tokens[start..start + self.len(block)]
    }

    /// The blocks that continue `parent`, newest first.
    pub(super) fn children(&self, parent: u32) -> impl Iterator<Item = u32> + '_ {
        let first = if parent == ROOT { self.first } else { self.nodes[parent as usize].child };
        let some = |block: u32| (block != NONE).then_some(block);
        std::iter::successors(some(first), move |&block| some(self.nodes[block as usize].next))
    }

    fn bucket(&self, parent: u32, tokens: &[u32]) -> usize {
        self.hasher.hash_one((parent, tokens)) as usize & (self.buckets.len() - 1)
    }

    /// The full block that continues `parent` with exactly these tokens, `block_size` of them.
    pub(super) fn full_child(&self, parent: u32, tokens: &[u32]) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut block = self.buckets[self.bucket(parent, tokens)];
        while block != NONE && (self.parent(block) != parent || self.tokens(block) != tokens) {
            block = self.nodes[block as usize].same_bucket;
        }
        (block != NONE).then_some(block)
    }

    /// The child of `parent` that has most tokens in common with `tokens` at the beginning, and how many; of several the
    /// one that holds least beyond them.
    pub(super) fn closest_child(&self, parent: u32, tokens: &[u32]) -> Option<(u32, usize)> {
        let mut best: Option<(u32, usize)> = None;
        for child in self.children(parent) {
            let same = common(self.tokens(child), tokens);
            let better = best
                .is_none_or(|(other, most)| same > most || same == most && self.len(child) < self.len(other));
            if same > 0 && better {
                best = Some((child, same));
            }
        }
        best
    }

    /// Adds a block that is not in the tree, with at most `block_size` tokens.
    pub(super) fn insert(&mut self, block: u32, parent: u32, tokens: &[u32]) {
        let start = block as usize * self.block_size;
        self.tokens[start..start + tokens.len()].copy_from_slice(tokens);
        let head = if parent == ROOT { &mut self.first } else { &mut self.nodes[parent as usize].child };
        let next = std::mem::replace(head, block);
        if next != NONE {
            self.nodes[next as usize].previous = block;
        }
        self.nodes[block as usize] = Node { len: tokens.len(), parent, next, ..OUTSIDE };
        self.known = (self.known.0 + 1, self.known.1 + tokens.len());
        if tokens.len() == self.block_size {
            self.put_into_bucket(block);
        }
    }

    fn put_into_bucket(&mut self, block: u32) {
        let bucket = self.bucket(self.parent(block), self.tokens(block));
        self.nodes[block as usize].same_bucket = std::mem::replace(&mut self.buckets[bucket], block);
    }

    /// Takes a block and all that continue it out of the tree, the last of a path first, and tells each.
    pub(super) fn remove(&mut self, block: u32, mut gone: impl FnMut(u32)) {
        let mut at = block;
        loop {
            let Node { child, parent, .. } = self.nodes[at as usize];
            if child != NONE {
                at = child;
                continue;
            }
            self.unlink(at);
            gone(at);
            if at == block {
                return;
            }
            at = parent;
        }
    }

    /// Takes out a block without children.
    fn unlink(&mut self, block: u32) {
        let Node { len, parent, previous, next, same_bucket, .. } = self.nodes[block as usize];
        if len == self.block_size {
            let bucket = self.bucket(parent, self.tokens(block));
            let mut at = self.buckets[bucket];
            if at == block {
                self.buckets[bucket] = same_bucket;
            } else {
                while self.nodes[at as usize].same_bucket != block {
                    at = self.nodes[at as usize].same_bucket;
                }
                self.nodes[at as usize].same_bucket = same_bucket;
            }
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else if parent == ROOT {
            self.first = next;
        } else {
            self.nodes[parent as usize].child = next;
        }
        self.nodes[block as usize] = OUTSIDE;
        self.known = (self.known.0 - 1, self.known.1 - len);
    }

    /// Puts all full blocks into one bucket, so that every look-up meets collisions.
    #[cfg(test)]
    pub(super) fn collide(&mut self) {
        self.set_buckets(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_and_verified() {
        let mut tree = PrefixTree::new(2);
        assert_eq!(tree.full_child(ROOT, &[1, 2]), None);
        tree.grow(6);
        tree.collide();
        tree.insert(3, ROOT, &[1, 2]);
        tree.insert(0, ROOT, &[2, 1]);
        tree.insert(4, 3, &[1, 2]);
        tree.insert(1, 3, &[7]);
        assert_eq!(tree.full_child(ROOT, &[1, 2]), Some(3));
        assert_eq!(tree.full_child(3, &[1, 2]), Some(4), "the same tokens elsewhere");
        assert_eq!(tree.full_child(0, &[1, 2]), None);
        assert_eq!(tree.closest_child(ROOT, &[2, 9]), Some((0, 1)));
        assert_eq!(tree.closest_child(3, &[7, 8]), Some((1, 1)));
        assert_eq!(tree.closest_child(3, &[8]), None);
        assert_eq!(tree.children(3).collect::<Vec<_>>(), [1, 4]);

        let mut gone = Vec::new();
        tree.remove(3, |block| gone.push(block));
        assert_eq!(gone, [1, 4, 3]);
        assert!(!tree.contains(4) && tree.full_child(ROOT, &[1, 2]).is_none());
        assert_eq!(tree.full_child(ROOT, &[2, 1]), Some(0));
        tree.insert(4, 0, &[5, 6]);
        tree.grow(9);
        assert_eq!((tree.full_child(0, &[5, 6]), tree.tokens(4)), (Some(4), &[5, 6][..]));
    }

    #[test]
    fn of_equally_close_children_the_shortest_is_taken() {
        let mut tree = PrefixTree::new(4);
        tree.grow(4);
        tree.insert(0, ROOT, &[1, 2, 3, 4]);
        tree.insert(1, ROOT, &[1, 2]);
        tree.insert(2, ROOT, &[1, 2, 5]);
        assert_eq!(tree.closest_child(ROOT, &[1, 2, 9]), Some((1, 2)));
        assert_eq!(tree.closest_child(ROOT, &[1, 2, 3]), Some((0, 3)));
    }
}
