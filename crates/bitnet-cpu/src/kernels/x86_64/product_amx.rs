//! Ternary products of several rows by AMX (see [`super::amx`]). A single row goes the way of
//! [`super::product_avx512`]: there is no tile to fill with it.
//!
//! A section of the columns of four strips is unpacked at a time. What a register holds when one digit is taken out of a
//! tile of weights, the codes of four columns of sixteen outputs, is one row of a right operand. Left operands are the
//! activations as [`RowLayout::Tiles`] places them. Two times two tiles of sums take four loads for four products. With
//! sixteen rows or fewer there is one tile of rows, and four of outputs beside it.
//!
//! In an isolated loop on one core of Emerald Rapids (peak 2,650 GMAC/s), 192 rows of 2560 columns: products alone reach
//! 1,850 to 1,950 GMAC/s, from the L2 cache; with unpacking 1,370 to 1,540; with writing the results, which miss the
//! caches, 880 to 1,130, and 1,180 where they were asked for beforehand. Prefetching operands brought nothing. From eight to
//! sixteen rows 13 to 14 GB/s of packed weights go through, about what memory gives one core.

use std::arch::x86_64::*;

use super::amx::{TILE, Tiles};
use super::product_avx512::{Digits, FiveTritsVbmi, TwoBit, product_vbmi, store};
use crate::kernels::{Product, RowLayout, TILE_COLS, TILE_ROWS, UNPACK_STRIPS};
use crate::layout::{Form, QUAD, STRIP_ROWS, TILE_BYTES};

/// Steps of 64 columns in a section for many rows. Sums are then seldom moved; codes of 160 KiB come from the L2 cache, as
/// fast as the multiplier wants them.
const MANY_ROWS_STEPS: usize = 40;
/// Rows that are few: codes are used so seldom that they must not leave the L1 cache.
const FEW_ROWS: usize = 64;
/// Quads of columns in a step.
const STEP_QUADS: usize = TILE_COLS / QUAD;

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread; AMX is available.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx2,fma")]
pub(super) unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    // SAFETY: promised by the caller.
    unsafe {
        match (p.layout, p.form) {
            (RowLayout::Single | RowLayout::Quads, _) | (_, Form::FourRows) => product_vbmi(p, codes),
            (RowLayout::Tiles, Form::TwoBit) => tiled::<TwoBit>(p, codes),
            (RowLayout::Tiles, Form::FiveTrits) => tiled::<FiveTritsVbmi>(p, codes),
        }
    }
}

/// A form in sections.
trait Sections: Digits {
    /// Steps of a section for few rows, so that it holds whole groups.
    const FEW_ROWS_STEPS: usize;
}

impl Sections for TwoBit {
    const FEW_ROWS_STEPS: usize = 3;
}

impl Sections for FiveTritsVbmi {
    const FEW_ROWS_STEPS: usize = 5;
}

/// All strips with several rows.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn tiled<D: Sections>(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    const { assert!((D::FEW_ROWS_STEPS * STEP_QUADS).is_multiple_of(D::COUNT)) };
    const { assert!((MANY_ROWS_STEPS * STEP_QUADS).is_multiple_of(D::COUNT)) };
    let steps = p.quads().div_ceil(STEP_QUADS);
    let together = if p.rows() > FEW_ROWS { MANY_ROWS_STEPS } else { D::FEW_ROWS_STEPS };
    let (codes, sums) = codes.split_at_mut(UNPACK_STRIPS * TILE * steps);
    // SAFETY: AMX is available, and nothing else on this thread uses it; strips and rows are inside the slices that `check`
    // measured; outputs are promised by the caller.
    unsafe {
        let digits = D::new();
        let tiles = Tiles::new(p.rows().min(TILE_ROWS));
        for strip in (0..p.strip_count()).step_by(UNPACK_STRIPS) {
            let strips = strip..p.strip_count().min(strip + UNPACK_STRIPS);
            for start in (0..steps).step_by(together) {
                let section = Section {
                    strips: strips.clone(),
                    steps: start..steps.min(start + together),
                    last: start + together >= steps,
                    all_steps: steps,
                };
                unpack(p, digits, &section, codes.as_mut_ptr());
                multiply(p, &tiles, &section, codes.as_ptr(), sums.as_mut_ptr().cast());
            }
        }
    }
}

/// Some columns of a few strips.
struct Section {
    /// At most four.
    strips: std::ops::Range<usize>,
    steps: std::ops::Range<usize>,
    /// Whether these are the last columns.
    last: bool,
    /// Steps of all columns.
    all_steps: usize,
}

/// Where the codes of strip `index` of a section begin: two strips lie side by side, step by step.
fn strip_offset(section: &Section, index: usize) -> usize {
    index / 2 * (2 * TILE * section.steps.len()) + index % 2 * TILE
}

/// Unpacks a section to `codes`, `[2 pairs of strips][steps][2 strips][16 quads][16 outputs][4 columns]`. Columns past the
/// end keep what is there: activations are 0 in their place.
///
/// # Safety
/// The section is inside `p`; `codes` has room for it.
#[inline(always)]
unsafe fn unpack<D: Digits>(p: &Product<'_>, digits: D, section: &Section, codes: *mut u8) {
    let first = section.steps.start * STEP_QUADS / D::COUNT;
    let end = (section.steps.end * STEP_QUADS).div_ceil(D::COUNT).min(p.groups());
    for (index, strip) in section.strips.clone().enumerate() {
        let offset = strip_offset(section, index);
        // SAFETY: promised by the caller; a prefetch past the end does nothing.
        unsafe {
            let base = p.strips.as_ptr().add(strip * p.strip_bytes);
            for group in first..end {
                let tile = base.add(group * TILE_BYTES);
                _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(UNPACK_STRIPS * p.strip_bytes).cast());
                let unpacked = digits.codes(_mm512_loadu_si512(tile.cast()));
                for (i, code) in unpacked.iter().take(D::COUNT).enumerate() {
                    let quad = (group - first) * D::COUNT + i;
                    let at = offset + quad / STEP_QUADS * (2 * TILE) + quad % STEP_QUADS * TILE_BYTES;
                    _mm512_storeu_si512(codes.add(at).cast(), *code);
                }
            }
        }
    }
}

/// Multiplies a section with all rows. `sums` keeps the sums of each block of rows between sections, and is where those of
/// the last section are taken from.
///
/// # Safety
/// As [`product`]; `codes` holds the section, `sums` has room for four tiles for each block of sixteen rows.
#[inline(always)]
unsafe fn multiply(p: &Product<'_>, tiles: &Tiles, section: &Section, codes: *const u8, sums: *mut i32) {
    let (steps, first) = (section.steps.len(), section.steps.start == 0);
    let block_bytes = section.all_steps * TILE;
    let second_pair = 2 * TILE * steps;
    const SUMS: usize = TILE_ROWS * STRIP_ROWS;
    // SAFETY: blocks of rows are inside `q`, which `check` measured; the rest is promised by the caller.
    unsafe {
        let rows_at =
            |row: usize| p.q.as_ptr().add(row / TILE_ROWS * block_bytes + section.steps.start * TILE);
        let pairs = section.strips.len().div_ceil(2);
        let whole = p.rows().next_multiple_of(TILE_ROWS) / (2 * TILE_ROWS) * (2 * TILE_ROWS);
        for pair in 0..pairs {
            let codes = codes.add(pair * second_pair);
            for row in (0..whole).step_by(2 * TILE_ROWS) {
                let c = sums.add((row / TILE_ROWS * 4 + pair * 4) * SUMS);
                if section.last {
                    prefetch_outputs(p, row, section.strips.start + 2 * pair);
                }
                tiles.two_by_two(rows_at(row), rows_at(row + TILE_ROWS), codes, steps, c, first);
                if section.last {
                    for tile in 0..4 {
                        let (row, strip) = (row + tile / 2 * TILE_ROWS, 2 * pair + tile % 2);
                        finish(p, section, row, strip, c.add(tile * SUMS));
                    }
                }
            }
        }
        if whole < p.rows() {
            let c = sums.add(whole / TILE_ROWS * 4 * SUMS);
            tiles.one_by_four(rows_at(whole), codes, codes.add(second_pair), steps, c, first);
            if section.last {
                for strip in 0..section.strips.len() {
                    finish(p, section, whole, strip, c.add(strip * SUMS));
                }
            }
        }
    }
}

/// Asks for the outputs of 32 rows and two strips: while they are brought here, the rows are multiplied. Without it the
/// stores waited for memory for as long as the products took.
#[inline(always)]
unsafe fn prefetch_outputs(p: &Product<'_>, row: usize, strip: usize) {
    for row in row..p.rows().min(row + 2 * TILE_ROWS) {
        for strip in [strip, strip + 1] {
            // SAFETY: a prefetch touches nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(p.out.wrapping_add(row * p.stride + strip * STRIP_ROWS).cast());
            }
        }
    }
}

/// Scales the sums of one tile and writes those that belong to a row and a strip that exist.
///
/// # Safety
/// As [`product`]; `sums` is a tile.
#[inline(always)]
unsafe fn finish(p: &Product<'_>, section: &Section, row: usize, strip: usize, sums: *const i32) {
    if strip < section.strips.len() {
        for i in 0..TILE_ROWS.min(p.rows().saturating_sub(row)) {
            // SAFETY: promised by the caller.
            unsafe {
                let sums = _mm512_loadu_si512(sums.add(i * STRIP_ROWS).cast());
                store(p, section.strips.start + strip, row + i, sums);
            }
        }
    }
}
