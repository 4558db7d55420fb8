//! [`Shared`]: a slice that the threads of a forward pass write to in disjoint parts.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice handed to all threads of a team at once.
///
/// Between two barriers a part of it is either written by one thread or read by any number.
pub(crate) struct Shared<'a, T> {
    ptr: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access goes through the unsafe methods below, whose callers keep parts disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), _borrow: PhantomData }
    }

    /// Reads a part.
    ///
    /// # Safety
    /// No thread writes to the part while the result is used.
    #[inline]
    pub(crate) unsafe fn get(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice by the check above; the caller rules out writers.
        unsafe { std::slice::from_raw_parts(self.ptr.add(range.start), range.len()) }
    }

    /// Writes a part.
    ///
    /// # Safety
    /// No other thread touches the part while the result is used.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "disjoint parts go to different threads")]
    pub(crate) unsafe fn get_mut(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice by the check above; the caller rules out other users.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }

    /// A part, in the hands of all threads as well.
    ///
    /// # Panics
    /// If it is not inside.
    #[inline]
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        Self { ptr: self.ptr.wrapping_add(range.start), len: range.len(), _borrow: PhantomData }
    }

    /// Asks for a part to be brought near, to be written soon. Nothing where that cannot be said.
    #[inline]
    pub(crate) fn prefetch(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len);
        #[cfg(target_arch = "x86_64")]
        for at in range.step_by((64 / size_of::<T>()).max(1)) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a prefetch touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.ptr.wrapping_add(at).cast_const().cast()) };
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.ptr
    }
}
