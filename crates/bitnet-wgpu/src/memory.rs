//! Memory of the device: a budget, buffers that know what they take, and a pool with size classes for those that come and
//! go with calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_core::{MemorySize, MemoryStats};

use crate::device::Gpu;
use crate::error::WgpuError;

/// What buffers take together, and how the pool does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WgpuMemory {
    /// Bytes of all buffers on the device.
    pub in_use: MemorySize,
    /// The most that there ever were.
    pub peak: MemorySize,
    /// What they may take together, if there is a budget.
    pub budget: Option<MemorySize>,
    /// How often the pool was asked for a buffer.
    pub requests: u64,
    /// How often it had one.
    pub hits: u64,
    /// Bytes that were asked for in the pool's buffers that are in use.
    pub requested: MemorySize,
    /// Bytes of these buffers, which are as large as their size classes.
    pub taken: MemorySize,
    /// Bytes of buffers that wait in the pool.
    pub idle: MemorySize,
}

impl WgpuMemory {
    /// The part of requests that needed no new buffer; 1 before the first.
    pub fn hit_rate(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { self.hits as f64 / self.requests as f64 }
    }

    /// The same in the terms of all pools.
    pub fn stats(&self) -> MemoryStats {
        let bytes = MemorySize::as_bytes;
        let in_use = bytes(self.in_use).saturating_sub(bytes(self.idle));
        let rounding = bytes(self.taken).saturating_sub(bytes(self.requested));
        MemoryStats {
            budget: self.budget.unwrap_or(MemorySize::bytes(u64::MAX)),
            reserved: self.in_use,
            in_use: MemorySize::bytes(in_use),
            requested: MemorySize::bytes(in_use.saturating_sub(rounding)),
            peak: self.peak,
            allocations: self.requests,
            hits: self.hits,
            ..MemoryStats::default()
        }
    }

    /// The part of the pool's buffers in use that nobody asked for.
    pub fn fragmentation(&self) -> f64 {
        let (requested, taken) = (self.requested.as_bytes() as f64, self.taken.as_bytes() as f64);
        if taken == 0.0 { 0.0 } else { 1.0 - requested / taken }
    }
}

/// [`WgpuMemory`] in plain bytes.
#[derive(Debug, Default)]
struct Counts {
    in_use: u64,
    peak: u64,
    requests: u64,
    hits: u64,
    requested: u64,
    taken: u64,
    idle: u64,
}

/// Counts bytes of a device.
#[derive(Debug, Default)]
pub(crate) struct Account {
    budget: Option<u64>,
    counts: Mutex<Counts>,
}

impl Account {
    pub(crate) fn new(budget: Option<MemorySize>) -> Self {
        Self { budget: budget.map(MemorySize::as_bytes), counts: Mutex::default() }
    }

    /// The numbers now.
    pub(crate) fn now(&self) -> WgpuMemory {
        let c = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        WgpuMemory {
            in_use: MemorySize::bytes(c.in_use),
            peak: MemorySize::bytes(c.peak),
            budget: self.budget.map(MemorySize::bytes),
            requests: c.requests,
            hits: c.hits,
            requested: MemorySize::bytes(c.requested),
            taken: MemorySize::bytes(c.taken),
            idle: MemorySize::bytes(c.idle),
        }
    }

    fn change(&self, f: impl FnOnce(&mut Counts)) {
        f(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes bytes of the budget.
    fn take(&self, bytes: u64) -> Result<(), WgpuError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let used = counts.in_use + bytes;
        if let Some(budget) = self.budget.filter(|budget| used > *budget) {
            let free = Some(MemorySize::bytes(budget.saturating_sub(counts.in_use)));
            return Err(WgpuError::OutOfMemory { needed: MemorySize::bytes(bytes), free });
        }
        counts.in_use = used;
        counts.peak = counts.peak.max(used);
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.change(|counts| counts.in_use = counts.in_use.saturating_sub(bytes));
    }
}

/// A buffer of the device; gives its bytes back to the account when it goes.
#[derive(Debug)]
pub(crate) struct Storage {
    buffer: wgpu::Buffer,
    account: Arc<Account>,
}

impl Storage {
    /// Makes a buffer of this many bytes (rounded up to whole words, at least one), filled with zeros.
    ///
    /// # Errors
    /// [`WgpuError::OutOfMemory`], [`WgpuError::Device`].
    pub(crate) fn new(
        gpu: &Gpu,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Self, WgpuError> {
        let size = bytes.max(4).next_multiple_of(4);
        if size > gpu.limits.max_buffer_size {
            let free = Some(MemorySize::bytes(gpu.limits.max_buffer_size));
            return Err(WgpuError::OutOfMemory { needed: MemorySize::bytes(size), free });
        }
        gpu.account.take(size)?;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        match gpu.checked(size, || gpu.device.create_buffer(&descriptor)) {
            Ok(buffer) => Ok(Self { buffer, account: Arc::clone(&gpu.account) }),
            Err(error) => {
                gpu.account.give(size);
                Err(error)
            }
        }
    }

    /// The buffer.
    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.buffer.size()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.account.give(self.buffer.size());
    }
}

/// What a buffer of the pool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Kernels read and write it.
    Compute,
    /// Kernels read parameters from it.
    Parameters,
    /// Results are copied to it for the host to read.
    Readback,
}

impl Purpose {
    fn usage(self) -> wgpu::BufferUsages {
        use wgpu::BufferUsages as Usage;
        match self {
            Purpose::Compute => Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
            Purpose::Parameters => Usage::UNIFORM | Usage::COPY_DST,
            Purpose::Readback => Usage::MAP_READ | Usage::COPY_DST,
        }
    }
}

/// The size class of a request: a power of two or a quarter, half or three quarters more, at least 256 bytes. So at most a
/// fifth of a buffer is not asked for.
pub(crate) fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 8).max(64);
    bytes.next_multiple_of(step)
}

/// A buffer of the pool, in use.
#[derive(Debug)]
pub(crate) struct Pooled {
    storage: Arc<Storage>,
    purpose: Purpose,
    requested: u64,
}

impl Pooled {
    /// The buffer, as large as its size class.
    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        self.storage.buffer()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let taken = self.storage.bytes();
        self.storage.account.change(|counts| {
            counts.requested -= self.requested;
            counts.taken -= taken;
        });
    }
}

/// Buffers by purpose and size class.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: HashMap<(Purpose, u64), Vec<Arc<Storage>>>,
}

impl Pool {
    /// A buffer of at least this many bytes, whose content is unspecified.
    ///
    /// # Errors
    /// As [`Storage::new`].
    pub(crate) fn take(&mut self, gpu: &Gpu, purpose: Purpose, bytes: u64) -> Result<Pooled, WgpuError> {
        let class = size_class(bytes).min(gpu.limits.max_buffer_size.max(bytes));
        let known = self.idle.get_mut(&(purpose, class)).and_then(Vec::pop);
        let hit = known.is_some();
        let storage = match known {
            Some(storage) => storage,
            None => self.create(gpu, purpose, class)?,
        };
        let taken = storage.bytes();
        gpu.account.change(|counts| {
            counts.requests += 1;
            counts.hits += u64::from(hit);
            counts.requested += bytes;
            counts.taken += taken;
            counts.idle -= if hit { taken } else { 0 };
        });
        Ok(Pooled { storage, purpose, requested: bytes })
    }

    /// A new buffer; where there is no memory for it, those that wait go first.
    fn create(&mut self, gpu: &Gpu, purpose: Purpose, class: u64) -> Result<Arc<Storage>, WgpuError> {
        let create = || Storage::new(gpu, "pool", class, purpose.usage()).map(Arc::new);
        match create() {
            Err(WgpuError::OutOfMemory { .. }) if !self.idle.is_empty() => {
                self.idle.clear();
                gpu.account.change(|counts| counts.idle = 0);
                gpu.wait()?;
                create()
            }
            other => other,
        }
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, gpu: &Gpu, pooled: Pooled) {
        let (storage, purpose) = (Arc::clone(&pooled.storage), pooled.purpose);
        drop(pooled);
        let bytes = storage.bytes();
        gpu.account.change(|counts| counts.idle += bytes);
        self.idle.entry((purpose, bytes)).or_default().push(storage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_a_fifth() {
        assert_eq!((size_class(0), size_class(256), size_class(257)), (256, 256, 320));
        for bytes in (256..100_000u64).step_by(37) {
            let class = size_class(bytes);
            assert!(class >= bytes && (class - bytes) as f64 <= 0.2 * class as f64, "{bytes}: {class}");
            assert_eq!(size_class(class), class, "classes are fixed points");
            assert_eq!(class % 4, 0);
        }
    }

    #[test]
    fn the_budget_is_kept() {
        let account = Account::new(Some(MemorySize::bytes(100)));
        account.take(60).unwrap();
        let error = account.take(50).unwrap_err();
        let free = Some(MemorySize::bytes(40));
        assert_eq!(error, WgpuError::OutOfMemory { needed: MemorySize::bytes(50), free });
        account.give(60);
        account.take(100).unwrap();
        assert_eq!(account.now().peak, MemorySize::bytes(100));
    }

    #[test]
    fn rates() {
        let mut memory = WgpuMemory::default();
        assert_eq!((memory.hit_rate(), memory.fragmentation()), (1.0, 0.0));
        memory = WgpuMemory { requests: 10, hits: 9, ..memory };
        memory.requested = MemorySize::bytes(75);
        memory.taken = MemorySize::bytes(100);
        assert_eq!((memory.hit_rate(), memory.fragmentation()), (0.9, 0.25));
    }
}
