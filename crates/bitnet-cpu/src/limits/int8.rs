//! int8 multiply-adds a second, by the instruction that a kernel set multiplies with.
//!
//! Each loop multiplies the same two registers into twelve accumulators, more than the latency of the instruction asks for.
//! Empty assembly makes the compiler believe that the operands change, so that it can leave nothing out, and costs nothing.

#[cfg(not(target_arch = "x86_64"))]
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitnet_core::pool::ThreadPool;

#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::amx;

/// Accumulators of a loop.
const ACCUMULATORS: usize = 12;
#[cfg(target_arch = "x86_64")]
const _: () = assert!(amx::TURN == ACCUMULATORS, "a turn is as many multiplications");
/// Turns between two looks at the clock: some ten microseconds.
const TURNS: u32 = 2_000;
/// How long a measurement takes.
const TIME: Duration = Duration::from_millis(20);

/// A loop over registers.
struct Loop {
    /// The kernel sets that multiply so.
    kernels: &'static [&'static str],
    /// What it multiplies with, for people.
    instruction: &'static str,
    /// Multiply-adds that one instruction does.
    macs: usize,
    available: fn() -> bool,
    /// Runs so many turns of [`ACCUMULATORS`] multiplications, where `available` says yes.
    run: unsafe fn(u32),
}

/// All loops of this architecture.
static LOOPS: &[Loop] = &[
    #[cfg(target_arch = "x86_64")]
    Loop {
        kernels: &["amx-int8"],
        instruction: "tdpbssd, 16x64 bytes times 64x16",
        macs: amx::MACS,
        available: bitnet_core::amx::is_available,
        run: amx::multiply_registers,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        kernels: &["avx512vbmi", "avx512vnni"],
        instruction: "vpdpbusd, 64 bytes",
        macs: 64,
        available: || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
        run: x86_64::vnni,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        kernels: &["avx2"],
        instruction: "vpmaddubsw and vpaddw, 32 bytes",
        macs: 32,
        available: || is_x86_feature_detected!("avx2"),
        run: x86_64::maddubs,
    },
    // Compilers make vectors of the architecture's baseline of plain code.
    #[cfg(target_arch = "x86_64")]
    Loop {
        kernels: &["scalar"],
        instruction: "pmaddwd and paddd, 16 bytes",
        macs: 8,
        available: || true,
        run: x86_64::madd,
    },
    #[cfg(target_arch = "aarch64")]
    Loop {
        kernels: &["neon-i8mm"],
        instruction: "smmla, 16 bytes",
        macs: 32,
        available: || std::arch::is_aarch64_feature_detected!("i8mm"),
        run: aarch64::smmla,
    },
    #[cfg(target_arch = "aarch64")]
    Loop {
        kernels: &["neon-dotprod"],
        instruction: "sdot, 16 bytes",
        macs: 16,
        available: || std::arch::is_aarch64_feature_detected!("dotprod"),
        run: aarch64::sdot,
    },
    #[cfg(target_arch = "aarch64")]
    Loop {
        kernels: &["neon"],
        instruction: "smlal, 8 bytes",
        macs: 8,
        available: || std::arch::is_aarch64_feature_detected!("neon"),
        run: aarch64::smlal,
    },
    #[cfg(not(target_arch = "x86_64"))]
    Loop {
        kernels: &["scalar"],
        instruction: "one multiplication and addition",
        macs: 1,
        available: || true,
        run: scalar,
    },
];

fn find(kernels: &str) -> Option<&'static Loop> {
    LOOPS.iter().find(|l| l.kernels.contains(&kernels) && (l.available)())
}

/// What the set multiplies with.
pub(super) fn instruction(kernels: &str) -> Option<&'static str> {
    find(kernels).map(|l| l.instruction)
}

/// int8 multiply-adds a second of all threads of the pool together, as the kernel set named `kernels` multiplies; `None`
/// for a set that is not known here or not available. Takes about 20 ms.
pub fn int8_peak(pool: &mut ThreadPool, kernels: &str) -> Option<f64> {
    let found = find(kernels)?;
    let total = Mutex::new(0.0);
    pool.run(|team| {
        // SAFETY: the processor has what the loop asks for.
        unsafe { (found.run)(TURNS) };
        team.barrier();
        let start = Instant::now();
        let mut turns = 0u64;
        while start.elapsed() < TIME {
            // SAFETY: as above.
            unsafe { (found.run)(TURNS) };
            turns += u64::from(TURNS);
        }
        let macs = turns as f64 * (ACCUMULATORS * found.macs) as f64;
        *total.lock().unwrap_or_else(PoisonError::into_inner) += macs / start.elapsed().as_secs_f64();
    });
    Some(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Makes the compiler believe that two registers changed.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! opaque {
    ($class:ident: $a:ident, $b:ident) => {
        // SAFETY: a comment, no instruction.
        unsafe {
            std::arch::asm!(
                "/* {0} {1} */",
                inout($class) $a,
                inout($class) $b,
                options(nomem, nostack, preserves_flags)
            )
        }
    };
}

#[cfg(target_arch = "aarch64")]
fn scalar(turns: u32) {
    let mut sums: [u64; ACCUMULATORS] = std::array::from_fn(|i| i as u64);
    let (mut a, mut b) = (black_box(3u64), black_box(1u64));
    for _ in 0..turns {
        for sum in &mut sums {
            opaque!(reg: a, b);
            *sum = sum.wrapping_add(a.wrapping_mul(b));
        }
    }
    black_box(sums);
}

/// Without assembly the operands go through memory, which may cost a little.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn scalar(turns: u32) {
    let mut sums: [u64; ACCUMULATORS] = std::array::from_fn(|i| i as u64);
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = sum.wrapping_add(black_box(3u64).wrapping_mul(5));
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::ACCUMULATORS;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn vnni(turns: u32) {
        let mut sums: [__m512i; ACCUMULATORS] = std::array::from_fn(|i| _mm512_set1_epi32(i as i32));
        let (mut a, mut b) = (_mm512_set1_epi8(3), _mm512_set1_epi8(1));
        for _ in 0..turns {
            opaque!(zmm_reg: a, b);
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn madd(turns: u32) {
        let mut sums: [__m128i; ACCUMULATORS] = std::array::from_fn(|i| _mm_set1_epi32(i as i32));
        let (mut a, mut b) = (_mm_set1_epi16(3), _mm_set1_epi16(1));
        for _ in 0..turns {
            for sum in &mut sums {
                opaque!(xmm_reg: a, b);
                *sum = _mm_add_epi32(*sum, _mm_madd_epi16(a, b));
            }
        }
        black_box(sums);
    }

    /// Ternary products widen sums to 32 bits so seldom that it does not count.
    #[target_feature(enable = "avx2")]
    pub(super) fn maddubs(turns: u32) {
        let mut sums: [__m256i; ACCUMULATORS] = std::array::from_fn(|i| _mm256_set1_epi16(i as i16));
        let (mut a, mut b) = (_mm256_set1_epi8(3), _mm256_set1_epi8(1));
        for _ in 0..turns {
            for sum in &mut sums {
                opaque!(ymm_reg: a, b);
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::ACCUMULATORS;

    /// A loop over an instruction that has no stable intrinsic. Assembly that is not said to be pure is never left out.
    macro_rules! multiply {
        ($name:ident, $feature:literal, $instruction:literal) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(turns: u32) {
                let mut sums: [int32x4_t; ACCUMULATORS] = [vdupq_n_s32(0); ACCUMULATORS];
                let (a, b) = (vdupq_n_s8(3), vdupq_n_s8(1));
                for _ in 0..turns {
                    for sum in &mut sums {
                        // SAFETY: reads and writes registers only; this function has the feature.
                        unsafe {
                            asm!(
                                $instruction,
                                sum = inout(vreg) *sum,
                                a = in(vreg) a,
                                b = in(vreg) b,
                                options(nomem, nostack, preserves_flags)
                            );
                        }
                    }
                }
                black_box(sums);
            }
        };
    }

    multiply!(smmla, "neon,i8mm", "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b");
    multiply!(sdot, "neon,dotprod", "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b");
    multiply!(smlal, "neon", "smlal {sum:v}.8h, {a:v}.8b, {b:v}.8b");
}
