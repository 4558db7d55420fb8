//! Read bandwidth: every thread reads its part of a large buffer in one sequential stream.

use std::hint::black_box;
use std::time::Instant;

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::ThreadPool;
use bitnet_model::ExecError;

use crate::shared::Shared;

/// Bytes that one turn of the loop reads: eight cache lines.
const TURN: usize = 512;
/// Threads start at a multiple of this, which is a huge page.
const PART: usize = 2 << 20;

/// Memory to read, filled so that its pages exist.
pub(super) struct ReadBuffer {
    data: AlignedBuf<u8>,
}

impl ReadBuffer {
    pub(super) fn new(bytes: usize, pool: &mut ThreadPool) -> Result<Self, ExecError> {
        let mut data = AlignedBuf::zeroed(bytes.next_multiple_of(PART))?;
        let shared = Shared::new(&mut data);
        pool.run(|team| {
            for part in team.share(shared.len() / PART) {
                // SAFETY: parts are shared out among the threads.
                unsafe { shared.get_mut(part * PART..(part + 1) * PART) }.fill(1);
            }
        });
        Ok(Self { data })
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Bytes a second of reading everything once with all threads of the pool.
    pub(super) fn read(&self, pool: &mut ThreadPool) -> f64 {
        let data: &[u8] = &self.data;
        // Threads that slept are awake when the clock starts.
        pool.run(|team| {
            team.barrier();
        });
        let start = Instant::now();
        pool.run(|team| {
            let parts = team.share(data.len() / PART);
            black_box(sum(&data[parts.start * PART..parts.end * PART]));
        });
        data.len() as f64 / start.elapsed().as_secs_f64()
    }
}

impl std::fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadBuffer({} bytes)", self.len())
    }
}

/// Reads whole turns with the widest loads there are.
fn sum(data: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature is there.
        return unsafe { sum_avx512(data) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature is there.
        return unsafe { sum_avx2(data) };
    }
    sum_words(data)
}

/// In words, eight lines side by side; compilers make the vectors of the target's baseline of it.
#[inline(always)]
fn sum_words(data: &[u8]) -> u64 {
    let mut sums = [0u64; TURN / 8];
    for turn in data.as_chunks::<TURN>().0 {
        for (sum, word) in sums.iter_mut().zip(turn.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |a, &b| a.wrapping_add(b))
}

/// With 32-byte loads.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(data: &[u8]) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_si256(); 8];
    for turn in data.as_chunks::<TURN>().0 {
        for (i, line) in turn.as_chunks::<32>().0.iter().enumerate() {
            // SAFETY: the load reads the 32 bytes of `line`.
            let v = unsafe { _mm256_loadu_si256(line.as_ptr().cast()) };
            sums[i % 8] = _mm256_add_epi64(sums[i % 8], v);
        }
    }
    let total = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
    let mut words = [0u64; 4];
    // SAFETY: the store writes 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), total) };
    words.iter().fold(0, |a, &b| a.wrapping_add(b))
}

/// With 64-byte loads.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(data: &[u8]) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_si512(); 8];
    for turn in data.as_chunks::<TURN>().0 {
        for (sum, line) in sums.iter_mut().zip(turn.as_chunks::<64>().0) {
            // SAFETY: the load reads the 64 bytes of `line`.
            let v = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
            *sum = _mm512_add_epi64(*sum, v);
        }
    }
    let total = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi64(a, b));
    _mm512_reduce_add_epi64(total) as u64
}

/// Bytes of the largest cache of the first processor, if the system tells; else 64 MiB.
pub(super) fn last_level_cache() -> u64 {
    let size = |index: u32| -> Option<u64> {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        parse_size(std::fs::read_to_string(path).ok()?.trim())
    };
    (0..8).filter_map(size).max().unwrap_or(64 << 20)
}

/// Reads `32768K` or `32M`.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read() {
        let mut data = vec![0u8; 3 * TURN];
        for i in [0, 1, 31, 32, 63, 64, TURN - 1, TURN, 3 * TURN - 1] {
            data[i] = 1 << (i % 7);
        }
        let words = data.as_chunks::<8>().0.iter();
        let expected = words.fold(0u64, |a, w| a.wrapping_add(u64::from_ne_bytes(*w)));
        assert_eq!(sum_words(&data), expected);
        assert_eq!(sum(&data), expected);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature is there.
            assert_eq!(unsafe { sum_avx2(&data) }, expected);
        }
    }

    #[test]
    fn cache_sizes_are_read() {
        assert_eq!(parse_size("32768K"), Some(32 << 20));
        assert_eq!(parse_size("32M"), Some(32 << 20));
        assert_eq!(parse_size("4096"), Some(4096));
        for bad in ["", "K", "many", "99999999999999999999G"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert!(last_level_cache() > 0);
    }
}
