//! [`Shared`]: memory of the host that kernels reach as well.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::gpu::Address;

/// Memory of the host that kernels read and write too. The host's side is bytes that it writes, and words that it looks at one
/// by one, since the device may write them at any time.
#[derive(Debug)]
pub struct Shared {
    host: NonNull<u8>,
    device: Address,
    bytes: usize,
}

// SAFETY: plain memory, which belongs to this value alone on the host.
unsafe impl Send for Shared {}

impl Shared {
    /// Memory that the host finds at one place and kernels at another, aligned to eight bytes at least.
    ///
    /// # Safety
    /// So many bytes are there and initialised for as long as this is used, and no other code of the host uses them meanwhile.
    pub unsafe fn new(host: NonNull<u8>, device: Address, bytes: usize) -> Self {
        Self { host, device, bytes }
    }

    /// Where kernels find a place.
    pub(crate) fn device(&self, place: usize) -> Address {
        self.device + place as u64
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Writes bytes to a place. The device reads them once it is told to.
    pub(crate) fn write(&mut self, place: usize, bytes: &[u8]) {
        assert!(place + bytes.len() <= self.bytes, "what is written fits");
        // SAFETY: inside the memory, which nobody else uses on the host.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.host.add(place).as_ptr(), bytes.len()) };
    }

    /// A word that both sides look at.
    pub(crate) fn word(&self, place: usize) -> &AtomicU64 {
        assert!(place.is_multiple_of(8) && place + 8 <= self.bytes, "a word is inside");
        // SAFETY: inside the memory, aligned, and initialised; the host uses it as a word only.
        unsafe { AtomicU64::from_ptr(self.host.add(place).as_ptr().cast()) }
    }

    /// Words that the device writes.
    pub(crate) fn words(&self, place: usize, count: usize) -> &[AtomicU32] {
        assert!(place.is_multiple_of(4) && place + 4 * count <= self.bytes, "words are inside");
        // SAFETY: inside the memory, aligned, and initialised; atomics may be written by others.
        unsafe { std::slice::from_raw_parts(self.host.add(place).as_ptr().cast(), count) }
    }
}

#[cfg(test)]
impl Shared {
    /// Memory of the host alone, for tests; it is never freed.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let memory: &'static mut [u64] = Vec::leak(vec![0; bytes.div_ceil(8)]);
        // SAFETY: nobody else has this memory.
        unsafe { Self::new(NonNull::from(memory).cast(), 1 << 20, bytes) }
    }
}
