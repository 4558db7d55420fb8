//! Fetching memory ahead of its use, where a kernel knows better than the processor what comes next.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Fetches a cache line ahead of its use. Any address will do.
#[inline(always)]
pub(crate) fn line(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address does nothing but warm caches; SSE is part of the architecture.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Fetches all cache lines of a slice to the second level, which holds more of them.
pub(crate) fn bytes(slice: &[u8]) {
    for at in slice.chunks(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `line`.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        line(at.as_ptr());
    }
}
