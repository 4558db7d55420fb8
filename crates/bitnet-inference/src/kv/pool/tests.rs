//! The pool by itself: numbers, order of eviction, references. Content is tested with sessions.

use super::*;

impl BlockPool {
    /// Checks what must always hold, for block tables that hold these blocks, each as often as it is in the list.
    pub(crate) fn check(&self, held: impl IntoIterator<Item = u32>) {
        let mut references = vec![0; self.touched];
        held.into_iter().for_each(|block| references[block as usize] += 1);
        assert_eq!(references, self.references[..self.touched], "references are those of the tables");
        let mut seen = vec![0; self.touched];
        for &block in &self.free {
            assert!(!self.tree.contains(block), "block {block} is free, but its content known");
            seen[block as usize] += 1;
        }
        for block in self.cached.iter() {
            assert!(self.tree.contains(block), "block {block} is cached, but its content unknown");
            seen[block as usize] += 1;
        }
        for (block, (&seen, &references)) in seen.iter().zip(&references).enumerate() {
            assert_eq!(seen + usize::from(references > 0), 1, "block {block} is in one state");
        }
        let mut reached = 0;
        self.check_below(ROOT, &mut reached);
        let known = || (0..self.touched as u32).filter(|&b| self.tree.contains(b));
        assert_eq!(reached, known().count());
        assert_eq!(self.tree.known(), (reached, known().map(|b| self.tree.len(b)).sum()));
        let stats = self.stats();
        assert_eq!(stats.in_use, references.iter().filter(|&&r| r > 0).count());
        assert_eq!(stats.total, stats.in_use + stats.cached + stats.free);
        assert_eq!(self.available(), stats.cached + stats.free);
    }

    fn check_below(&self, parent: u32, reached: &mut usize) {
        for block in self.tree.children(parent) {
            assert_eq!(self.tree.parent(block), parent);
            let tokens = self.tree.tokens(block);
            if tokens.len() == self.block_size {
                assert_eq!(self.tree.full_child(parent, tokens), Some(block), "no two with the same content");
            } else {
                assert!(self.tree.children(block).next().is_none(), "nothing continues a part of a block");
            }
            *reached += 1;
            self.check_below(block, reached);
        }
    }

    /// Lets every look-up meet collisions from now on.
    pub(crate) fn collide(&mut self) {
        self.tree.collide();
    }
}

/// Takes blocks for a text, registers and gives them back; returns them.
fn cache(pool: &mut BlockPool, text: &[u32]) -> Vec<u32> {
    let mut blocks: Vec<u32> = text.chunks(pool.block_size()).map(|_| pool.take().unwrap()).collect();
    pool.register(text, &mut blocks);
    pool.give_back(blocks.iter().copied());
    blocks
}

#[test]
fn hands_out_every_number_once_and_reuses_them() {
    let mut pool = BlockPool::new(5, 4);
    let taken: Vec<u32> = (0..5).map(|_| pool.take().unwrap()).collect();
    assert_eq!(taken, [0, 1, 2, 3, 4]);
    assert_eq!(pool.take(), Err(PoolExhausted { budget: 5 }));
    pool.give_back([1, 3]);
    assert_eq!(pool.in_use(), 3);
    let mut again = [pool.take().unwrap(), pool.take().unwrap()];
    again.sort_unstable();
    assert_eq!(again, [1, 3]);
    assert!(pool.take().is_err());
    pool.check([0, 1, 2, 3, 4]);
}

#[test]
fn memory_doubles_within_the_budget() {
    let mut pool = BlockPool::new(7, 4);
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

#[test]
fn a_beginning_is_found_to_the_token() {
    let mut pool = BlockPool::new(9, 3);
    let blocks = cache(&mut pool, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for (text, tokens) in [
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9][..], 8usize),
        (&[1, 2, 3, 4, 5, 6, 7, 8], 8),
        (&[1, 2, 3, 4, 5, 6, 9], 6),
        (&[1, 2, 3, 4, 9], 4),
        (&[1], 1),
        (&[2, 3], 0),
        (&[], 0),
    ] {
        let found = pool.lookup(text);
        assert_eq!((found.tokens, &found.blocks[..]), (tokens, &blocks[..tokens.div_ceil(3)]), "{text:?}");
        pool.check(found.blocks.iter().copied());
        pool.give_back(found.blocks);
    }
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.hit_tokens, stats.lookup_tokens), (5, 2, 27, 32));
    assert_eq!((stats.in_use, stats.cached, stats.peak_in_use), (0, 3, 3));
    assert_eq!((stats.known, stats.known_tokens), (3, 8));
    assert!(
        (stats.fragmentation() - 1.0 / 9.0).abs() < 1e-12 && (stats.hit_rate() - 27.0 / 32.0).abs() < 1e-12
    );
}

#[test]
fn the_same_content_is_kept_once() {
    let mut pool = BlockPool::new(9, 2);
    let mut first = [pool.take().unwrap(), pool.take().unwrap()];
    let mut second = [pool.take().unwrap(), pool.take().unwrap()];
    pool.register(&[1, 2, 3, 4], &mut first);
    pool.register(&[1, 2, 3, 5], &mut second);
    assert_eq!((first, second), ([0, 1], [0, 3]), "the common block of the second is the first's");
    pool.check([0, 1, 0, 3]);
    pool.give_back(first);
    pool.check(second);
    assert_eq!(pool.stats().free, 6);
}

#[test]
fn a_longer_block_takes_the_place_of_its_beginnings() {
    let mut pool = BlockPool::new(9, 4);
    cache(&mut pool, &[1, 2]);
    cache(&mut pool, &[1, 2, 3]);
    assert_eq!(pool.stats().cached, 1);
    cache(&mut pool, &[1]);
    assert_eq!(pool.stats().cached, 1, "that is known already");
    cache(&mut pool, &[1, 2, 3, 4]);
    cache(&mut pool, &[1, 2, 4]);
    assert_eq!(pool.stats().cached, 2);
    pool.check([]);
}

#[test]
fn the_least_recently_used_goes_first_and_ends_before_beginnings() {
    let mut pool = BlockPool::new(6, 2);
    let a = cache(&mut pool, &[1, 1, 2, 2, 3, 3]);
    let b = cache(&mut pool, &[7, 7, 8, 8, 9, 9]);
    let used = pool.lookup(&[1, 1, 2, 2]);
    pool.give_back(used.blocks);
    // The end of the first text was not used again.
    let order: Vec<u32> = (0..6).map(|_| pool.take().unwrap()).collect();
    assert_eq!(order, [a[2], b[2], b[1], b[0], a[1], a[0]]);
    assert!(pool.take().is_err());
    assert_eq!(pool.stats().evictions, 6);
    pool.check(order);
}

#[test]
fn a_beginning_outlives_its_ends_whatever_the_order_of_giving_back() {
    let mut pool = BlockPool::new(3, 1);
    let mut blocks: Vec<u32> = (0..3).map(|_| pool.take().unwrap()).collect();
    pool.register(&[5, 6, 7], &mut blocks);
    for block in &blocks {
        pool.give_back([*block]);
    }
    assert_eq!(pool.take(), Ok(blocks[2]));
    assert_eq!(pool.lookup(&[5, 6, 7]).tokens, 2);
    pool.check(blocks);
}

#[test]
fn content_that_others_rely_on_is_copied_before_it_is_overwritten() {
    let mut pool = BlockPool::new(3, 4);
    let block = pool.take().unwrap();
    assert_eq!(pool.writable(block, 2), Ok(None), "nobody knows of it");
    pool.register(&[1, 2], &mut [block]);
    assert_eq!(pool.writable(block, 2), Ok(None), "behind what is known");
    let copy = pool.writable(block, 1).unwrap().unwrap();
    pool.check([block, copy]);
    pool.share(block);
    assert!(
        pool.writable(block, 2).unwrap().is_some_and(|other| other != block),
        "another may write there too"
    );
    // No block is left: others keep theirs, the cache gives way.
    assert!(pool.writable(block, 2).is_err());
    pool.give_back([block]);
    assert_eq!(pool.writable(block, 1), Ok(None));
    assert_eq!(pool.lookup(&[1, 2]).tokens, 0);
    assert_eq!(pool.stats().copies, 2);
}

#[test]
fn without_a_cache_nothing_is_known() {
    let mut pool = BlockPool::new(4, 2);
    cache(&mut pool, &[1, 2, 3]);
    pool.set_prefix_cache(false);
    assert_eq!((pool.stats().cached, pool.stats().free), (0, 4));
    cache(&mut pool, &[1, 2, 3]);
    assert_eq!(pool.lookup(&[1, 2, 3]), PrefixMatch::default());
    assert_eq!(pool.stats().cached, 0);
    pool.check([]);
}

#[test]
#[should_panic(expected = "more often than taken")]
fn giving_back_twice_is_noticed() {
    let mut pool = BlockPool::new(4, 2);
    let block = pool.take().unwrap();
    pool.give_back([block, block]);
}
