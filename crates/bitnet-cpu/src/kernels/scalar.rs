//! Kernels in plain Rust: they run on every processor.

use super::{KernelSet, Product, generic};
use crate::layout::TILE_BYTES;

generic::float_kernels!([f32; 16],);

/// The set of this module.
pub(super) const SCALAR: KernelSet = KernelSet {
    name: "scalar",
    requires: "any processor",
    available: || true,
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    merge_states,
    encode_kv,
    dense,
    int8_row,
    int8_sums,
};

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
unsafe fn product(p: &Product<'_>) {
    p.check();
    for s in 0..p.strip_count() {
        let strip = &p.strips[s * p.strip_bytes..(s + 1) * p.strip_bytes];
        for row in 0..p.rows() {
            let start = p.row_start(row);
            let mut sums = [0i32; 16];
            for (group, tile) in strip.chunks_exact(TILE_BYTES).enumerate() {
                // SAFETY: `check` measured the rows; each has four quads a group.
                let q = std::array::from_fn(|i| unsafe {
                    start.add((4 * group + i) * 4 * p.row_block()).cast::<[i8; 4]>().read_unaligned()
                });
                add_tile(tile, q, &mut sums);
            }
            // SAFETY: promised by the caller.
            unsafe { p.store(s, row, &sums) };
        }
    }
}

fn add_tile(tile: &[u8], q: [[i8; 4]; 4], sums: &mut [i32; 16]) {
    for (sum, bytes) in sums.iter_mut().zip(tile.chunks_exact(4)) {
        for (b, &byte) in bytes.iter().enumerate() {
            for i in 0..4 {
                let code = i32::from(byte >> (2 * i) & 3);
                *sum += code * i32::from(q[i][b]);
            }
        }
    }
}

/// Sums of int8 strips: `out[16 * strip + lane] = sum(w * q)`.
fn int8_sums(strips: &[i8], q: &[i8], _sum: i32, out: &mut [i32]) {
    for (strip, out) in strips.chunks_exact(16 * q.len()).zip(out.as_chunks_mut::<16>().0) {
        *out = [0; 16];
        for (tile, q) in strip.as_chunks::<64>().0.iter().zip(q.as_chunks::<4>().0) {
            for (sum, w) in out.iter_mut().zip(tile.as_chunks::<4>().0) {
                *sum += (0..4).map(|i| i32::from(w[i]) * i32::from(q[i])).sum::<i32>();
            }
        }
    }
}
