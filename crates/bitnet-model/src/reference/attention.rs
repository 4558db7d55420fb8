//! Attention of the oracle over keys and values of each [`KvType`].

use bitnet_core::lanes;

use super::BLOCK_SIZE;
use crate::ModelSpec;
use crate::kv::{self, INT8_BLOCK, KvType, RANGE};
use crate::kv_rows::{KvPart, row_scale};

/// Keys and values of one layer: `[block][slot][kv_size]` each, as the type rounds them. For int8 the elements are whole
/// numbers, and each row of a head has a scale, `[block][slot][kv_heads]`.
pub(super) struct LayerCache {
    kv_type: KvType,
    head_dim: usize,
    kv_heads: usize,
    /// What scores are multiplied by.
    scale: f32,
    keys: Rows,
    values: Rows,
}

#[derive(Default)]
struct Rows {
    elements: Vec<f32>,
    scales: Vec<f32>,
}

/// Softmax and weighted values of some positions: `out / sum`, for scores of which `max` is the largest.
struct Partial {
    max: f32,
    sum: f32,
    out: Vec<f32>,
}

impl LayerCache {
    pub(super) fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        let (head_dim, kv_heads, scale) = (spec.head_dim, spec.num_kv_heads, spec.attention_scale());
        Self { kv_type, head_dim, kv_heads, scale, keys: Rows::default(), values: Rows::default() }
    }

    /// Room for `blocks` blocks.
    pub(super) fn resize(&mut self, blocks: usize) {
        let heads = blocks * BLOCK_SIZE * self.kv_heads;
        for rows in [&mut self.keys, &mut self.values] {
            rows.elements.resize(heads * self.head_dim, 0.0);
            rows.scales.resize(heads, 1.0);
        }
    }

    /// Copies one block to another.
    pub(super) fn copy(&mut self, from: usize, to: usize) {
        let heads = BLOCK_SIZE * self.kv_heads;
        for rows in [&mut self.keys, &mut self.values] {
            for (values, len) in [(&mut rows.elements, heads * self.head_dim), (&mut rows.scales, heads)] {
                values.copy_within(from * len..(from + 1) * len, to * len);
            }
        }
    }

    /// Writes the row of one head in a slot as bytes.
    pub(super) fn give_row(&self, slot: usize, part: KvPart, head: usize, out: &mut [u8]) {
        let (index, d) = (slot * self.kv_heads + head, self.head_dim);
        let rows = if part == KvPart::Key { &self.keys } else { &self.values };
        let elements = &rows.elements[index * d..][..d];
        match self.kv_type {
            KvType::F32 => {
                let out = out.as_chunks_mut().0.iter_mut().zip(elements);
                out.for_each(|(o, x)| *o = x.to_le_bytes());
            }
            KvType::F16 => {
                let out = out.as_chunks_mut().0.iter_mut().zip(elements);
                out.for_each(|(o, &x)| *o = kv::f16_bits(x).to_le_bytes());
            }
            KvType::Int8 => {
                let (q, scale) = out.split_at_mut(d);
                q.iter_mut().zip(elements).for_each(|(o, &x)| *o = (x as i8).cast_unsigned());
                scale.copy_from_slice(&rows.scales[index].to_le_bytes());
            }
        }
    }

    /// Takes the row of one head in a slot from bytes.
    pub(super) fn take_row(&mut self, slot: usize, part: KvPart, head: usize, row: &[u8]) {
        let (index, d) = (slot * self.kv_heads + head, self.head_dim);
        let rows = if part == KvPart::Key { &mut self.keys } else { &mut self.values };
        let elements = rows.elements[index * d..][..d].iter_mut();
        match self.kv_type {
            KvType::F32 => {
                elements.zip(row.as_chunks().0).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
            }
            KvType::F16 => {
                let value = |bytes| kv::f16_value(u16::from_le_bytes(bytes));
                elements.zip(row.as_chunks().0).for_each(|(x, bytes)| *x = value(*bytes));
            }
            KvType::Int8 => {
                elements.zip(row).for_each(|(x, q)| *x = f32::from(q.cast_signed()));
                rows.scales[index] = row_scale(&row[d..]);
            }
        }
    }

    /// Bytes of one block in this type.
    pub(super) fn block_bytes(&self) -> usize {
        let (row, scale) = match self.kv_type {
            KvType::F32 => (4 * self.head_dim, 0),
            KvType::F16 => (2 * self.head_dim, 0),
            KvType::Int8 => (self.head_dim, 4),
        };
        2 * BLOCK_SIZE * self.kv_heads * (row + scale)
    }

    /// Stores the keys and values of all heads in a slot.
    pub(super) fn store(&mut self, slot: usize, keys: &[f32], values: &[f32]) {
        for (rows, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            for (head, row) in new.chunks_exact(self.head_dim).enumerate() {
                let index = slot * self.kv_heads + head;
                let out = &mut rows.elements[index * self.head_dim..][..self.head_dim];
                match self.kv_type {
                    KvType::F32 => out.copy_from_slice(row),
                    KvType::F16 => {
                        for (o, &x) in out.iter_mut().zip(row) {
                            *o = kv::f16_value(kv::f16_bits(x));
                        }
                    }
                    KvType::Int8 => {
                        let (q, scale) = quantized(row);
                        rows.scales[index] = scale;
                        for (o, q) in out.iter_mut().zip(q) {
                            *o = f32::from(q);
                        }
                    }
                }
            }
        }
    }

    fn row<'a>(&self, rows: &'a Rows, blocks: &[u32], position: usize, head: usize) -> (&'a [f32], f32) {
        let index = slot(blocks, position) * self.kv_heads + head;
        (&rows.elements[index * self.head_dim..][..self.head_dim], rows.scales[index])
    }

    /// Scores of one query with the keys of `positions`.
    fn scores(
        &self,
        blocks: &[u32],
        head: usize,
        positions: std::ops::Range<usize>,
        query: &[f32],
    ) -> Vec<f32> {
        let scale = self.scale;
        if self.kv_type == KvType::Int8 {
            let (q, query_scale) = quantized(query);
            let factor = query_scale * scale;
            let score = |j| {
                let (key, key_scale) = self.row(&self.keys, blocks, j, head);
                let sum: i32 = q.iter().zip(key).map(|(&q, &k)| i32::from(q) * k as i32).sum();
                sum as f32 * (factor * key_scale)
            };
            return positions.map(score).collect();
        }
        let score = |j| {
            let (key, _) = self.row(&self.keys, blocks, j, head);
            query.iter().zip(key).fold(0.0f32, |s, (q, k)| q.mul_add(*k, s)) * scale
        };
        positions.map(score).collect()
    }

    /// Adds up the values of the positions from `start` on, times their weights.
    fn weigh(&self, blocks: &[u32], head: usize, start: usize, weights: &[f32], out: &mut [f32]) {
        if self.kv_type != KvType::Int8 {
            for (j, w) in weights.iter().enumerate() {
                let (value, _) = self.row(&self.values, blocks, start + j, head);
                for (o, v) in out.iter_mut().zip(value) {
                    *o = w.mul_add(*v, *o);
                }
            }
            return;
        }
        for (b, weights) in weights.chunks(INT8_BLOCK).enumerate() {
            let rows: Vec<(&[f32], f32)> = (0..weights.len())
                .map(|j| self.row(&self.values, blocks, start + b * INT8_BLOCK + j, head))
                .collect();
            let scaled: Vec<f32> = weights.iter().zip(&rows).map(|(w, (_, scale))| w * scale).collect();
            let mut q = vec![0u8; scaled.len()];
            let factor = kv::quantize_weights(&scaled, &mut q);
            for (i, o) in out.iter_mut().enumerate() {
                let sum: i32 =
                    q.iter().zip(&rows).map(|(&q, (value, _))| i32::from(q) * value[i] as i32).sum();
                *o = (sum as f32).mul_add(factor, *o);
            }
        }
    }
}

/// Index of the cache slot of a position.
pub(super) fn slot(blocks: &[u32], position: usize) -> usize {
    blocks[position / BLOCK_SIZE] as usize * BLOCK_SIZE + position % BLOCK_SIZE
}

fn quantized(row: &[f32]) -> (Vec<i8>, f32) {
    let mut q = vec![0; row.len()];
    let scale = kv::quantize_row(row, &mut q);
    (q, scale)
}

impl Partial {
    /// Puts the softmax of later positions beside this one.
    fn merge(&mut self, next: &Partial) {
        let max = if next.max > self.max { next.max } else { self.max };
        let (old, new) = (lanes::exp(self.max - max), lanes::exp(next.max - max));
        self.sum = next.sum.mul_add(new, self.sum * old);
        for (o, n) in self.out.iter_mut().zip(&next.out) {
            *o = n.mul_add(new, *o * old);
        }
        self.max = max;
    }
}

/// Grouped-query attention of one token over positions `first..=position`, where `first` is 0 but for the sliding window.
///
/// In each range of [`RANGE`] positions: scores are sums over the head in ascending order, times a scale; weights are
/// `exp(score - max)`, and 0 at positions before `first`; the weighted values are summed in ascending order of positions.
/// Ranges are merged in order, and the result is multiplied by the reciprocal of the sum of the weights.
pub(super) fn attention(
    spec: &ModelSpec,
    layer: usize,
    cache: &LayerCache,
    blocks: &[u32],
    position: usize,
    query: &[f32],
) -> Vec<f32> {
    let d = spec.head_dim;
    let group = spec.num_heads / spec.num_kv_heads;
    let first = spec.first_position(layer, position);
    let mut out = Vec::with_capacity(query.len());
    for (head, query) in query.chunks_exact(d).enumerate() {
        let mut state: Option<Partial> = None;
        for start in (first / RANGE * RANGE..=position).step_by(RANGE) {
            let end = (position + 1).min(start + RANGE);
            let scores = cache.scores(blocks, head / group, start.max(first)..end, query);
            let max = lanes::max(&scores);
            let mut weights = vec![0.0; first.saturating_sub(start)];
            weights.extend(scores.iter().map(|score| lanes::exp(score - max)));
            let mut next = Partial { max, sum: lanes::sum(&weights), out: vec![0.0; d] };
            cache.weigh(blocks, head / group, start, &weights, &mut next.out);
            match &mut state {
                None => state = Some(next),
                Some(state) => state.merge(&next),
            }
        }
        if let Some(state) = state {
            let inverse = 1.0 / state.sum;
            out.extend(state.out.iter().map(|o| o * inverse));
        }
    }
    out
}
