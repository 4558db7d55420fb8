//! Ternary products of weights with four rows a byte, by `vpdpbusd`.
//!
//! Where weights come from caches, one row is limited by instructions: two bits a trit with four columns in a byte take
//! four masks and four products for 256 weights, which share two ports on Intel cores. With four *rows* in a byte all
//! digits meet the same activations, so the sums of whole bytes, of the lower six, four and two bits differ by just one
//! row each, and three masks are enough: 7 instructions instead of 8.

use std::arch::x86_64::*;

use super::product_avx512::{Section, multiply_section, quad, section_quads, store};
use crate::kernels::{Product, UNPACK_STRIPS};
use crate::layout::TILE_BYTES;

/// Strips of a block.
const STRIPS: usize = UNPACK_STRIPS;
/// Tiles side by side, each with sums of its own: a product waits five cycles for the one before.
const TILES: usize = 2;
/// Bytes ahead of the tile in use that are asked for.
const AHEAD: usize = 1024;

/// Ternary product of weights in [`crate::layout::Form::FourRows`].
///
/// # Safety
/// The outputs of `p` exist and belong to this thread; the processor has AVX-512 F, BW and VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) unsafe fn product_of_four_rows(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    for strip in (0..p.strip_count()).step_by(STRIPS) {
        // SAFETY: `check` measured blocks and rows; outputs are promised by the caller.
        unsafe {
            if p.rows() == 1 {
                one_row(p, strip);
            } else {
                several_rows(p, strip, codes);
            }
        }
    }
}

/// One block with the only row.
///
/// # Safety
/// The block is inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn one_row(p: &Product<'_>, strip: usize) {
    let mask = |bits: u8| _mm512_set1_epi8(bits.cast_signed());
    let masks = [mask(0x03), mask(0x0f), mask(0x3f)];
    let mut sums = [[_mm512_setzero_si512(); STRIPS]; TILES];
    // SAFETY: a block has a tile for each quad of the row, and a row a multiple of four quads; a prefetch past the end does
    // nothing. Outputs are promised by the caller.
    unsafe {
        let mut tile = p.strips.as_ptr().add(strip * p.strip_bytes);
        let mut q = p.q.as_ptr().cast::<i32>();
        for _ in 0..p.quads() / TILES {
            for (i, sums) in sums.iter_mut().enumerate() {
                let at = tile.add(i * TILE_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                let (bytes, a) = (_mm512_loadu_si512(at.cast()), quad(q.add(i)));
                for (sum, mask) in sums.iter_mut().zip(masks) {
                    *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(bytes, mask), a);
                }
                sums[3] = _mm512_dpbusd_epi32(sums[3], bytes, a);
            }
            tile = tile.add(TILES * TILE_BYTES);
            q = q.add(TILES);
        }
        // Of the first strip, of it and four times the second, and so on.
        let [mut nested, other] = sums;
        for (sum, other) in nested.iter_mut().zip(other) {
            *sum = _mm512_add_epi32(*sum, other);
        }
        store(p, strip, 0, nested[0]);
        store(p, strip + 1, 0, _mm512_srai_epi32::<2>(_mm512_sub_epi32(nested[1], nested[0])));
        store(p, strip + 2, 0, _mm512_srai_epi32::<4>(_mm512_sub_epi32(nested[2], nested[1])));
        store(p, strip + 3, 0, _mm512_srai_epi32::<6>(_mm512_sub_epi32(nested[3], nested[2])));
    }
}

/// One block with all rows, of which there are several.
///
/// # Safety
/// As [`one_row`]; `codes` has room as [`crate::kernels::code_bytes`] says.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn several_rows(p: &Product<'_>, strip: usize, codes: &mut [u8]) {
    let code = _mm512_set1_epi8(3);
    let (codes, sums) = codes.split_at_mut(STRIPS * TILE_BYTES * p.quads());
    let mut start = 0;
    while start < p.quads() {
        let end = p.quads().min(start + section_quads(p));
        let (codes, sums) = (codes.as_mut_ptr(), sums.as_mut_ptr().cast());
        let section = Section { codes, quads: start..end, last: end == p.quads(), sums };
        // SAFETY: promised by the caller; `codes` is `[quads][4][64]`.
        unsafe {
            let base = p.strips.as_ptr().add(strip * p.strip_bytes);
            for k in start..end {
                let bytes = _mm512_loadu_si512(base.add(k * TILE_BYTES).cast());
                let to = codes.add((k - start) * STRIPS * TILE_BYTES);
                let digits = [
                    bytes,
                    _mm512_srli_epi16::<2>(bytes),
                    _mm512_srli_epi16::<4>(bytes),
                    _mm512_srli_epi16::<6>(bytes),
                ];
                for (s, digit) in digits.into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(s * TILE_BYTES).cast(), _mm512_and_si512(digit, code));
                }
            }
            multiply_section::<STRIPS>(p, &section, strip);
        }
        start = end;
    }
}
