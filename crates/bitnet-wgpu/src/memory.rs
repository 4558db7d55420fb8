//! Memory: a pool of buffers on the device, within a budget, and another of buffers that the host reads results from.
//!
//! Buffers on the device have all uses that kernels and copies ask for, so that any of them serves any request. What the
//! host maps may have no other use than being copied to, and lies in the host's memory where the two differ: it has a
//! pool of its own, outside the budget.

use std::time::Instant;

use bitnet_core::device_pool::{Allocator, DevicePool, Lent, TakeError};
use bitnet_core::{MemorySize, MemoryStats};

use crate::adapter::AdapterKind;
use crate::device::Gpu;
use crate::error::WgpuError;

/// A buffer in use.
pub(crate) type Buffer = Lent<wgpu::Buffer>;

/// What an executor's buffers take, and how its pools do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WgpuMemory {
    /// Buffers on the device: weights, keys and values, and what passes work in.
    pub device: MemoryStats,
    /// Buffers that results are read from.
    pub readback: MemoryStats,
}

/// The pools of a device.
#[derive(Debug)]
pub(crate) struct Memory {
    device: DevicePool<wgpu::Buffer>,
    readback: DevicePool<wgpu::Buffer>,
}

/// The device as a pool sees it.
struct Maker<'a> {
    gpu: &'a Gpu,
    usage: wgpu::BufferUsages,
}

impl Allocator<wgpu::Buffer> for Maker<'_> {
    type Error = WgpuError;

    fn allocate(&mut self, bytes: u64) -> Result<wgpu::Buffer, WgpuError> {
        let most = self.gpu.limits.max_buffer_size;
        if bytes > most {
            let free = Some(MemorySize::bytes(most));
            return Err(WgpuError::OutOfMemory { needed: MemorySize::bytes(bytes), free });
        }
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: bytes, usage: self.usage, mapped_at_creation: false };
        self.gpu.checked(bytes, || self.gpu.device.create_buffer(&descriptor))
    }

    /// The driver keeps it until the device is done with it; waiting makes its memory free at once.
    fn free(&mut self, buffer: wgpu::Buffer) {
        drop(buffer);
        // An error of the device is found again by whoever asks it next.
        let _ = self.gpu.device.poll(wgpu::PollType::wait_indefinitely());
    }
}

impl From<TakeError<WgpuError>> for WgpuError {
    fn from(error: TakeError<WgpuError>) -> Self {
        match error {
            TakeError::Budget { needed, free } => WgpuError::OutOfMemory { needed, free: Some(free) },
            TakeError::Device(error) => error,
        }
    }
}

fn on_device(gpu: &Gpu) -> Maker<'_> {
    use wgpu::BufferUsages as Usage;
    let copies = Usage::COPY_SRC | Usage::COPY_DST | Usage::QUERY_RESOLVE;
    Maker { gpu, usage: Usage::STORAGE | Usage::UNIFORM | copies }
}

fn for_host(gpu: &Gpu) -> Maker<'_> {
    Maker { gpu, usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST }
}

/// Whole words, at least one: what copies and bindings take.
fn whole_words(bytes: u64) -> u64 {
    bytes.max(4).next_multiple_of(4)
}

impl Memory {
    /// Pools of a device of which `budget` may be used.
    pub(crate) fn new(budget: Option<MemorySize>) -> Self {
        let all = MemorySize::bytes(u64::MAX);
        Self { device: DevicePool::new(budget.unwrap_or(all)), readback: DevicePool::new(all) }
    }

    /// A buffer of at least so many bytes that kernels can see all of, whose content is unspecified; to be given back.
    ///
    /// # Errors
    /// [`WgpuError::OutOfMemory`], [`WgpuError::Device`].
    pub(crate) fn take(&mut self, gpu: &Gpu, bytes: u64) -> Result<Buffer, WgpuError> {
        let bytes = whole_words(bytes);
        // A size class may have a quarter more than is asked for.
        if bytes + bytes / 4 > gpu.limits.max_storage_buffer_binding_size {
            return self.take_exact(gpu, bytes);
        }
        Ok(self.device.take(bytes, &mut on_device(gpu))?)
    }

    /// A buffer of exactly so many bytes (in whole words) of zeros, to be kept or given back.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_exact(&mut self, gpu: &Gpu, bytes: u64) -> Result<Buffer, WgpuError> {
        Ok(self.device.take_exact(whole_words(bytes), &mut on_device(gpu))?)
    }

    /// A buffer for the host to read, to be given back by [`give_readback`](Self::give_readback).
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_readback(&mut self, gpu: &Gpu, bytes: u64) -> Result<Buffer, WgpuError> {
        Ok(self.readback.take(whole_words(bytes), &mut for_host(gpu))?)
    }

    /// Takes a buffer of the device back.
    pub(crate) fn give(&mut self, buffer: Buffer) {
        self.device.give(buffer);
    }

    /// Takes a buffer back that the host has read.
    pub(crate) fn give_readback(&mut self, buffer: Buffer) {
        self.readback.give(buffer);
    }

    /// Frees what waits on the device.
    pub(crate) fn trim(&mut self, gpu: &Gpu) {
        self.device.trim(&mut on_device(gpu));
    }

    /// What the pools hold and have done.
    pub(crate) fn now(&self) -> WgpuMemory {
        WgpuMemory { device: self.device.stats(), readback: self.readback.stats() }
    }

    /// Measures how many bytes a second are read and written by copies on the device, and notes it.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn measure_bandwidth(&mut self, gpu: &Gpu) -> Result<f64, WgpuError> {
        const TIMES: usize = 8;
        // More than caches hold, but where software would take seconds for it.
        let bytes = if gpu.about.kind == AdapterKind::Software { 16 << 20 } else { 256 << 20 };
        let from = self.take_exact(gpu, bytes)?;
        let to = match self.take_exact(gpu, bytes) {
            Ok(to) => to,
            Err(error) => {
                self.give(from);
                return Err(error);
            }
        };
        let copy = |times: usize| -> Result<f64, WgpuError> {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for _ in 0..times {
                encoder.copy_buffer_to_buffer(&from.buffer, 0, &to.buffer, 0, bytes);
            }
            let begin = Instant::now();
            gpu.queue.submit([encoder.finish()]);
            gpu.wait().map(|()| begin.elapsed().as_secs_f64())
        };
        let seconds = copy(1).and_then(|_| copy(TIMES));
        self.give(from);
        self.give(to);
        self.trim(gpu);
        let rate = (2 * bytes * TIMES as u64) as f64 / seconds?.max(1e-9);
        self.device.record_bandwidth(rate);
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_is_left() {
        let (needed, free) = (MemorySize::bytes(50), MemorySize::bytes(40));
        let error = WgpuError::from(TakeError::Budget { needed, free });
        assert_eq!(error, WgpuError::OutOfMemory { needed, free: Some(free) });
        assert_eq!((whole_words(0), whole_words(5), whole_words(8)), (4, 8, 8));
    }
}
