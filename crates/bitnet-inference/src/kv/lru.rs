//! [`Lru`]: block numbers in the order of their last use.

/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// A list of blocks, the least recently used first. Adding and removing takes constant time and no memory.
#[derive(Debug)]
pub(super) struct Lru {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE, len: 0 }
    }

    /// Makes room for the blocks `0..count`.
    pub(super) fn grow(&mut self, count: usize) {
        self.links.resize(count, Link { older: NONE, newer: NONE });
    }

    /// Blocks in the list.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The block that was not used for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// All blocks, the least recently used first.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.oldest(), |&block| {
            Some(self.links[block as usize].newer).filter(|&b| b != NONE)
        })
    }

    /// Adds a block, which is not in the list, as the one used last.
    pub(super) fn push(&mut self, block: u32) {
        let older = std::mem::replace(&mut self.newest, block);
        self.links[block as usize] = Link { older, newer: NONE };
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = block,
            None => self.oldest = block,
        }
        self.len += 1;
    }

    /// Takes a block, which is in the list, out of it.
    pub(super) fn remove(&mut self, block: u32) {
        let Link { older, newer } = self.links[block as usize];
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_use() {
        let mut list = Lru::new();
        list.grow(5);
        for block in [3, 1, 4, 0] {
            list.push(block);
        }
        list.remove(1);
        list.remove(3);
        list.push(3);
        let mut order = Vec::new();
        while let Some(block) = list.oldest() {
            list.remove(block);
            order.push(block);
        }
        assert_eq!((order, list.len()), (vec![4, 0, 3], 0));
        list.push(2);
        assert_eq!((list.oldest(), list.len()), (Some(2), 1));
    }
}
