//! Every function of a kernel set against scalar code, bit for bit.
//!
//! Feature `conformance`, for tests. Sizes are such that every way through the kernels is taken: one row and several,
//! whole blocks of rows and what is left of them, lengths that are no multiple of anything; values are such that sums
//! which are too narrow overflow.

use bitnet_core::DType;
use bitnet_core::buffer::AlignedBuf;
use bitnet_model::conformance::Random;
use bitnet_model::kv::RANGE;
use bitnet_model::{Activation, KvType};

use super::attention::{self, AttendScratch, QUERIES, Query};
use super::int8::{
    COLS_STEP, Hidden, Intervals, PANEL_ROWS, PARTS, Panel, PartLayout, TILE, TILE_PARTS, totals,
};
use super::scalar::SCALAR;
use super::{Attend, KernelSet, Product, choose, code_bytes};
use crate::kv::{BLOCK_SIZE, KvLayout, KvPart};
use crate::layout::{Form, STRIP_ROWS, TILE_BYTES};
use crate::shared::Shared;

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The function that was checked.
    pub name: &'static str,
    /// How many cases were the same, or the first that was not.
    pub outcome: Result<usize, String>,
}

type Check = fn(&KernelSet) -> Result<usize, String>;

const CHECKS: &[(&str, Check)] = &[
    ("product of one row, 2-bit", |set| products(set, Form::TwoBit, &[1])),
    ("product of one row, 1.6-bit", |set| products(set, Form::FiveTrits, &[1])),
    ("product of several rows, 2-bit", |set| products(set, Form::TwoBit, SEVERAL_ROWS)),
    ("product of several rows, 1.6-bit", |set| products(set, Form::FiveTrits, SEVERAL_ROWS)),
    ("product of one row, four rows a byte", |set| products(set, Form::FourRows, &[1])),
    ("product of several rows, four rows a byte", |set| products(set, Form::FourRows, SEVERAL_ROWS)),
    ("product of extreme values, four rows a byte", |set| extreme_products(set, Form::FourRows)),
    ("product of extreme values, 2-bit", |set| extreme_products(set, Form::TwoBit)),
    ("product of extreme values, 1.6-bit", |set| extreme_products(set, Form::FiveTrits)),
    ("product of every byte, 1.6-bit", every_byte),
    ("norm_quantize", norm_quantize),
    ("rms_norm", rms_norm),
    ("activate", activate),
    ("attend and encode_kv, f32", |set| attend(set, KvType::F32)),
    ("attend and encode_kv, f16", |set| attend(set, KvType::F16)),
    ("attend and encode_kv, int8", |set| attend(set, KvType::Int8)),
    ("merge_states", merge_states),
    ("dense", dense),
    ("int8_row", int8_row),
    ("int8_hidden", int8_hidden),
    ("int8_sums", int8_sums),
    ("int8_intervals", int8_intervals),
];

/// Numbers of rows: up to several blocks, with every number of rows in the last one.
const SEVERAL_ROWS: &[usize] = &[2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 16, 20, 32, 41, 50];

/// Checks the functions of the set of that name.
///
/// # Errors
/// If there is no such set, or this processor lacks what it needs.
pub fn run(set: &str) -> Result<Vec<Checked>, String> {
    let set = choose(Some(set))?;
    Ok(CHECKS.iter().map(|(name, check)| Checked { name, outcome: check(set) }).collect())
}

/// Counts cases; the first that differs ends a check.
#[derive(Default)]
struct Cases(usize);

impl Cases {
    /// `what` the kernels of the set gave must be what scalar code gave.
    fn same<T: Copy + PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        got: &[T],
        want: &[T],
    ) -> Result<(), String> {
        self.0 += 1;
        match got.iter().zip(want).position(|(g, w)| g != w) {
            None if got.len() == want.len() => Ok(()),
            None => Err(format!("{what}: {} elements instead of {}", got.len(), want.len())),
            Some(i) => Err(format!("{what}: element {i} is {:x?}, not {:x?}", got[i], want[i])),
        }
    }

    /// As [`Cases::same`], for the bits of floats.
    fn same_bits(&mut self, what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        self.same(what, &bits(got), &bits(want))
    }
}

fn floats(random: &mut Random, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| random.next_f32() * scale).collect()
}

/// Int8 values between `least` and 127.
fn int8s(random: &mut Random, count: usize, least: i8) -> Vec<i8> {
    (0..count).map(|_| ((random.next_u64() >> 32) as u8 as i8).max(least)).collect()
}

/// Weights and activations of a product.
struct Operands {
    form: Form,
    strips: Vec<u8>,
    groups: usize,
    /// Row after row.
    q: Vec<i8>,
}

impl Operands {
    fn random(random: &mut Random, form: Form, strips: usize, groups: usize, rows: usize) -> Self {
        let cols = groups * form.group_cols();
        let strips = packed(form, strips, groups, || random.next_trit());
        Self { form, strips, groups, q: int8s(random, rows * cols, -128) }
    }

    /// The outputs of a product that sets them, and of a second that adds to them.
    fn multiply(&self, set: &KernelSet) -> Vec<f32> {
        let cols = self.groups * self.form.group_cols();
        let rows = self.q.len() / cols;
        let strip_bytes = self.groups * TILE_BYTES;
        let stride = self.strips.len() / strip_bytes * STRIP_ROWS + 3;
        let row_sums: Vec<i32> =
            self.q.chunks_exact(cols).map(|row| row.iter().map(|&q| i32::from(q)).sum()).collect();
        let factors: Vec<f32> = (0..rows).map(|row| 0.37 / (row + 1) as f32).collect();
        // What lies in scratch, and where rows are missing, must not matter.
        let layout = set.row_layout_of(self.form, rows);
        let mut placed = vec![77i8; layout.len(rows, cols)];
        let mut codes = if rows == 1 { Vec::new() } else { vec![99; code_bytes(rows, cols)] };
        for (i, row) in self.q.chunks_exact(cols).enumerate() {
            // SAFETY: only this thread knows the rows.
            unsafe { layout.place(row, i, Shared::new(&mut placed)) };
        }
        let mut out = vec![0.5f32; rows * stride];
        for accumulate in [false, true] {
            let product = Product {
                form: self.form,
                strips: &self.strips,
                strip_bytes,
                q: &placed,
                layout,
                row_sums: &row_sums,
                factors: &factors,
                out: out.as_mut_ptr(),
                stride,
                accumulate,
            };
            // SAFETY: `out` has every row and strip; the set is available.
            unsafe { (set.product)(&product, &mut codes) };
        }
        out
    }
}

/// Strips of trits.
fn packed(form: Form, strips: usize, groups: usize, mut trit: impl FnMut() -> i8) -> Vec<u8> {
    let mut tiles = vec![[0u32; STRIP_ROWS]; strips * groups];
    for block in tiles.chunks_exact_mut(groups * form.block_strips()) {
        for row in 0..STRIP_ROWS * form.block_strips() {
            let trits: Vec<i8> = (0..groups * form.group_cols()).map(|_| trit()).collect();
            form.pack_row(&trits, row, block);
        }
    }
    bytemuck::cast_slice(tiles.as_flattened()).to_vec()
}

fn products(set: &KernelSet, form: Form, rows: &[usize]) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(1));
    for &rows in rows {
        for groups in [1, 2, 3, 17, 45] {
            for strips in [1, 4, 6].map(|n: usize| n.next_multiple_of(form.block_strips())) {
                let operands = Operands::random(&mut random, form, strips, groups, rows);
                let what = format!("{rows} rows, {groups} groups, {strips} strips");
                cases.same_bits(&what, &operands.multiply(set), &operands.multiply(&SCALAR))?;
            }
        }
    }
    Ok(cases.0)
}

/// All codes and all activations at the ends of their range, over rows that are long enough to overflow 16 bits.
fn extreme_products(set: &KernelSet, form: Form) -> Result<usize, String> {
    let mut cases = Cases::default();
    let groups = 70;
    for rows in [1, 2, 5, 8, 13] {
        for (trit, value) in [(-1, -128), (1, -128), (1, 127), (0, -128)] {
            let strips = packed(form, 3usize.next_multiple_of(form.block_strips()), groups, || trit);
            let q = vec![value; rows * groups * form.group_cols()];
            let what = format!("{rows} rows, trits {trit}, activations {value}");
            let operands = Operands { form, strips, groups, q };
            cases.same_bits(&what, &operands.multiply(set), &operands.multiply(&SCALAR))?;
        }
    }
    Ok(cases.0)
}

/// All 243 combinations of five trits, each column by itself.
fn every_byte(set: &KernelSet) -> Result<usize, String> {
    let mut cases = Cases::default();
    // 256 bytes: four tiles.
    let strips: Vec<u8> = (0..=255).map(|byte: u8| byte % 243).collect();
    let (form, groups) = (Form::FiveTrits, 4);
    let cols = groups * form.group_cols();
    for rows in [1, 2] {
        for col in 0..cols {
            let q = (0..rows * cols).map(|i| i8::from(i % cols == col)).collect();
            let operands = Operands { form, strips: strips.clone(), groups, q };
            let what = format!("{rows} rows, column {col}");
            cases.same_bits(&what, &operands.multiply(set), &operands.multiply(&SCALAR))?;
        }
    }
    Ok(cases.0)
}

/// Lengths of rows: shorter than a vector, with and without tails.
const LENGTHS: [usize; 9] = [1, 4, 15, 16, 17, 63, 100, 256, 1044];

fn norm_quantize(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(2));
    for n in LENGTHS {
        for scale in [0.0, 1e-6, 1.0, 3e4] {
            let x = floats(&mut random, n, scale);
            let weight = floats(&mut random, n, 2.0);
            for weight in [None, Some(&weight[..])] {
                let run = |set: &KernelSet| {
                    let (mut h, mut q) = (vec![0.0; n], vec![1i8; n.next_multiple_of(16) + 16]);
                    // SAFETY: the set is available.
                    let done = unsafe { (set.norm_quantize)(&x, weight, 1e-5, &mut h, &mut q) };
                    (h, q, [done.scale.to_bits(), done.sum as u32])
                };
                let (got, want) = (run(set), run(&SCALAR));
                let what = format!("{n} elements up to {scale}, norm: {}", weight.is_some());
                cases.same_bits(&what, &got.0, &want.0)?;
                cases.same(&what, &got.1, &want.1)?;
                cases.same(&what, &got.2, &want.2)?;
            }
        }
    }
    Ok(cases.0)
}

fn rms_norm(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(3));
    for n in LENGTHS {
        let (x, weight) = (floats(&mut random, n, 3.0), floats(&mut random, n, 2.0));
        let run = |set: &KernelSet| {
            let mut out = vec![0.0; n];
            // SAFETY: the set is available.
            unsafe { (set.rms_norm)(&x, &weight, 1e-6, &mut out) };
            out
        };
        cases.same_bits(&format!("{n} elements"), &run(set), &run(&SCALAR))?;
    }
    Ok(cases.0)
}

fn activate(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(4));
    for activation in [Activation::Relu2, Activation::Silu, Activation::Gelu] {
        for n in LENGTHS {
            let mut gate = floats(&mut random, n, 100.0);
            for (gate, extreme) in gate.iter_mut().skip(3).zip([0.0, -0.0, 88.5, -88.5, 1e9, -1e9]) {
                *gate = extreme;
            }
            let up = floats(&mut random, n, 2.0);
            let run = |set: &KernelSet| {
                let mut gate = gate.clone();
                // SAFETY: the set is available.
                unsafe { (set.activate)(activation, &mut gate, &up) };
                gate
            };
            cases.same_bits(&format!("{activation:?}, {n} elements"), &run(set), &run(&SCALAR))?;
        }
    }
    Ok(cases.0)
}

/// Keys and values of one head, encoded by the set, then attention of some queries over all ranges.
fn attend(set: &KernelSet, kv_type: KvType) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(5));
    for head_dim in [2, 20, 64, 100, 128] {
        for positions in [1, 31, 33, 75, RANGE + 9] {
            let layout = KvLayout { kv_type, head_dim };
            let rows = floats(&mut random, 2 * positions * head_dim, 2.0);
            let (got, want) = (pieces(set, layout, &rows), pieces(&SCALAR, layout, &rows));
            let what = format!("heads of {head_dim}, {positions} positions");
            cases.same(&what, &got, &want)?;
            for count in 1..=QUERIES {
                let heads = floats(&mut random, count * head_dim, 2.0);
                let limit = |h: usize| (positions + h).saturating_sub(count - 1).max(1);
                for window in [usize::MAX, 40] {
                    let queries: Vec<Query<'_>> = heads
                        .chunks_exact(head_dim)
                        .enumerate()
                        .map(|(h, head)| Query {
                            head,
                            first: limit(h).saturating_sub(window),
                            limit: limit(h),
                        })
                        .collect();
                    let states = |set| states(set, layout, &want, &queries);
                    let what = format!("{count} {what}, window {window}");
                    cases.same_bits(&what, &states(set), &states(&SCALAR))?;
                }
            }
        }
    }
    Ok(cases.0)
}

/// The pieces of all blocks, one after the other, from rows of keys and values in turn.
fn pieces(set: &KernelSet, layout: KvLayout, rows: &[f32]) -> AlignedBuf<u8> {
    let blocks = rows.len().div_ceil(2 * layout.head_dim * BLOCK_SIZE);
    let mut bytes = AlignedBuf::zeroed(blocks * layout.piece_bytes()).expect("a little memory");
    let mut row_bytes = vec![0; layout.row_bytes()];
    for (i, row) in rows.chunks_exact(layout.head_dim).enumerate() {
        let (position, part) = (i / 2, [KvPart::Key, KvPart::Value][i % 2]);
        let piece = &mut bytes[position / BLOCK_SIZE * layout.piece_bytes()..][..layout.piece_bytes()];
        // SAFETY: the set is available; the piece is whole and belongs to this thread.
        unsafe {
            let scale = (set.encode_kv)(layout.kv_type, row, &mut row_bytes);
            layout.place(piece.as_mut_ptr(), position % BLOCK_SIZE, part, &row_bytes, scale);
        }
    }
    bytes
}

/// The states of the queries after all ranges.
fn states(set: &KernelSet, layout: KvLayout, pieces: &[u8], queries: &[Query<'_>]) -> Vec<f32> {
    let mut scratch = AttendScratch::new(layout).expect("a little memory");
    let mut states = vec![0.0; queries.len() * attention::state_len(layout)];
    let positions = queries.last().map_or(0, |q| q.limit);
    let piece = |i: usize| &pieces[i * layout.piece_bytes()..(i + 1) * layout.piece_bytes()];
    for range in 0..positions.div_ceil(RANGE) {
        let a = Attend { layout, scale: 0.3, queries, range, fresh: range == 0, piece: &piece };
        // SAFETY: the set is available.
        unsafe { (set.attend)(&a, &mut scratch, &mut states) };
    }
    states
}

fn merge_states(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(9));
    for columns in [16, 64, 112] {
        for difference in [-100.0, -1.0, 0.0, 3.0, 100.0] {
            let len = attention::state_len(KvLayout { kv_type: KvType::F32, head_dim: columns });
            let (mut state, next) = (floats(&mut random, len, 2.0), floats(&mut random, len, 2.0));
            state[0] = next[0] + difference;
            let run = |set: &KernelSet| {
                let mut state = state.clone();
                // SAFETY: the set is available.
                unsafe { (set.merge_states)(&mut state, &next) };
                state
            };
            cases.same_bits(&format!("{columns} columns, {difference}"), &run(set), &run(&SCALAR))?;
        }
    }
    Ok(cases.0)
}

fn dense(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(6));
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for cols in LENGTHS {
            for (rows, scale) in [(1, 1.0), (7, 100.0), (8, 1e-6), (19, 1.0)] {
                // Small values are subnormal in half precision.
                let table = dtype.encode(&floats(&mut random, rows * cols, scale));
                let h = floats(&mut random, cols, 4.0);
                let run = |set: &KernelSet| {
                    let mut out = vec![0.0; rows];
                    // SAFETY: the set is available.
                    unsafe { (set.dense)(dtype, &table, &h, &mut out) };
                    out
                };
                let what = format!("{rows} rows of {cols} {dtype:?}");
                cases.same_bits(&what, &run(set), &run(&SCALAR))?;
            }
        }
    }
    Ok(cases.0)
}

fn int8_row(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(7));
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for n in LENGTHS {
            for scale in [0.0, 1e-3, 50.0] {
                let bytes = dtype.encode(&floats(&mut random, n, scale));
                let run = |set: &KernelSet| {
                    let (mut row, mut q) = (vec![0.0; n], vec![1i8; n]);
                    // SAFETY: the set is available.
                    let done = unsafe { (set.int8_row)(dtype, &bytes, &mut row, &mut q) };
                    (q, [done.scale, done.error, done.norm])
                };
                let (got, want) = (run(set), run(&SCALAR));
                let what = format!("{n} elements of {dtype:?} up to {scale}");
                cases.same(&what, &got.0, &want.0)?;
                cases.same_bits(&what, &got.1, &want.1)?;
            }
        }
    }
    Ok(cases.0)
}

fn int8_hidden(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(10));
    for n in LENGTHS {
        for scale in [0.0, 1e-3, 50.0] {
            let h = floats(&mut random, n, scale);
            let run = |set: &KernelSet| {
                let (mut units, mut q) = (vec![0.0; n], vec![1i8; PARTS * n.next_multiple_of(COLS_STEP)]);
                // SAFETY: the set is available.
                let done = unsafe { (set.int8_hidden)(&h, &mut units, &mut q) };
                let floats = [done.scale, done.norm, done.residual, done.relative, done.floor];
                (q, done.sums, floats)
            };
            let (got, want) = (run(set), run(&SCALAR));
            let what = format!("{n} elements up to {scale}");
            cases.same(&what, &got.0, &want.0)?;
            cases.same(&what, &got.1, &want.1)?;
            cases.same_bits(&what, &got.2, &want.2)?;
        }
    }
    Ok(cases.0)
}

fn int8_sums(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(8));
    for quads in [4, 8, 12, 16, 48, 260, 320] {
        for parts in (PARTS..=TILE_PARTS).step_by(PARTS) {
            for extreme in [None, Some(-127), Some(127)] {
                let mut weights = int8s(&mut random, quads * TILE, -127);
                let mut values = int8s(&mut random, quads * 4 * parts, -127);
                if let Some(value) = extreme {
                    weights.fill(-127);
                    values.fill(value);
                }
                let what = format!("{parts} parts of {quads} quads");
                // Sets take different numbers of parts at once.
                let run = |set: &KernelSet| {
                    let layout = PartLayout::of(set.hidden_layout, parts / PARTS, quads * 4);
                    let mut all = Vec::new();
                    for values in values.chunks(layout.stride() * quads * 4) {
                        all.extend(panel_sums(set, layout, &weights, values));
                    }
                    all
                };
                cases.same(&what, &run(set), &run(&SCALAR))?;
            }
        }
    }
    Ok(cases.0)
}

/// Sums of a panel with the hidden rows whose parts are in `values`, one after the other.
fn panel_sums(set: &KernelSet, layout: PartLayout, weights: &[i8], values: &[i8]) -> Vec<[i64; PANEL_ROWS]> {
    let cols = weights.len() / PANEL_ROWS;
    let (mut q, mut sums) = (vec![55; layout.stride() * cols], [[0; PANEL_ROWS]; TILE_PARTS]);
    let mut part_sums = Vec::new();
    for (part, values) in values.chunks_exact(cols).enumerate() {
        // SAFETY: only this thread knows the parts.
        unsafe { layout.place(values, part, Shared::new(&mut q)) };
        part_sums.push(values.iter().map(|&q| i32::from(q)).sum());
    }
    let panel = Panel { weights, q: &q, layout, part_sums: &part_sums };
    // SAFETY: the set is available.
    unsafe { (set.int8_sums)(&panel, &mut sums) };
    sums[..part_sums.len()].as_chunks().0.iter().map(totals).collect()
}

fn int8_intervals(set: &KernelSet) -> Result<usize, String> {
    let (mut cases, mut random) = (Cases::default(), Random::new(11));
    for round in 0..40 {
        let sums =
            std::array::from_fn(|_| std::array::from_fn(|_| (random.next_u64() >> 40) as i32 - (1 << 23)));
        let bounds = std::array::from_fn(|_| std::array::from_fn(|_| random.next_f32().abs()));
        let [scale, norm, residual, threshold] = std::array::from_fn(|_| random.next_f32().abs());
        let h = Hidden { scale, sums: [0; PARTS], norm, residual, relative: 2f32.powi(-21), floor: 1e-30 };
        let threshold = threshold * 1e7;
        let run = |set: &KernelSet| {
            let mut out = Intervals::NONE;
            // SAFETY: the set is available.
            let reached = unsafe { (set.int8_intervals)(&sums, &bounds, &h, threshold, &mut out) };
            (reached, out)
        };
        let (got, want) = (run(set), run(&SCALAR));
        let what = format!("round {round}");
        cases.same(&what, &[got.0], &[want.0])?;
        cases.same_bits(&what, &got.1.upper, &want.1.upper)?;
        cases.same_bits(&what, &got.1.lower, &want.1.lower)?;
    }
    Ok(cases.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_kernel_is_found() {
        let forgetful = |p: &Product<'_>, codes: &mut [u8]| {
            let factors = vec![0.5; p.factors.len()];
            // SAFETY: as for the product that this one is in the place of.
            unsafe { (SCALAR.product)(&Product { factors: &factors, ..*p }, codes) };
        };
        let wrong = KernelSet { product: forgetful, int8_sums: |_, out| out[0].fill(7), ..SCALAR };
        for (name, check) in CHECKS {
            let found = check(&wrong).is_err();
            assert_eq!(found, name.starts_with("product") || *name == "int8_sums", "{name}");
            assert!(check(&SCALAR).is_ok(), "{name}");
        }
    }
}
