//! The start-up self-test: the chosen kernel set against the scalar one, on small products.
//!
//! A processor or compiler fault then costs speed and a warning, not wrong text. Takes well under a millisecond.

use super::int8::{FINE_BITS, PANEL_ROWS, PARTS, Panel, PartLayout, TILE, TILE_PARTS};
use super::{KernelSet, Product, code_bytes, scalar};
use crate::layout::{Form, QUAD, TILE_BYTES};
use crate::shared::Shared;

const GROUPS: usize = 21;
const STRIPS: usize = 8;
const ROWS: usize = 37;
const HIDDEN: usize = 3;

/// `set` if it computes the same bits as scalar code; otherwise the scalar set and a warning.
pub(crate) fn checked(set: &'static KernelSet) -> (&'static KernelSet, Vec<String>) {
    let scalar = &scalar::SCALAR;
    let same = |form, rows| products(set, form, rows) == products(scalar, form, rows);
    let products_agree = Form::ALL.iter().all(|&form| same(form, 1) && same(form, ROWS));
    let sums_agree = [1, HIDDEN].iter().all(|&rows| int8_sums(set, rows) == int8_sums(scalar, rows));
    if products_agree && sums_agree {
        return (set, Vec::new());
    }
    let scalar = super::ALL.iter().find(|k| k.name == "scalar").unwrap_or(set);
    let warning = format!(
        "the {} kernels give wrong results on this processor; using slow scalar code (please report this)",
        set.name
    );
    (scalar, vec![warning])
}

/// What counts of the sums of a panel of int8 rows with so many hidden rows.
fn int8_sums(set: &KernelSet, hidden: usize) -> Vec<i32> {
    const QUADS: usize = 16;
    let weights: Vec<i8> = (0..QUADS * TILE).map(|i| ((i * 37 % 255) as i16 - 127) as i8).collect();
    let layout = PartLayout::of(set.hidden_layout, hidden, QUADS * QUAD);
    let mut q = vec![0i8; layout.stride() * QUADS * QUAD];
    let mut part_sums = Vec::new();
    for part in 0..hidden * PARTS {
        let values: Vec<i8> =
            (0..QUADS * QUAD).map(|i| (((part * 57 + i) * 91 % 255) as i16 - 127) as i8).collect();
        // SAFETY: only this thread knows the parts.
        unsafe { layout.place(&values, part, Shared::new(&mut q)) };
        part_sums.push(values.iter().map(|&q| i32::from(q)).sum());
    }
    let mut sums = [[0; PANEL_ROWS]; TILE_PARTS];
    let panel = Panel { weights: &weights, q: &q, layout, part_sums: &part_sums };
    // SAFETY: the set is available, as `choose` checked.
    unsafe { (set.int8_sums)(&panel, &mut sums) };
    let rows = sums.as_chunks::<PARTS>().0.iter().take(hidden);
    rows.flat_map(|[coarse, fine]| coarse.iter().zip(fine).map(|(c, f)| (c << FINE_BITS) + f)).collect()
}

/// Bits of a product with codes, activations and scales of all kinds.
fn products(set: &KernelSet, form: Form, rows: usize) -> Vec<u32> {
    let cols = GROUPS * form.group_cols();
    let strips = tiles(form);
    let q: Vec<i8> = (0..rows * cols).map(|i| ((i * 89 % 256) as u8).cast_signed()).collect();
    let row_sums: Vec<i32> = q.chunks_exact(cols).map(|r| r.iter().map(|&q| i32::from(q)).sum()).collect();
    let layout = set.row_layout_of(form, rows);
    let mut placed = vec![0i8; layout.len(rows, cols)];
    for (i, row) in q.chunks_exact(cols).enumerate() {
        // SAFETY: only this thread knows the rows.
        unsafe { layout.place(row, i, Shared::new(&mut placed)) };
    }
    let factors: Vec<f32> = (0..rows).map(|i| 0.37 / (i + 1) as f32).collect();
    let mut out = vec![0.5f32; rows * STRIPS * 16];
    let mut codes = vec![0; code_bytes(rows, cols)];
    for accumulate in [false, true] {
        let p = Product {
            form,
            strips: &strips,
            strip_bytes: GROUPS * TILE_BYTES,
            q: &placed,
            layout,
            row_sums: &row_sums,
            factors: &factors,
            out: out.as_mut_ptr(),
            stride: STRIPS * 16,
            accumulate,
        };
        // SAFETY: `out` holds every row and strip; the set is available, as `choose` checked.
        unsafe { (set.product)(&p, &mut codes) };
    }
    out.iter().map(|v| v.to_bits()).collect()
}

/// Strips of random trits.
fn tiles(form: Form) -> Vec<u8> {
    let mut state = 1u32;
    let mut trit = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as usize % 3
    };
    let mut strips = vec![[0u32; 16]; STRIPS * GROUPS];
    for strip in strips.chunks_exact_mut(GROUPS) {
        for row in 0..16 {
            let trits: Vec<i8> = (0..GROUPS * form.digits() * QUAD).map(|_| [-1, 0, 1][trit()]).collect();
            form.pack_row(&trits, row, strip);
        }
    }
    bytemuck::cast_slice(strips.as_flattened()).to_vec()
}
