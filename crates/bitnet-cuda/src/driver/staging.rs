//! [`Staging`]: pinned memory of the host through which bytes go to the device while the host does other things.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use super::failed;
use crate::CudaError;
use crate::gpu::Address;

/// Bytes of a segment.
const SEGMENT: usize = 4 << 20;
/// Segments, of which all but one may be on their way.
const SEGMENTS: usize = 4;

/// A ring of segments: one is filled, the others are being copied.
pub(super) struct Staging {
    segments: [Segment; SEGMENTS],
    current: usize,
    used: usize,
    /// For what comes back.
    bounce: *mut c_void,
}

struct Segment {
    memory: *mut c_void,
    /// Behind the last copy out of it.
    done: sys::CUevent,
    waiting: bool,
}

impl Staging {
    /// Pins memory; the device's context must be current.
    pub(super) fn new() -> Result<Self, CudaError> {
        let segment = || {
            Ok::<_, CudaError>(Segment {
                memory: pinned()?,
                done: result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                    .map_err(failed("cuEventCreate"))?,
                waiting: false,
            })
        };
        let segments = [segment()?, segment()?, segment()?, segment()?];
        Ok(Self { segments, current: 0, used: 0, bounce: pinned()? })
    }

    /// Queues a copy of bytes, which are taken over at once.
    pub(super) fn upload(
        &mut self,
        stream: sys::CUstream,
        mut to: Address,
        mut bytes: &[u8],
    ) -> Result<(), CudaError> {
        while !bytes.is_empty() {
            if self.used == SEGMENT {
                self.next(stream)?;
            }
            let count = bytes.len().min(SEGMENT - self.used);
            let (part, rest) = bytes.split_at(count);
            // SAFETY: `used + count` bytes are inside the segment, which no copy reads any more at `used` and behind.
            let source = unsafe {
                let place = self.segments[self.current].memory.cast::<u8>().add(self.used);
                std::ptr::copy_nonoverlapping(part.as_ptr(), place, count);
                std::slice::from_raw_parts(place, count)
            };
            // SAFETY: the destination is memory of the device, by the contract of `Gpu::upload`; the source stays until
            // the event of its segment has passed.
            unsafe { result::memcpy_htod_async(to, source, stream) }.map_err(failed("cuMemcpyHtoDAsync"))?;
            self.used = (self.used + count).next_multiple_of(64).min(SEGMENT);
            (to, bytes) = (to + count as u64, rest);
        }
        Ok(())
    }

    fn next(&mut self, stream: sys::CUstream) -> Result<(), CudaError> {
        let full = &mut self.segments[self.current];
        // SAFETY: event and stream are of the current context.
        unsafe { result::event::record(full.done, stream) }.map_err(failed("cuEventRecord"))?;
        full.waiting = true;
        self.current = (self.current + 1) % SEGMENTS;
        self.used = 0;
        let next = &mut self.segments[self.current];
        if std::mem::take(&mut next.waiting) {
            // SAFETY: the event was recorded.
            unsafe { result::event::synchronize(next.done) }.map_err(failed("cuEventSynchronize"))?;
        }
        Ok(())
    }

    /// Copies bytes from the device and waits for them.
    pub(super) fn download(
        &mut self,
        stream: sys::CUstream,
        mut from: Address,
        bytes: &mut [u8],
    ) -> Result<(), CudaError> {
        for part in bytes.chunks_mut(SEGMENT) {
            // SAFETY: the bounce buffer is as long as a segment; nothing else uses it.
            let bounce = unsafe { std::slice::from_raw_parts_mut(self.bounce.cast::<u8>(), part.len()) };
            // SAFETY: the source is memory of the device, by the contract of `Gpu::download`.
            unsafe { result::memcpy_dtoh_async(bounce, from, stream) }
                .map_err(failed("cuMemcpyDtoHAsync"))?;
            // SAFETY: a stream of the current context.
            unsafe { result::stream::synchronize(stream) }.map_err(failed("cuStreamSynchronize"))?;
            part.copy_from_slice(bounce);
            from += part.len() as u64;
        }
        Ok(())
    }

    /// Gives the memory back; no copy may be under way, and the context must be current.
    pub(super) fn free(&mut self) {
        for segment in &mut self.segments {
            // SAFETY: pinned and created here, and not used any more.
            unsafe {
                let _ = result::free_host(segment.memory);
                let _ = result::event::destroy(segment.done);
            }
        }
        // SAFETY: as above.
        unsafe {
            let _ = result::free_host(self.bounce);
        }
    }
}

fn pinned() -> Result<*mut c_void, CudaError> {
    // SAFETY: plain pinned memory of the current context.
    unsafe { result::malloc_host(SEGMENT, 0) }.map_err(failed("cuMemHostAlloc"))
}
