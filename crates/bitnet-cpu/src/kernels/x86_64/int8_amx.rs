//! Sums of the int8 output layer by AMX, for several hidden rows (see [`super::amx`]). The rows of a panel, four columns of 32
//! of them side by side, are right operands as they lie in memory; eight hidden rows of two parts fill a left operand. So
//! the scan for eight rows takes hardly longer than for one: it waits for memory.

use std::arch::x86_64::*;

use super::amx::Tiles;
use super::int8_avx512;
use crate::kernels::int8::{PANEL_ROWS, Panel, PartLayout, Sums};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    if let PartLayout::Quads { .. } = p.layout {
        return int8_avx512::int8_sums(p, out);
    }
    p.check();
    let parts = p.part_sums.len();
    // SAFETY: AMX is available where this set is, nothing else on this thread uses it; `check` measured panel and parts, and
    // there is at least one step.
    unsafe {
        let mut sums = [[0i32; 256]; 4];
        let tiles = Tiles::new(parts);
        tiles.one_by_panel(p.q.as_ptr(), p.weights.as_ptr(), p.quads() / 16, AHEAD, sums.as_mut_ptr().cast());
        drop(tiles);
        for (part, out) in out.iter_mut().enumerate().take(parts) {
            for half in 0..2 {
                let at = |tile: usize| _mm512_loadu_si512(sums[tile][part * 16..].as_ptr().cast());
                let sum = _mm512_add_epi32(at(half), at(2 + half));
                _mm512_storeu_si512(out[half * 16..PANEL_ROWS].as_mut_ptr().cast(), sum);
            }
        }
    }
}
