//! What the machine can do at most: the limits that figures of speed are held against.
//!
//! * Memory: bytes a second that all threads together read from a buffer much larger than the caches, on huge pages, each
//!   thread one sequential stream. Generation of a large model reads every weight once a token, so this limits it.
//! * Multiplier: int8 multiply-adds a second of the widest instruction that a kernel set multiplies with, from registers,
//!   with all accumulators in registers. Prefill multiplies every weight with every token, so this limits it.
//!
//! Virtual machines change their speed from minute to minute: measure with a [`Probe`] right beside what is to be judged.
//!
//! ```no_run
//! let mut probe = bitnet_cpu::limits::Probe::new()?;
//! let limits = probe.measure(2, "avx2")?;
//! println!("{:.1} GB/s, {:.0} GMAC/s", limits.read_bytes / 1e9, limits.macs.unwrap_or(0.0) / 1e9);
//! # Ok::<(), bitnet_model::ExecError>(())
//! ```

mod int8;
mod memory;

use bitnet_core::pool::ThreadPool;
use bitnet_core::{MemorySize, process};
use bitnet_model::ExecError;

pub use self::int8::int8_peak;
use self::memory::ReadBuffer;

/// What the machine did in one measurement, all threads together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes read from memory a second.
    pub read_bytes: f64,
    /// int8 multiply-adds a second; `None` for a kernel set whose instruction cannot be measured here.
    pub macs: Option<f64>,
}

/// Measures [`Limits`] again and again; keeps its buffer and its threads in between.
#[derive(Debug)]
pub struct Probe {
    buffer: ReadBuffer,
    pool: ThreadPool,
}

impl Probe {
    /// Allocates and fills the buffer: four times the last-level cache, at least 256 MiB, at most 1 GiB or a quarter of the
    /// memory that is free.
    ///
    /// # Errors
    /// If the memory is not there.
    pub fn new() -> Result<Self, ExecError> {
        let free = process::available_memory().map_or(u64::MAX, MemorySize::as_bytes);
        let wanted = (4 * memory::last_level_cache()).clamp(256 << 20, 1 << 30);
        let mut pool = ThreadPool::new(1)?;
        let buffer = ReadBuffer::new(wanted.min(free / 4).max(16 << 20) as usize, &mut pool)?;
        Ok(Self { buffer, pool })
    }

    /// Memory that the buffer takes, all of it resident.
    pub fn buffer_size(&self) -> MemorySize {
        MemorySize::bytes(self.buffer.len() as u64)
    }

    /// Measures both limits with so many threads, the multiplier as the kernel set named `kernels` uses it. Takes the time
    /// to read the buffer once and about 20 ms for the multiplier.
    ///
    /// # Errors
    /// If the system starts no more threads.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn measure(&mut self, threads: usize, kernels: &str) -> Result<Limits, ExecError> {
        if self.pool.threads() != threads {
            self.pool = ThreadPool::new(threads)?;
        }
        Ok(Limits { read_bytes: self.buffer.read(&mut self.pool), macs: int8_peak(&mut self.pool, kernels) })
    }
}

/// The instruction that [`Limits::macs`] is measured with for a kernel set, for people; `None` if there is none.
pub fn multiplier(kernels: &str) -> Option<&'static str> {
    int8::instruction(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive_for_every_set_and_thread_count() {
        let mut probe = Probe::new().unwrap();
        assert!(probe.buffer_size() >= MemorySize::MB(16));
        for threads in [1, 2] {
            for set in crate::kernel_sets().into_iter().filter(|set| set.available) {
                let limits = probe.measure(threads, set.name).unwrap();
                assert!(limits.read_bytes.is_finite() && limits.read_bytes > 0.0, "{limits:?}");
                assert!(multiplier(set.name).is_some(), "{}", set.name);
                assert!(limits.macs.is_some_and(|macs| macs.is_finite() && macs > 0.0), "{limits:?}");
            }
        }
        assert_eq!(int8_peak(&mut probe.pool, "abacus"), None);
    }
}
