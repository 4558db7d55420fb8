//! Sums of the int8 output layer, with and without `sdot`.

use std::arch::aarch64::*;

use super::asm::{prefetch, sdot};
use crate::kernels::int8::{PANEL_ROWS, PARTS, Panel, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 2048;
/// Vectors of a tile.
const VECTORS: usize = TILE / 16;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "neon,dotprod")]
pub(super) fn int8_sums_dotprod(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    let parts = p.part_sums.len();
    // SAFETY: `check` measured panel and parts, an even number of them; those named are among them.
    unsafe {
        if parts == PARTS {
            pair(p, out);
            return;
        }
        for part in (0..parts).step_by(4) {
            for half in 0..2 {
                match parts - part {
                    ..=2 => several::<1>(p, half, part, out),
                    _ => several::<2>(p, half, part, out),
                }
            }
        }
    }
}

/// All rows of the panel with the two parts of the only hidden row.
///
/// # Safety
/// `p` was checked.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn pair(p: &Panel<'_>, out: &mut Sums) {
    let mut acc = [[vdupq_n_s32(0); VECTORS]; PARTS];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, as the caller checked.
    unsafe {
        for _ in 0..p.quads() {
            prefetch(tile.wrapping_add(AHEAD).cast());
            prefetch(tile.wrapping_add(AHEAD + 64).cast());
            let a = vld1_s8(q);
            for v in 0..VECTORS {
                let w = vld1q_s8(tile.add(16 * v));
                acc[0][v] = sdot::<0>(acc[0][v], w, a);
                acc[1][v] = sdot::<1>(acc[1][v], w, a);
            }
            tile = tile.add(TILE);
            q = q.wrapping_add(p.layout.stride() * QUAD);
        }
        for (acc, out) in acc.iter().zip(out) {
            for v in 0..VECTORS {
                vst1q_s32(out.as_mut_ptr().add(4 * v), acc[v]);
            }
        }
    }
}

/// Half of the rows of the panel with `P` pairs of parts from `part` on.
///
/// # Safety
/// `p` was checked, `half` is 0 or 1, and the parts are in `p`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn several<const P: usize>(p: &Panel<'_>, half: usize, part: usize, out: &mut Sums) {
    let mut acc = [[[vdupq_n_s32(0); VECTORS / 2]; 2]; P];
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, as the caller checked.
    unsafe {
        let (mut tile, mut q) = (p.weights.as_ptr().add(half * TILE / 2), p.q.as_ptr().add(part * QUAD));
        for _ in 0..p.quads() {
            prefetch(tile.wrapping_add(AHEAD).cast());
            for v in 0..VECTORS / 2 {
                let w = vld1q_s8(tile.add(16 * v));
                for j in 0..P {
                    let pair = vld1_s8(q.add(2 * QUAD * j));
                    acc[j][0][v] = sdot::<0>(acc[j][0][v], w, pair);
                    acc[j][1][v] = sdot::<1>(acc[j][1][v], w, pair);
                }
            }
            tile = tile.wrapping_add(TILE);
            q = q.wrapping_add(p.layout.stride() * QUAD);
        }
        for (m, acc) in acc.as_flattened().iter().enumerate() {
            for v in 0..VECTORS / 2 {
                let to = out[part + m].as_mut_ptr().add(half * PANEL_ROWS / 2 + 4 * v);
                vst1q_s32(to, acc[v]);
            }
        }
    }
}

/// Exact sums of a panel (see [`Panel`]), without `sdot`, one part after the other. Every product is widened by
/// itself.
#[target_feature(enable = "neon")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    for (part, out) in out.iter_mut().enumerate().take(p.part_sums.len()) {
        let mut wide = [[vdupq_n_s32(0); 2]; VECTORS];
        let (tiles, quads) = (p.weights.as_chunks::<TILE>().0, p.q.as_chunks::<QUAD>().0);
        for (tile, quad) in tiles.iter().zip(quads.iter().skip(part).step_by(p.layout.stride())) {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(quad.map(|q| q as u8))));
            for v in 0..VECTORS {
                // SAFETY: a tile has this many vectors.
                let w = unsafe { vld1q_s8(tile.as_ptr().add(16 * v)) };
                wide[v][0] = vpadalq_s16(wide[v][0], vmull_s8(vget_low_s8(w), vget_low_s8(a)));
                wide[v][1] = vpadalq_s16(wide[v][1], vmull_high_s8(w, a));
            }
        }
        for v in 0..VECTORS {
            // SAFETY: four sums a vector.
            unsafe { vst1q_s32(out.as_mut_ptr().add(4 * v), vpaddq_s32(wide[v][0], wide[v][1])) };
        }
    }
}
