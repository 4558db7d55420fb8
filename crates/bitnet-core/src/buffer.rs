//! [`AlignedBuf`]: zeroed memory at cache-line alignment, on huge pages where the system offers them.
//!
//! Weights are streamed once a token: huge pages spare the page walks. Memory comes zeroed from the operating system,
//! so pages that are never written take no room.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Zeroable;

use crate::{CoreError, MemorySize};

const CACHE_LINE: usize = 64;
/// From this size on, memory is mapped on its own where the system has huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Where the memory came from, and how it goes back.
enum Origin {
    Allocator(Layout),
    /// An anonymous mapping of so many bytes from this address on.
    #[cfg(target_os = "linux")]
    Mapping(*mut libc::c_void, usize),
}

/// A fixed number of zero-initialised elements, aligned to 64 bytes (2 MiB from that size on, on Linux).
pub struct AlignedBuf<T: Zeroable + Copy> {
    ptr: NonNull<T>,
    len: usize,
    origin: Origin,
    _owns: PhantomData<T>,
}

// SAFETY: the buffer owns its memory as Vec does.
unsafe impl<T: Zeroable + Copy + Send> Send for AlignedBuf<T> {}
// SAFETY: shared access gives shared slices only.
unsafe impl<T: Zeroable + Copy + Sync> Sync for AlignedBuf<T> {}

impl<T: Zeroable + Copy> AlignedBuf<T> {
    /// `len` zeroed elements.
    ///
    /// # Errors
    /// [`CoreError::OutOfMemory`] if the system refuses.
    pub fn zeroed(len: usize) -> Result<Self, CoreError> {
        let refuse = |bytes: usize| CoreError::OutOfMemory { size: MemorySize::bytes(bytes as u64) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| refuse(usize::MAX))?;
        let (ptr, origin) = allocate(bytes, align_of::<T>()).ok_or_else(|| refuse(bytes))?;
        Ok(Self { ptr: ptr.cast(), len, origin, _owns: PhantomData })
    }

    /// Pointer to the first element, for code that lets several threads write to disjoint parts of a shared buffer.
    pub fn as_raw(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

fn allocate(bytes: usize, align: usize) -> Option<(NonNull<u8>, Origin)> {
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGE {
        return map(bytes);
    }
    // Systems without huge pages on request give the allocator large sizes too.
    let align = if bytes >= HUGE_PAGE { 4096 } else { align.max(CACHE_LINE) };
    let size = bytes.checked_next_multiple_of(CACHE_LINE)?.max(CACHE_LINE);
    let layout = Layout::from_size_align(size, align).ok()?;
    // SAFETY: the size is not zero.
    Some((NonNull::new(unsafe { alloc_zeroed(layout) })?, Origin::Allocator(layout)))
}

/// Maps memory that begins at a huge page. (The allocator would write zeros itself, before huge pages were asked for.)
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> Option<(NonNull<u8>, Origin)> {
    let size = bytes.checked_add(HUGE_PAGE)?;
    let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping, wherever the system likes.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), size, read_write, private, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let start = base.cast::<u8>().map_addr(|a| a.next_multiple_of(HUGE_PAGE));
    // SAFETY: advice on memory that was just mapped; `bytes` from the next huge page on are inside it.
    unsafe {
        libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
    }
    Some((NonNull::new(start)?, Origin::Mapping(base, size)))
}

impl<T: Zeroable + Copy> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: allocated with this layout; T is Copy and needs no drop.
            Origin::Allocator(layout) => unsafe { dealloc(self.ptr.as_ptr().cast(), layout) },
            // SAFETY: mapped with this size, and nothing else refers to it.
            #[cfg(target_os = "linux")]
            Origin::Mapping(base, size) => unsafe {
                libc::munmap(base, size);
            },
        }
    }
}

impl<T: Zeroable + Copy> Deref for AlignedBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were allocated, and zero bytes are a value of T.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Zeroable + Copy> DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and access is unique.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Zeroable + Copy> std::fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} x {} bytes)", self.len, size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_writable() {
        for len in [0usize, 1, 100, 5 << 20] {
            let mut buf = AlignedBuf::<u8>::zeroed(len).unwrap();
            assert_eq!(buf.len(), len);
            assert!(buf.iter().all(|&b| b == 0));
            assert_eq!(buf.as_ptr() as usize % 64, 0);
            buf.fill(7);
            assert!(buf.iter().all(|&b| b == 7));
        }
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(AlignedBuf::<f32>::zeroed(usize::MAX).is_err());
        assert!(AlignedBuf::<f32>::zeroed(usize::MAX / 8).is_err());
    }
}
