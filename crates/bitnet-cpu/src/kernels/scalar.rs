//! Kernels in plain Rust: they run on every processor.

use super::{KernelSet, Product, generic, int8};
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
    dense,
    int8_row,
    int8_hidden,
    int8_sums: int8::scalar_sums,
    int8_intervals,
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
