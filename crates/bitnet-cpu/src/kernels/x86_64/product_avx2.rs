//! Ternary products by `vpmaddubsw`, eight rows a register.
//!
//! `vpmaddubsw` adds two products of an unsigned and a signed byte into 16 bits, with saturation. Codes are at most 2, so
//! that many sums fit 16 bits before they are widened to 32; how many is said beside each form, for activations of -128.
//! Nothing ever saturates.

use std::arch::x86_64::*;

use super::{CODES_OF_MULTIPLES, INVERSE_3, INVERSE_9};
use crate::kernels::{Product, ROW_BLOCK, scalar};
use crate::layout::{Form, TILE_BYTES};

/// Bytes ahead of the tile in use that are asked for.
const PREFETCH: usize = 2048;
/// Quads of one code each (512 at most) whose sums fit 16 bits.
const QUADS_PER_WIDENING: usize = 64;

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    // SAFETY: promised by the caller.
    unsafe {
        match p.form {
            Form::TwoBit => product_of::<TwoBit>(p, codes),
            Form::FiveTrits => product_of::<FiveTrits>(p, codes),
            Form::FourRows => {
                p.check(codes);
                scalar::product_of_four_rows(p);
            }
        }
    }
}

/// How a form is taken apart in registers. Methods are inlined into functions that have the target features.
///
/// # Safety
/// The processor has AVX2.
trait Digits {
    /// Digits of a byte.
    const COUNT: usize;
    /// Tiles whose sums fit 16 bits.
    const TILES: usize;
    /// Sums of one row with half a strip, by what they count.
    type Sums: Copy + AsRef<[__m256i]> + AsMut<[__m256i]>;

    unsafe fn zero() -> Self::Sums;
    /// Adds the products of half a tile with `COUNT` quads of the row to sums of 16 bits.
    unsafe fn add(sums: &mut Self::Sums, half: __m256i, quads: *const i32);
    /// The sums of all digits, of 32 bits.
    unsafe fn total(sums: Self::Sums) -> __m256i;
    /// Writes the codes of each digit, a tile apart.
    unsafe fn unpack(half: __m256i, codes: *mut u8);
}

#[inline(always)]
unsafe fn quad(p: *const i32) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_set1_epi32(p.read_unaligned()) }
}

/// `sum + code * q`, pairs of bytes in 16 bits.
#[inline(always)]
unsafe fn multiply(sum: __m256i, code: __m256i, q: *const i32) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_add_epi16(sum, _mm256_maddubs_epi16(code, quad(q))) }
}

/// `wide + narrow`, pairs of 16 bits in 32.
#[inline(always)]
unsafe fn widen(wide: __m256i, narrow: __m256i) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_add_epi32(wide, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1))) }
}

/// Two bits a trit. The second and fourth digit are multiplied where they are, as four times the code: a tile adds up to
/// 4096 to their sums, so eight tiles fit.
struct TwoBit;

impl Digits for TwoBit {
    const COUNT: usize = 4;
    const TILES: usize = 8;
    type Sums = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see the trait.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn add(sums: &mut Self::Sums, half: __m256i, quads: *const i32) {
        // SAFETY: see the trait; there are four quads.
        unsafe {
            let (once, four) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
            let high = _mm256_srli_epi16::<4>(half);
            sums[0] = multiply(sums[0], _mm256_and_si256(half, once), quads);
            sums[1] = multiply(sums[1], _mm256_and_si256(half, four), quads.add(1));
            sums[0] = multiply(sums[0], _mm256_and_si256(high, once), quads.add(2));
            sums[1] = multiply(sums[1], _mm256_and_si256(high, four), quads.add(3));
        }
    }

    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> __m256i {
        // SAFETY: see the trait.
        unsafe { _mm256_add_epi32(sums[0], _mm256_srai_epi32::<2>(sums[1])) }
    }

    #[inline(always)]
    unsafe fn unpack(half: __m256i, codes: *mut u8) {
        let mut half = half;
        for i in 0..4 {
            // SAFETY: see the trait; there is room for four digits.
            unsafe {
                let code = _mm256_and_si256(half, _mm256_set1_epi8(3));
                _mm256_storeu_si256(codes.add(i * TILE_BYTES).cast(), code);
                half = _mm256_srli_epi16::<2>(half);
            }
        }
    }
}

/// Five trits a byte: the largest digit is found by comparing, as the minimum of the byte and the byte less one or two
/// times 81 (what goes below 0 wraps round to something larger), and so on down. The third digit is multiplied as nine
/// times the code: a tile adds up to 4608 to its sum, so seven tiles fit.
struct FiveTrits;

impl FiveTrits {
    /// `[t0, 3 t1, 9 t2, t3, t4]`.
    #[inline(always)]
    unsafe fn parts(half: __m256i) -> [__m256i; 5] {
        // SAFETY: see the trait.
        unsafe {
            let mut rest = half;
            let mut parts = [half; 5];
            for (i, unit) in [(4, 81u8), (3, 27), (2, 9), (1, 3)] {
                let once = _mm256_sub_epi8(rest, _mm256_set1_epi8(unit.cast_signed()));
                let twice = _mm256_sub_epi8(rest, _mm256_set1_epi8((2 * unit).cast_signed()));
                let less = _mm256_min_epu8(_mm256_min_epu8(rest, once), twice);
                parts[i] = _mm256_sub_epi8(rest, less);
                rest = less;
            }
            parts[0] = rest;
            // 81 and 162 end in the bits 01 and 10.
            parts[4] = _mm256_and_si256(parts[4], _mm256_set1_epi8(3));
            parts[3] = code(parts[3]);
            parts
        }
    }
}

/// The codes of bytes that are 3, 9 or 27 times a code: looked up by their low four bits.
#[inline(always)]
unsafe fn code(multiple: __m256i) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(CODES_OF_MULTIPLES.as_ptr().cast()));
        _mm256_shuffle_epi8(table, multiple)
    }
}

impl Digits for FiveTrits {
    const COUNT: usize = 5;
    const TILES: usize = 7;
    type Sums = [__m256i; 3];

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see the trait.
        unsafe { [_mm256_setzero_si256(); 3] }
    }

    #[inline(always)]
    unsafe fn add(sums: &mut Self::Sums, half: __m256i, quads: *const i32) {
        // SAFETY: see the trait; there are five quads.
        unsafe {
            let parts = Self::parts(half);
            for (i, of) in [0, 1, 2, 0, 0].into_iter().enumerate() {
                sums[of] = multiply(sums[of], parts[i], quads.add(i));
            }
        }
    }

    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> __m256i {
        // SAFETY: see the trait.
        unsafe {
            let thirds = _mm256_mullo_epi32(sums[1], _mm256_set1_epi32(INVERSE_3));
            let ninths = _mm256_mullo_epi32(sums[2], _mm256_set1_epi32(INVERSE_9));
            _mm256_add_epi32(sums[0], _mm256_add_epi32(thirds, ninths))
        }
    }

    #[inline(always)]
    unsafe fn unpack(half: __m256i, codes: *mut u8) {
        // SAFETY: see the trait; there is room for five digits.
        unsafe {
            let mut parts = Self::parts(half);
            (parts[1], parts[2]) = (code(parts[1]), code(parts[2]));
            for (i, part) in parts.into_iter().enumerate() {
                _mm256_storeu_si256(codes.add(i * TILE_BYTES).cast(), part);
            }
        }
    }
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn product_of<D: Digits>(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    for strip in 0..p.strip_count() {
        // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
        unsafe {
            if p.rows() == 1 {
                one_row::<D>(p, strip);
                continue;
            }
            let tiles = p.strips.as_ptr().add(strip * p.strip_bytes);
            for g in 0..p.groups() {
                // The next strip is unpacked when this one has met all rows.
                _mm_prefetch::<_MM_HINT_T0>(tiles.wrapping_add(p.strip_bytes + g * TILE_BYTES).cast());
                for half in [0, 32] {
                    let v = _mm256_loadu_si256(tiles.add(g * TILE_BYTES + half).cast());
                    D::unpack(v, codes.as_mut_ptr().add(D::COUNT * g * TILE_BYTES + half));
                }
            }
            let mut row = 0;
            while row < p.rows() {
                match p.rows() - row {
                    1 => row_block::<1>(p, codes, strip, row),
                    2 => row_block::<2>(p, codes, strip, row),
                    3 => row_block::<3>(p, codes, strip, row),
                    4 => row_block::<4>(p, codes, strip, row),
                    5 => row_block::<5>(p, codes, strip, row),
                    _ => row_block::<ROW_BLOCK>(p, codes, strip, row),
                }
                row += ROW_BLOCK;
            }
        }
    }
}

/// One strip with the only row.
///
/// # Safety
/// The strip is inside `p`, whose outputs exist and belong to this thread.
#[inline(always)]
unsafe fn one_row<D: Digits>(p: &Product<'_>, strip: usize) {
    // SAFETY: pointers stay inside the strip and the activation row; outputs are promised by the caller.
    unsafe {
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        let q = p.q.as_ptr().cast::<i32>();
        let mut wide = [D::zero(); 2];
        let mut start = 0;
        while start < p.groups() {
            let end = p.groups().min(start + D::TILES);
            let mut narrow = [D::zero(); 2];
            for g in start..end {
                let tile = base.add(g * TILE_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(PREFETCH).cast());
                for half in 0..2 {
                    let v = _mm256_loadu_si256(tile.add(32 * half).cast());
                    D::add(&mut narrow[half], v, q.add(D::COUNT * g));
                }
            }
            for (wide, narrow) in wide.iter_mut().zip(&narrow) {
                for (wide, narrow) in wide.as_mut().iter_mut().zip(narrow.as_ref()) {
                    *wide = widen(*wide, *narrow);
                }
            }
            start = end;
        }
        store(p, strip, 0, [D::total(wide[0]), D::total(wide[1])]);
    }
}

/// One strip of codes with `M` rows from `row` on, which is the first of a block.
///
/// # Safety
/// As [`one_row`]; `codes` holds the strip, `[quads][64]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn row_block<const M: usize>(p: &Product<'_>, codes: &[u8], strip: usize, row: usize) {
    let mut wide = [[_mm256_setzero_si256(); 2]; M];
    let (mut code, mut q) = (codes.as_ptr(), p.row_start(row).cast::<i32>());
    let mut quads = p.quads();
    // SAFETY: pointers stay inside the codes and the block of rows; outputs are promised by the caller.
    unsafe {
        while quads > 0 {
            let now = quads.min(QUADS_PER_WIDENING);
            let mut narrow = [[_mm256_setzero_si256(); 2]; M];
            for _ in 0..now {
                let low = _mm256_loadu_si256(code.cast());
                let high = _mm256_loadu_si256(code.add(32).cast());
                for m in 0..M {
                    narrow[m][0] = multiply(narrow[m][0], low, q.add(m));
                    narrow[m][1] = multiply(narrow[m][1], high, q.add(m));
                }
                code = code.add(TILE_BYTES);
                q = q.wrapping_add(ROW_BLOCK);
            }
            for m in 0..M {
                for half in 0..2 {
                    wide[m][half] = widen(wide[m][half], narrow[m][half]);
                }
            }
            quads -= now;
        }
        for m in 0..M {
            store(p, strip, row + m, wide[m]);
        }
    }
}

/// Scales the sums of one strip and row and writes them.
///
/// # Safety
/// The outputs exist and belong to this thread.
#[inline(always)]
unsafe fn store(p: &Product<'_>, strip: usize, row: usize, sums: [__m256i; 2]) {
    // SAFETY: promised by the caller; two halves of eight outputs each.
    unsafe {
        for (half, sums) in sums.into_iter().enumerate() {
            let exact = _mm256_sub_epi32(sums, _mm256_set1_epi32(p.row_sums[row]));
            let mut y = _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_set1_ps(p.factors[row]));
            let out = p.out.add(row * p.stride + strip * 16 + 8 * half);
            if p.accumulate {
                y = _mm256_add_ps(_mm256_loadu_ps(out), y);
            }
            _mm256_storeu_ps(out, y);
        }
    }
}
