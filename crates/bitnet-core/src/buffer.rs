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
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// A fixed number of zero-initialised elements, aligned to 64 bytes (2 MiB from that size on, on Linux).
pub struct AlignedBuf<T: Zeroable + Copy> {
    ptr: NonNull<T>,
    len: usize,
    layout: Layout,
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
        let refuse = |bytes: u64| CoreError::OutOfMemory { size: MemorySize::bytes(bytes) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| refuse(u64::MAX))?;
        let layout = layout_for(bytes, align_of::<T>()).ok_or_else(|| refuse(bytes as u64))?;
        // SAFETY: layout_for never gives a size of zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| refuse(bytes as u64))?;
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // SAFETY: advice on memory that this buffer owns.
            unsafe {
                libc::madvise(ptr.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
        }
        Ok(Self { ptr: ptr.cast(), len, layout, _owns: PhantomData })
    }

    /// Pointer to the first element, for code that lets several threads write to disjoint parts of a shared buffer.
    pub fn as_raw(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

fn layout_for(bytes: usize, align: usize) -> Option<Layout> {
    let align = align.max(CACHE_LINE);
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_PAGE {
        return Layout::from_size_align(bytes.checked_next_multiple_of(HUGE_PAGE)?, HUGE_PAGE).ok();
    }
    Layout::from_size_align(bytes.checked_next_multiple_of(CACHE_LINE)?.max(CACHE_LINE), align).ok()
}

impl<T: Zeroable + Copy> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout; T is Copy and needs no drop.
        unsafe { dealloc(self.ptr.as_ptr().cast(), self.layout) }
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
