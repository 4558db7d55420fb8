//! [`Pages`]: memory of whole pages, which MLX takes over without a copy where its device shares the host's.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use bitnet_core::MemorySize;

use crate::error::MlxError;

/// Pages of Apple's processors, in bytes. Metal takes over memory that begins at a page and has whole ones.
const PAGE: usize = 16 << 10;

/// Zeroed memory that begins at a page and ends with one.
#[derive(Debug)]
pub(crate) struct Pages {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, as Vec does.
unsafe impl Send for Pages {}

impl Pages {
    /// At least so many bytes.
    ///
    /// # Errors
    /// [`MlxError::OutOfMemory`].
    pub(crate) fn zeroed(bytes: usize) -> Result<Self, MlxError> {
        let refused = || MlxError::OutOfMemory { needed: MemorySize::bytes(bytes as u64), free: None };
        let size = bytes.max(1).checked_next_multiple_of(PAGE).ok_or_else(refused)?;
        let layout = Layout::from_size_align(size, PAGE).map_err(|_| refused())?;
        // SAFETY: the size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Self { data, layout })
    }

    /// All bytes, to the end of the last page.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are owned, initialised and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.layout.size()) }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }

    /// Where they begin.
    pub(super) fn address(&self) -> *mut u8 {
        self.data.as_ptr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used again.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_zero() {
        let mut pages = Pages::zeroed(PAGE + 1).unwrap();
        assert_eq!((pages.len(), pages.address() as usize % PAGE), (2 * PAGE, 0));
        assert!(pages.bytes_mut().iter().all(|&b| b == 0));
        assert!(matches!(Pages::zeroed(usize::MAX), Err(MlxError::OutOfMemory { .. })));
    }
}
