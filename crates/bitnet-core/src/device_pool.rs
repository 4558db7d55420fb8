//! [`DevicePool`]: buffers of a device's memory that come back and are given out again, within a budget.
//!
//! This is the bookkeeping only: what a buffer is and how it is made and freed says an [`Allocator`]. Size classes and
//! statistics are those of the host's [`memory_pool`](crate::memory_pool). What lives as long as a model, weights and
//! blocks of keys and values, is taken with [`take_exact`](DevicePool::take_exact), without rounding.

use std::collections::BTreeMap;

use crate::MemorySize;
use crate::memory_pool::{MemoryStats, class_of};

/// Makes and frees buffers on a device.
pub trait Allocator<B> {
    /// What goes wrong when the device refuses.
    type Error;

    /// A buffer of so many bytes.
    ///
    /// # Errors
    /// If the device has not got them.
    fn allocate(&mut self, bytes: u64) -> Result<B, Self::Error>;

    /// Gives a buffer back to the device.
    fn free(&mut self, buffer: B);
}

/// A buffer in use, to be given back with [`DevicePool::give`].
#[derive(Debug, PartialEq, Eq)]
pub struct Lent<B> {
    /// The buffer: at least as long as was asked for.
    pub buffer: B,
    class: u64,
    bytes: u64,
}

/// Why there is no buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum TakeError<E> {
    /// The budget does not allow it beside what is in use.
    Budget {
        /// Bytes asked for.
        needed: MemorySize,
        /// What of the budget is not in use.
        free: MemorySize,
    },
    /// The device refused, also after all idle buffers were freed.
    Device(E),
}

/// A pool with a budget. Not shared: an executor owns it.
#[derive(Debug)]
pub struct DevicePool<B> {
    /// Buffers nobody uses by their bytes, the one given back last at the end, each with when that was.
    idle: BTreeMap<u64, Vec<(u64, B)>>,
    clock: u64,
    stats: MemoryStats,
}

impl<B> DevicePool<B> {
    /// An empty pool that never holds more than `budget`.
    pub fn new(budget: MemorySize) -> Self {
        let stats = MemoryStats { budget, ..MemoryStats::default() };
        Self { idle: BTreeMap::new(), clock: 0, stats }
    }

    /// A buffer of at least `bytes`, from the idle ones if there is one of its size class: that used last.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take<A: Allocator<B>>(
        &mut self,
        bytes: u64,
        allocator: &mut A,
    ) -> Result<Lent<B>, TakeError<A::Error>> {
        self.take_class(bytes, class_of(bytes).unwrap_or(u64::MAX), true, allocator)
    }

    /// A buffer of `bytes` that is not rounded to a size class and always comes from the device: for what is kept.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take_exact<A: Allocator<B>>(
        &mut self,
        bytes: u64,
        allocator: &mut A,
    ) -> Result<Lent<B>, TakeError<A::Error>> {
        self.take_class(bytes, bytes.max(1), false, allocator)
    }

    fn take_class<A: Allocator<B>>(
        &mut self,
        bytes: u64,
        class: u64,
        may_reuse: bool,
        allocator: &mut A,
    ) -> Result<Lent<B>, TakeError<A::Error>> {
        let reused = if may_reuse { self.reuse(class) } else { None };
        let hit = reused.is_some();
        let buffer = match reused {
            Some(buffer) => buffer,
            None => self.fresh(bytes, class, allocator)?,
        };
        let stats = &mut self.stats;
        stats.allocations += 1;
        stats.hits += u64::from(hit);
        stats.buffers += 1;
        stats.in_use = plus(stats.in_use, class);
        stats.requested = plus(stats.requested, bytes);
        stats.peak_in_use = stats.peak_in_use.max(stats.in_use);
        Ok(Lent { buffer, class, bytes })
    }

    fn reuse(&mut self, class: u64) -> Option<B> {
        let buffers = self.idle.get_mut(&class)?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.idle.remove(&class);
        }
        buffer.map(|(_, buffer)| buffer)
    }

    fn fresh<A: Allocator<B>>(
        &mut self,
        bytes: u64,
        class: u64,
        allocator: &mut A,
    ) -> Result<B, TakeError<A::Error>> {
        let free = self.stats.free();
        if class > free.as_bytes() {
            self.stats.refusals += 1;
            return Err(TakeError::Budget { needed: MemorySize::bytes(bytes), free });
        }
        while self.stats.reserved.as_bytes() > self.stats.budget.as_bytes() - class {
            if !self.evict_oldest(allocator) {
                break;
            }
        }
        let buffer = match allocator.allocate(class) {
            Ok(buffer) => Ok(buffer),
            Err(_) if !self.idle.is_empty() => {
                self.trim(allocator);
                allocator.allocate(class)
            }
            Err(error) => Err(error),
        };
        let buffer = buffer.map_err(|error| {
            self.stats.refusals += 1;
            TakeError::Device(error)
        })?;
        self.stats.reserved = plus(self.stats.reserved, class);
        self.stats.peak = self.stats.peak.max(self.stats.reserved);
        Ok(buffer)
    }

    /// Frees the buffer that has been idle longest; whether there was one.
    fn evict_oldest<A: Allocator<B>>(&mut self, allocator: &mut A) -> bool {
        let since = |buffers: &Vec<(u64, B)>| buffers.first().map_or(u64::MAX, |(since, _)| *since);
        let oldest = self.idle.iter().min_by_key(|(_, buffers)| since(buffers)).map(|(class, _)| *class);
        let Some(class) = oldest else { return false };
        let Some(buffers) = self.idle.get_mut(&class) else { return false };
        allocator.free(buffers.remove(0).1);
        if buffers.is_empty() {
            self.idle.remove(&class);
        }
        self.stats.evictions += 1;
        self.stats.reserved = minus(self.stats.reserved, class);
        true
    }

    /// Takes a buffer back; it stays idle until it is wanted again.
    pub fn give(&mut self, lent: Lent<B>) {
        let stats = &mut self.stats;
        stats.buffers -= 1;
        stats.in_use = minus(stats.in_use, lent.class);
        stats.requested = minus(stats.requested, lent.bytes);
        self.clock += 1;
        self.idle.entry(lent.class).or_default().push((self.clock, lent.buffer));
    }

    /// Frees all idle buffers; returns how much that was.
    pub fn trim<A: Allocator<B>>(&mut self, allocator: &mut A) -> MemorySize {
        let mut bytes = 0;
        for (class, buffers) in std::mem::take(&mut self.idle) {
            bytes += class * buffers.len() as u64;
            buffers.into_iter().for_each(|(_, buffer)| allocator.free(buffer));
        }
        self.stats.reserved = minus(self.stats.reserved, bytes);
        MemorySize::bytes(bytes)
    }

    /// What the pool holds and has done.
    pub fn stats(&self) -> MemoryStats {
        self.stats
    }

    /// Notes how fast the device's memory is, in bytes a second, for [`MemoryStats::bandwidth`].
    pub fn record_bandwidth(&mut self, bytes_per_second: f64) {
        self.stats.bandwidth = Some(bytes_per_second);
    }
}

/// Copies between host and device so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TransferStats {
    /// Bytes from the host to the device.
    pub uploaded: MemorySize,
    /// Bytes from the device to the host.
    pub downloaded: MemorySize,
    /// Bytes a second that loading the weights reached, reading, packing and copying together.
    pub load_bandwidth: Option<f64>,
}

fn plus(size: MemorySize, bytes: u64) -> MemorySize {
    MemorySize::bytes(size.as_bytes() + bytes)
}

fn minus(size: MemorySize, bytes: u64) -> MemorySize {
    MemorySize::bytes(size.as_bytes() - bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of so many bytes whose buffers are their sizes.
    struct Device {
        free: u64,
    }

    impl Allocator<u64> for Device {
        type Error = ();

        fn allocate(&mut self, bytes: u64) -> Result<u64, ()> {
            self.free = self.free.checked_sub(bytes).ok_or(())?;
            Ok(bytes)
        }

        fn free(&mut self, buffer: u64) {
            self.free += buffer;
        }
    }

    #[test]
    fn buffers_come_back() {
        let (mut pool, mut device) = (DevicePool::new(MemorySize::KB(64)), Device { free: 1 << 20 });
        let first = pool.take(1000, &mut device).unwrap();
        assert_eq!(first.buffer, 1024);
        pool.give(first);
        for _ in 0..9 {
            let again = pool.take(990, &mut device).unwrap();
            pool.give(again);
        }
        let stats = pool.stats();
        assert_eq!((stats.allocations, stats.hits, stats.buffers), (10, 9, 0));
        assert_eq!((stats.in_use.as_bytes(), stats.reserved.as_bytes()), (0, 1024));
        assert!(stats.hit_rate() > 0.8 && stats.fragmentation() == 0.0);
        assert_eq!(pool.trim(&mut device).as_bytes(), 1024);
        assert_eq!(device.free, 1 << 20);
    }

    #[test]
    fn the_budget_holds_and_idle_buffers_make_room() {
        let (mut pool, mut device) = (DevicePool::new(MemorySize::KB(4)), Device { free: 1 << 20 });
        let (old, young) = (pool.take(1024, &mut device).unwrap(), pool.take(2048, &mut device).unwrap());
        let refused = pool.take(2048, &mut device).unwrap_err();
        let (needed, free) = (MemorySize::bytes(2048), MemorySize::bytes(1024));
        assert_eq!(refused, TakeError::Budget { needed, free });
        pool.give(old);
        pool.give(young);
        let third = pool.take_exact(1500, &mut device).unwrap();
        assert_eq!((third.buffer, pool.stats().evictions), (1500, 1), "the oldest went");
        assert_eq!(pool.stats().reserved.as_bytes(), 3548);
    }

    #[test]
    fn a_full_device_is_asked_again_behind_idle_buffers() {
        let (mut pool, mut device) = (DevicePool::new(MemorySize::GB(1)), Device { free: 4096 });
        let first = pool.take(4096, &mut device).unwrap();
        assert_eq!(pool.take(256, &mut device).unwrap_err(), TakeError::Device(()));
        pool.give(first);
        assert_eq!(pool.take(256, &mut device).unwrap().buffer, 256);
        assert_eq!((pool.stats().refusals, device.free), (1, 4096 - 256));
    }
}
