//! [`MemoryPool`]: buffers that come back and are given out again, within a budget.
//!
//! Buffers are aligned to a cache line and come in size classes, four to each doubling, so that a buffer given back serves
//! the next request of about its size; at most a fifth of a buffer is then unused. What nobody uses stays *idle* in the
//! pool until it is wanted, or until the budget is needed for another class: then the buffer that has been idle longest
//! goes back to the system first.
//!
//! ```
//! use bitnet_core::MemorySize;
//! use bitnet_core::memory_pool::MemoryPool;
//!
//! let pool = MemoryPool::new(MemorySize::MB(4));
//! let mut row = pool.take::<f32>(1000)?;
//! row.fill(1.0);
//! drop(row);
//! let again = pool.take::<f32>(990)?; // the same memory
//! let stats = pool.stats();
//! assert_eq!((stats.allocations, stats.hits), (2, 1));
//! assert_eq!(stats.hit_rate(), 0.5);
//! assert!(pool.take::<u8>(5 << 20).is_err(), "the budget holds");
//! # drop(again);
//! # Ok::<(), bitnet_core::CoreError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::buffer::AlignedBuf;
use crate::{CoreError, MemorySize};

/// Bytes of the smallest class.
const SMALLEST: u64 = 256;

/// A pool of buffers with a budget. Clones share it; buffers keep it alive.
#[derive(Clone)]
pub struct MemoryPool {
    shared: Arc<Shared>,
}

struct Shared {
    budget: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Buffers nobody uses by their bytes, the one given back last at the end.
    idle: BTreeMap<u64, Vec<Idle>>,
    /// Counts buffers given back.
    clock: u64,
    stats: MemoryStats,
}

struct Idle {
    memory: AlignedBuf<u64>,
    since: u64,
}

/// What a [`MemoryPool`] holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryStats {
    /// Most memory the pool may hold.
    pub budget: MemorySize,
    /// Memory it holds: buffers in use and idle ones.
    pub reserved: MemorySize,
    /// Memory of the buffers in use.
    pub in_use: MemorySize,
    /// What was asked for of the memory in use.
    pub requested: MemorySize,
    /// The most that was ever reserved.
    pub peak: MemorySize,
    /// The most that was ever in use.
    pub peak_in_use: MemorySize,
    /// Buffers in use.
    pub buffers: u64,
    /// Buffers given out so far.
    pub allocations: u64,
    /// Those of them that were there already.
    pub hits: u64,
    /// Buffers that went back to the system to make room for others.
    pub evictions: u64,
    /// Requests that did not fit the budget, or that the system refused.
    pub refusals: u64,
    /// Bytes a second that the machine's memory delivers, if somebody measured it ([`MemoryPool::record_bandwidth`]).
    pub bandwidth: Option<f64>,
}

impl MemoryStats {
    /// The share of buffers given out that were there already, 0 to 1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        share(self.hits, self.allocations)
    }

    /// The share of the memory in use that nobody asked for: what rounding up to size classes costs. 0 to 0.2 but for tiny
    /// buffers.
    pub fn fragmentation(&self) -> f64 {
        share(self.in_use.as_bytes() - self.requested.as_bytes(), self.in_use.as_bytes())
    }

    /// What can still be had: the budget without what is in use.
    pub fn free(&self) -> MemorySize {
        MemorySize::bytes(self.budget.as_bytes().saturating_sub(self.in_use.as_bytes()))
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl fmt::Display for MemoryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in use, {} reserved of {} (peak {}); {} buffers given out, {:.0} % reused, {:.1} % lost to rounding",
            self.in_use,
            self.reserved,
            self.budget,
            self.peak,
            self.allocations,
            self.hit_rate() * 100.0,
            self.fragmentation() * 100.0
        )?;
        match self.bandwidth {
            Some(bandwidth) => write!(f, "; memory delivers {:.1} GB/s", bandwidth / 1e9),
            None => Ok(()),
        }
    }
}

/// Rounds a number of bytes up to its size class; `None` if there is no such class.
pub(crate) fn class_of(bytes: u64) -> Option<u64> {
    if bytes <= SMALLEST {
        return Some(SMALLEST);
    }
    let quarter = 1 << (u64::BITS - 1 - (bytes - 1).leading_zeros() - 2);
    bytes.checked_next_multiple_of(quarter)
}

impl MemoryPool {
    /// An empty pool that never holds more than `budget`.
    pub fn new(budget: MemorySize) -> Self {
        let stats = MemoryStats { budget, ..MemoryStats::default() };
        let state = Mutex::new(State { stats, ..State::default() });
        Self { shared: Arc::new(Shared { budget: budget.as_bytes(), state }) }
    }

    /// A pool without a limit of its own.
    pub fn unlimited() -> Self {
        Self::new(MemorySize::bytes(u64::MAX))
    }

    /// A buffer of `len` elements whose content is whatever was there: zeros, or what an earlier user of the memory left.
    ///
    /// # Errors
    /// [`CoreError::PoolFull`] if the budget does not allow it beside what is in use, [`CoreError::OutOfMemory`] if the
    /// system refuses.
    pub fn take<T: Pod>(&self, len: usize) -> Result<PoolBuf<T>, CoreError> {
        if len == 0 {
            return Ok(PoolBuf::default());
        }
        let bytes = (len as u64).checked_mul(size_of::<T>() as u64);
        let class = bytes.and_then(class_of).ok_or_else(|| self.refused(u64::MAX))?;
        let bytes = bytes.unwrap_or(class);
        let (memory, fresh) = self.memory(class, bytes)?;
        let owner = Owner { memory, fresh, class, bytes, pool: Arc::clone(&self.shared) };
        Ok(PoolBuf { owner: Some(owner), len, _elements: PhantomData })
    }

    /// As [`take`](Self::take), all zeros.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_zeroed<T: Pod>(&self, len: usize) -> Result<PoolBuf<T>, CoreError> {
        let mut buffer = self.take(len)?;
        // Fresh memory is zero, and stays untouched until it is used.
        if buffer.owner.as_ref().is_some_and(|owner| !owner.fresh) {
            buffer.fill(T::zeroed());
        }
        Ok(buffer)
    }

    /// Memory of a class, noted as in use, and whether it is fresh from the system.
    fn memory(&self, class: u64, bytes: u64) -> Result<(AlignedBuf<u64>, bool), CoreError> {
        let mut state = self.shared.lock();
        let reused = state.reuse(class);
        // Idle memory is dropped when the lock is not held any more.
        let dropped = match &reused {
            Some(_) => Vec::new(),
            None => match state.make_room(self.shared.budget, class) {
                Some(dropped) => dropped,
                None => {
                    drop(state);
                    return Err(self.refused(bytes));
                }
            },
        };
        let stats = &mut state.stats;
        stats.allocations += 1;
        stats.hits += u64::from(reused.is_some());
        stats.buffers += 1;
        stats.in_use = plus(stats.in_use, class);
        stats.requested = plus(stats.requested, bytes);
        stats.peak_in_use = stats.peak_in_use.max(stats.in_use);
        if reused.is_none() {
            stats.reserved = plus(stats.reserved, class);
            stats.peak = stats.peak.max(stats.reserved);
        }
        drop(state);
        drop(dropped);
        if let Some(memory) = reused {
            return Ok((memory, false));
        }
        let memory = usize::try_from(class / 8).ok().and_then(|words| AlignedBuf::zeroed(words).ok());
        memory.map(|memory| (memory, true)).ok_or_else(|| {
            let stats = &mut self.shared.lock().stats;
            stats.refusals += 1;
            (stats.allocations, stats.buffers) = (stats.allocations - 1, stats.buffers - 1);
            stats.in_use = minus(stats.in_use, class);
            stats.requested = minus(stats.requested, bytes);
            stats.reserved = minus(stats.reserved, class);
            CoreError::OutOfMemory { size: MemorySize::bytes(bytes) }
        })
    }

    fn refused(&self, bytes: u64) -> CoreError {
        let mut state = self.shared.lock();
        state.stats.refusals += 1;
        CoreError::PoolFull {
            asked: MemorySize::bytes(bytes),
            in_use: state.stats.in_use,
            budget: MemorySize::bytes(self.shared.budget),
        }
    }

    /// Gives all idle buffers back to the system; returns how much that was.
    pub fn trim(&self) -> MemorySize {
        let mut state = self.shared.lock();
        let idle = std::mem::take(&mut state.idle);
        let bytes = idle.iter().map(|(class, buffers)| class * buffers.len() as u64).sum();
        state.stats.reserved = minus(state.stats.reserved, bytes);
        drop(state);
        drop(idle);
        MemorySize::bytes(bytes)
    }

    /// What the pool holds and has done.
    pub fn stats(&self) -> MemoryStats {
        self.shared.lock().stats
    }

    /// Notes how fast the machine's memory is, in bytes a second, for [`MemoryStats::bandwidth`].
    pub fn record_bandwidth(&self, bytes_per_second: f64) {
        self.shared.lock().stats.bandwidth = Some(bytes_per_second);
    }
}

impl fmt::Debug for MemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryPool").field(&self.stats()).finish()
    }
}

fn plus(size: MemorySize, bytes: u64) -> MemorySize {
    MemorySize::bytes(size.as_bytes() + bytes)
}

fn minus(size: MemorySize, bytes: u64) -> MemorySize {
    MemorySize::bytes(size.as_bytes() - bytes)
}

impl Shared {
    /// The state is whole whenever the lock is free: nothing between two of its changes can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An idle buffer of this class, the one used last, which may still be in a cache.
    fn reuse(&mut self, class: u64) -> Option<AlignedBuf<u64>> {
        let buffers = self.idle.get_mut(&class)?;
        let idle = buffers.pop();
        if buffers.is_empty() {
            self.idle.remove(&class);
        }
        idle.map(|idle| idle.memory)
    }

    /// Takes out idle buffers, longest idle first, until `class` more bytes fit; `None` if they do not in any case.
    fn make_room(&mut self, budget: u64, class: u64) -> Option<Vec<Idle>> {
        let limit = budget.checked_sub(class)?;
        if self.stats.in_use.as_bytes() > limit {
            return None;
        }
        let mut dropped = Vec::new();
        while self.stats.reserved.as_bytes() > limit {
            let oldest = self.idle.iter().min_by_key(|(_, buffers)| buffers.first().map(|idle| idle.since));
            let (&class, _) = oldest?;
            let buffers = self.idle.get_mut(&class)?;
            dropped.push(buffers.remove(0));
            if buffers.is_empty() {
                self.idle.remove(&class);
            }
            self.stats.evictions += 1;
            self.stats.reserved = minus(self.stats.reserved, class);
        }
        Some(dropped)
    }
}

/// Memory that goes back to its pool.
struct Owner {
    memory: AlignedBuf<u64>,
    /// Whether nobody wrote to it before its owner.
    fresh: bool,
    class: u64,
    bytes: u64,
    pool: Arc<Shared>,
}

/// A buffer of a [`MemoryPool`], which gets it back when this is dropped. It begins at a multiple of 64 bytes.
pub struct PoolBuf<T: Pod> {
    /// Absent in an empty buffer.
    owner: Option<Owner>,
    len: usize,
    _elements: PhantomData<T>,
}

impl<T: Pod> Default for PoolBuf<T> {
    /// An empty buffer, of no pool.
    fn default() -> Self {
        Self { owner: None, len: 0, _elements: PhantomData }
    }
}

impl<T: Pod> PoolBuf<T> {
    /// Makes room for at least `len` elements: an own buffer that is shorter is given back, and its content is lost.
    ///
    /// # Errors
    /// As [`MemoryPool::take`]; the buffer is then empty.
    pub fn grow(&mut self, pool: &MemoryPool, len: usize) -> Result<(), CoreError> {
        if self.len < len {
            *self = Self::default();
            *self = pool.take_zeroed(len)?;
        }
        Ok(())
    }
}

impl<T: Pod> Drop for PoolBuf<T> {
    fn drop(&mut self) {
        let Some(Owner { memory, class, bytes, pool, .. }) = self.owner.take() else { return };
        let mut state = pool.lock();
        state.clock += 1;
        let since = state.clock;
        state.idle.entry(class).or_default().push(Idle { memory, since });
        state.stats.buffers -= 1;
        state.stats.in_use = minus(state.stats.in_use, class);
        state.stats.requested = minus(state.stats.requested, bytes);
    }
}

impl<T: Pod> Deref for PoolBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.owner {
            Some(owner) => &bytemuck::cast_slice(&owner.memory)[..self.len],
            None => &[],
        }
    }
}

impl<T: Pod> DerefMut for PoolBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.owner {
            Some(owner) => &mut bytemuck::cast_slice_mut(&mut owner.memory)[..self.len],
            None => &mut [],
        }
    }
}

impl<T: Pod> fmt::Debug for PoolBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuf({} x {} bytes)", self.len, size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_close_to_what_is_asked_for() {
        assert_eq!(class_of(1), Some(256));
        assert_eq!(class_of(257), Some(320));
        assert_eq!(class_of(512), Some(512));
        assert_eq!(class_of(513), Some(640));
        assert_eq!(class_of(u64::MAX), None);
        for bytes in (300..40_000).step_by(7) {
            let class = class_of(bytes).unwrap();
            assert!(class >= bytes && (class - bytes) as f64 <= 0.2 * class as f64, "{bytes}: {class}");
            assert_eq!((class % 64, class_of(class)), (0, Some(class)));
        }
    }

    #[test]
    fn memory_comes_back_and_is_counted() {
        let pool = MemoryPool::new(MemorySize::KB(64));
        let first = pool.take_zeroed::<f32>(1000).unwrap();
        assert!(first.iter().all(|&x| x == 0.0) && first.len() == 1000);
        assert_eq!(first.as_ptr() as usize % 64, 0);
        let stats = pool.stats();
        assert_eq!((stats.in_use, stats.requested), (MemorySize::bytes(4096), MemorySize::bytes(4000)));
        assert!((stats.fragmentation() - 96.0 / 4096.0).abs() < 1e-12);
        drop(first);
        let stats = pool.stats();
        assert_eq!((stats.in_use, stats.reserved), (MemorySize::bytes(0), MemorySize::bytes(4096)));
        assert_eq!(pool.trim(), MemorySize::bytes(4096));
        assert_eq!(pool.stats().reserved, MemorySize::bytes(0));
        assert_eq!(pool.stats().peak, MemorySize::bytes(4096));
    }

    #[test]
    fn the_budget_holds_and_idle_memory_makes_room() {
        let pool = MemoryPool::new(MemorySize::bytes(4096));
        let (a, b) = (pool.take::<u8>(1024).unwrap(), pool.take::<u8>(2048).unwrap());
        let error = pool.take::<u8>(1025).unwrap_err();
        assert!(matches!(error, CoreError::PoolFull { .. }), "{error}");
        drop(a);
        drop(b);
        let large = pool.take::<u8>(4096).unwrap();
        let stats = pool.stats();
        assert_eq!((stats.evictions, stats.refusals, stats.reserved), (2, 1, MemorySize::bytes(4096)));
        drop(large);
        assert!(pool.take::<u64>(usize::MAX).is_err());
        assert!(pool.take::<u8>(0).unwrap().is_empty());
    }

    #[test]
    fn growing_keeps_what_is_long_enough() {
        let pool = MemoryPool::unlimited();
        let mut buffer = PoolBuf::<i32>::default();
        buffer.grow(&pool, 10).unwrap();
        buffer[9] = 7;
        buffer.grow(&pool, 5).unwrap();
        assert_eq!((buffer.len(), buffer[9]), (10, 7));
        buffer.grow(&pool, 500).unwrap();
        assert!(buffer.len() == 500 && buffer.iter().all(|&x| x == 0));
        assert_eq!(pool.stats().buffers, 1);
    }

    #[test]
    fn threads_share_a_pool() {
        let pool = MemoryPool::new(MemorySize::MB(1));
        std::thread::scope(|scope| {
            for seed in 1..5usize {
                let pool = &pool;
                scope.spawn(move || {
                    for i in 0..500 {
                        let mut buffer = pool.take::<u8>(1 + (i * seed * 37) % 5000).unwrap();
                        buffer.fill(seed as u8);
                        assert!(buffer.iter().all(|&b| b == seed as u8));
                    }
                });
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.allocations, stats.buffers, stats.in_use), (2000, 0, MemorySize::bytes(0)));
        assert!(stats.hit_rate() > 0.5);
    }
}
