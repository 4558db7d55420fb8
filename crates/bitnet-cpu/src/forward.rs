//! One forward pass, as every thread of the team runs it.
//!
//! A pass is a sequence of phases between barriers. Within a phase a thread owns a share of the outputs: output strips
//! in products, rows in norms, heads in attention. With a single row (decoding) every thread norms and quantises that
//! row for itself, which is cheaper than a barrier.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::pool::Team;
use bitnet_model::Sequence;

use crate::attention::{Attention, Heads};
use crate::kernels::{Product, RowLayout};
use crate::kv::KvCache;
use crate::layout::{STRIP_ROWS, Strips};
use crate::model::{Layer, Model};
use crate::outcome::Outcome;
use crate::output::{FullLogits, logit_row_indices};
use crate::schedule::Ranges;
use crate::scratch::{
    FfnScratch, PRODUCTS, ProductScratch, RopeTable, RowScratch, Scratch, ThreadScratch, Widths,
};
use crate::search::{OutputShared, Scan};
use crate::shared::Shared;
use crate::want::{RowWants, Want};

/// Strips of gate and up that are computed together, so that the activation finds them in cache.
pub(crate) const FFN_STRIPS: usize = 8;
/// Outputs of these strips: the length of a row of [`FfnScratch`].
pub(crate) const FFN_STRIDE: usize = FFN_STRIPS * STRIP_ROWS;
/// How many rows ahead memory is asked for the results of the activation.
const AHEAD: usize = 4;

/// One pass, shared by all threads.
pub(crate) struct Pass<'a> {
    model: &'a Model,
    sequences: &'a [Sequence<'a>],
    rows: usize,
    logit_rows: usize,
    widths: Widths,
    x: Shared<'a, f32>,
    attention: Attention<'a>,
    gate: Shared<'a, f32>,
    branch: Shared<'a, f32>,
    q: Shared<'a, i8>,
    scales: Shared<'a, f32>,
    sums: Shared<'a, i32>,
    normed: Shared<'a, f32>,
    output: OutputShared<'a>,
    threads: Shared<'a, ThreadScratch>,
    /// For each product of the pass, the pieces of work given out so far.
    pieces: &'a [AtomicUsize],
    want: Want<'a>,
    outcome: &'a Outcome,
    /// Rows that stand for those of the embedding, `[rows, hidden_size]`.
    input: Option<&'a [f32]>,
}

/// Quantised rows as a product reads them.
#[derive(Clone, Copy)]
struct QuantizedRows<'a> {
    q: &'a [i8],
    layout: RowLayout,
    scales: &'a [f32],
    sums: &'a [i32],
}

/// Where a product writes.
#[derive(Clone, Copy)]
struct Target<'t> {
    out: Shared<'t, f32>,
    stride: usize,
    /// The strip whose outputs are the first of a row.
    first: usize,
    /// Whether to add to what is there.
    accumulate: bool,
}

/// A product: some strips, the counter of the pieces of its work, and where it writes.
struct Job<'a> {
    strips: &'a Strips,
    span: Range<usize>,
    pieces: &'a AtomicUsize,
    target: Target<'a>,
}

/// Some strips of gate or up, by themselves.
fn few_strips<'t>(out: &'t mut [f32], part: &Range<usize>) -> Target<'t> {
    Target { out: Shared::new(out), stride: FFN_STRIDE, first: part.start, accumulate: false }
}

/// Ranges of strips in parts of at most [`FFN_STRIPS`].
fn ffn_parts(ranges: Ranges<'_>) -> impl Iterator<Item = Range<usize>> {
    ranges.flat_map(|r| r.clone().step_by(FFN_STRIPS).map(move |s| s..r.end.min(s + FFN_STRIPS)))
}

/// Where a norm finds its rows.
struct Source<'a> {
    rows: Shared<'a, f32>,
    stride: usize,
    len: usize,
    /// A norm before the last one.
    first: Option<&'a [f32]>,
    norm: Option<&'a [f32]>,
    /// Length of a quantised row, padded.
    padded: usize,
}

impl<'a> Source<'a> {
    /// The same rows, normed once more.
    fn then(&self, norm: &'a [f32]) -> Self {
        Self { first: self.norm, norm: Some(norm), ..*self }
    }
}

impl<'a> Pass<'a> {
    /// Prepares a pass; `scratch` has room for it.
    pub(crate) fn new(
        model: &'a Model,
        kv: &'a KvCache,
        rope: &'a RopeTable,
        scratch: &'a mut Scratch,
        sequences: &'a [Sequence<'a>],
        want: Want<'a>,
        outcome: &'a Outcome,
    ) -> Self {
        for pieces in scratch.pieces.iter().chain(&scratch.units) {
            pieces.store(0, Ordering::Relaxed);
        }
        let widths = scratch.widths();
        let attention = Attention {
            spec: &model.spec,
            kernels: model.kernels,
            kv,
            rope,
            sequences,
            qkv: Shared::new(&mut scratch.qkv),
            qkv_stride: widths.qkv,
            out: Shared::new(&mut scratch.attention),
            out_stride: widths.attention,
            states: Shared::new(&mut scratch.states),
            units: &scratch.units,
        };
        Self {
            model,
            sequences,
            rows: sequences.iter().map(|s| s.tokens.len()).sum(),
            logit_rows: sequences.iter().map(Sequence::logit_rows).sum(),
            widths,
            x: Shared::new(&mut scratch.x),
            attention,
            gate: Shared::new(&mut scratch.gate),
            branch: Shared::new(&mut scratch.branch),
            q: Shared::new(&mut scratch.q),
            scales: Shared::new(&mut scratch.scales),
            sums: Shared::new(&mut scratch.sums),
            normed: Shared::new(&mut scratch.normed),
            output: scratch.output.share(),
            threads: Shared::new(&mut scratch.threads),
            pieces: &scratch.pieces,
            want,
            outcome,
            input: None,
        }
    }

    /// Begins with these rows, one a token, instead of rows of the embedding.
    pub(crate) fn on_rows(self, input: Option<&'a [f32]>) -> Self {
        Self { input, ..self }
    }

    /// Runs the pass; every thread of the team calls this.
    pub(crate) fn run(&self, team: &Team<'_>) {
        // SAFETY: each thread takes only its own scratch.
        let own = unsafe { &mut self.threads.get_mut(team.index()..team.index() + 1)[0] };
        self.embed(team, own);
        team.barrier();
        for (index, layer) in self.model.layers.iter().enumerate() {
            self.attention_part(index, layer, team, own);
            self.ffn_part(index, layer, team, own);
        }
        self.output_part(team, own);
    }

    /// Calls `f` with row number, sequence and position of each row in `rows`.
    fn for_rows(&self, rows: Range<usize>, mut f: impl FnMut(usize, &'a Sequence<'a>, usize)) {
        let mut start = 0;
        for s in self.sequences {
            let end = start + s.tokens.len();
            for row in rows.start.max(start)..rows.end.min(end) {
                f(row, s, s.position + row - start);
            }
            start = end;
        }
    }

    fn embed(&self, team: &Team<'_>, own: &mut ThreadScratch) {
        let (hidden, embedding) = (self.model.spec.hidden_size, &self.model.embedding);
        let scale = self.model.spec.extras.scaled_embedding.then(|| self.model.spec.embedding_scale());
        self.for_rows(team.share(self.rows), |row, s, position| {
            let token = s.tokens[position - s.position] as usize;
            let at = row * self.widths.hidden;
            // SAFETY: rows are shared out; padding beyond `hidden` stays as it is and is never read.
            let x = unsafe { self.x.get_mut(at..at + hidden) };
            match self.input {
                Some(rows) => x.copy_from_slice(&rows[row * hidden..(row + 1) * hidden]),
                None => {
                    if let Err(error) = embedding.read_row(token, &mut own.output.bytes, x) {
                        self.outcome.fail(error);
                    }
                }
            }
            if let Some(scale) = scale {
                x.iter_mut().for_each(|x| *x *= scale);
            }
        });
    }

    fn attention_part(&self, index: usize, layer: &'a Layer, team: &Team<'_>, own: &mut ThreadScratch) {
        let spec = &self.model.spec;
        self.queries_keys_values(index, layer, team, own);
        let starts = std::array::from_fn(|i| layer.qkv.parts()[i].strips.start * STRIP_ROWS);
        let heads = Heads { starts, norms: layer.extras.head_norms.as_ref() };
        self.attention.run(index, heads, team, own);
        team.barrier();
        let source = Source {
            rows: self.attention.out,
            stride: self.widths.attention,
            len: spec.q_size(),
            first: None,
            norm: layer.attn_sub_norm.as_deref(),
            padded: layer.o.padded_cols(),
        };
        let post = layer.extras.post_norms.as_ref().map(|[attention, _]| attention.as_slice());
        self.add_branch(&source, &self.job(index, 3, &layer.o, self.stream(post)), post, team, own);
    }

    /// Queries, keys and values: one product, or three where each quantises a row of its own.
    fn queries_keys_values(&self, index: usize, layer: &'a Layer, team: &Team<'_>, own: &mut ThreadScratch) {
        let target = Target { out: self.attention.qkv, stride: self.widths.qkv, first: 0, accumulate: false };
        let source = self.residual(&layer.attn_norm, &layer.qkv);
        let Some(norms) = &layer.extras.projection_norms else {
            self.multiply(&source, &self.job(index, 0, &layer.qkv, target), team, own);
            return team.barrier();
        };
        for (i, (part, norm)) in layer.qkv.parts().iter().zip(norms).enumerate() {
            let job = Job { span: part.strips.clone(), ..self.job(index, i, &layer.qkv, target) };
            self.multiply(&source.then(norm), &job, team, own);
            // The next rows are quantised to where these are.
            team.barrier();
        }
    }

    fn ffn_part(&self, index: usize, layer: &'a Layer, team: &Team<'_>, own: &mut ThreadScratch) {
        match &layer.extras.projection_norms {
            None => self.gate_and_up(index, layer, team, own),
            Some([.., gate, up]) => self.gate_then_up(index, layer, [gate, up], team, own),
        }
        team.barrier();
        let source = Source {
            rows: self.gate,
            stride: self.widths.ffn,
            len: self.model.spec.intermediate_size,
            first: None,
            norm: layer.ffn_sub_norm.as_deref(),
            padded: layer.down.padded_cols(),
        };
        let post = layer.extras.post_norms.as_ref().map(|[_, ffn]| ffn.as_slice());
        self.add_branch(&source, &self.job(index, 6, &layer.down, self.stream(post)), post, team, own);
    }

    /// Gate and up side by side, of the same quantised rows.
    fn gate_and_up(&self, index: usize, layer: &'a Layer, team: &Team<'_>, own: &mut ThreadScratch) {
        let source = self.residual(&layer.ffn_norm, &layer.gate);
        let rows = self.quantize(&source, team, &mut own.row);
        let pieces = &self.pieces[PRODUCTS * index + 4];
        for part in ffn_parts(Ranges::new(team, layer.gate.strips(), pieces)) {
            for (strips, out) in [(&layer.gate, &mut own.ffn.gate), (&layer.up, &mut own.ffn.up)] {
                self.product(strips, part.clone(), rows, &mut own.product, few_strips(out, &part));
            }
            self.activate(part, &mut own.ffn);
        }
    }

    /// Gate, then up of rows with another norm.
    fn gate_then_up(
        &self,
        index: usize,
        layer: &'a Layer,
        [gate_norm, up_norm]: [&'a [f32]; 2],
        team: &Team<'_>,
        own: &mut ThreadScratch,
    ) {
        let source = self.residual(&layer.ffn_norm, &layer.gate);
        let target = Target { out: self.gate, stride: self.widths.ffn, first: 0, accumulate: false };
        self.multiply(&source.then(gate_norm), &self.job(index, 4, &layer.gate, target), team, own);
        team.barrier();
        let rows = self.quantize(&source.then(up_norm), team, &mut own.row);
        let pieces = &self.pieces[PRODUCTS * index + 5];
        for part in ffn_parts(Ranges::new(team, layer.up.strips(), pieces)) {
            let up = few_strips(&mut own.ffn.up, &part);
            self.product(&layer.up, part.clone(), rows, &mut own.product, up);
            for row in 0..self.rows {
                // SAFETY: these strips belong to this thread; the kernel set is available.
                unsafe {
                    let gate = self.gate.get_mut(self.ffn_at(row, &part));
                    let up = &own.ffn.up[row * FFN_STRIDE..][..gate.len()];
                    (self.model.kernels.activate)(self.model.spec.activation, gate, up);
                }
            }
        }
    }

    /// Where the results of some strips of the feed-forward part are in a row of [`Pass::gate`].
    fn ffn_at(&self, row: usize, part: &Range<usize>) -> Range<usize> {
        let start = row * self.widths.ffn;
        start + part.start * STRIP_ROWS..start + part.end * STRIP_ROWS
    }

    /// The activated product of gate and up, both of some strips. They stayed in cache; only what comes of them goes to
    /// memory.
    fn activate(&self, part: Range<usize>, own: &mut FfnScratch) {
        let len = part.len() * STRIP_ROWS;
        for row in 0..self.rows {
            if row + AHEAD < self.rows {
                self.gate.prefetch(self.ffn_at(row + AHEAD, &part));
            }
            let (gate, up) = (&mut own.gate[row * FFN_STRIDE..][..len], &own.up[row * FFN_STRIDE..][..len]);
            // SAFETY: these strips belong to this thread; the kernel set is available.
            unsafe {
                (self.model.kernels.activate)(self.model.spec.activation, gate, up);
                self.gate.get_mut(self.ffn_at(row, &part)).copy_from_slice(gate);
            }
        }
    }

    /// Where a product goes whose result is added to the stream: there, or aside if it is normed first.
    fn stream(&self, post: Option<&[f32]>) -> Target<'a> {
        let out = if post.is_some() { self.branch } else { self.x };
        Target { out, stride: self.widths.hidden, first: 0, accumulate: post.is_none() }
    }

    /// Product number `number` of a layer.
    fn job(&self, layer: usize, number: usize, strips: &'a Strips, target: Target<'a>) -> Job<'a> {
        let pieces = &self.pieces[PRODUCTS * layer + number];
        Job { strips, span: 0..strips.strips(), pieces, target }
    }

    /// A product that is added to the stream, normed first if there is a norm for it. Ends with a barrier.
    fn add_branch(
        &self,
        source: &Source<'_>,
        job: &Job<'a>,
        post: Option<&[f32]>,
        team: &Team<'_>,
        own: &mut ThreadScratch,
    ) {
        self.multiply(source, job, team, own);
        team.barrier();
        let Some(norm) = post else { return };
        let (hidden, eps) = (self.model.spec.hidden_size, self.model.spec.rms_norm_eps);
        let h = &mut own.row.h[..hidden];
        for row in team.share(self.rows) {
            let range = row * self.widths.hidden..row * self.widths.hidden + hidden;
            // SAFETY: rows are shared out, and what is normed is only read; the kernel set is available.
            unsafe {
                (self.model.kernels.rms_norm)(self.branch.get(range.clone()), norm, eps, h);
                for (x, y) in self.x.get_mut(range).iter_mut().zip(&*h) {
                    *x += y;
                }
            }
        }
        team.barrier();
    }

    /// The residual stream as the source of a product.
    fn residual(&self, norm: &'a [f32], strips: &Strips) -> Source<'a> {
        let len = self.model.spec.hidden_size;
        Source {
            rows: self.x,
            stride: self.widths.hidden,
            len,
            first: None,
            norm: Some(norm),
            padded: strips.padded_cols(),
        }
    }

    /// Norms and quantises the rows: the only row by every thread for itself, several rows shared out, with a barrier.
    fn quantize<'b>(&self, source: &Source<'_>, team: &Team<'_>, own: &'b mut RowScratch) -> QuantizedRows<'b>
    where
        'a: 'b,
    {
        let eps = self.model.spec.rms_norm_eps;
        let kernels = self.model.kernels;
        let (h, chained) = (&mut own.h[..source.len], &mut own.chained);
        // SAFETY: the source is only read in this phase; the kernel set is available.
        let mut norm_quantize = |row: usize, q: &mut [i8]| unsafe {
            let mut x = source.rows.get(row * source.stride..row * source.stride + source.len);
            if let Some(first) = source.first {
                (kernels.rms_norm)(x, first, eps, &mut chained[..source.len]);
                x = &chained[..source.len];
            }
            (kernels.norm_quantize)(x, source.norm, eps, h, q)
        };
        if self.rows == 1 {
            let done = norm_quantize(0, &mut own.q[..source.padded]);
            (own.scale, own.sum) = ([done.scale], [done.sum]);
            return QuantizedRows {
                q: &own.q[..source.padded],
                layout: RowLayout::Single,
                scales: &own.scale,
                sums: &own.sum,
            };
        }
        let layout = self.model.kernels.row_layout(self.rows);
        for row in team.share(self.rows) {
            let q = &mut own.q[..source.padded];
            let done = norm_quantize(row, q);
            // SAFETY: rows are shared out.
            unsafe {
                layout.place(q, row, self.q);
                self.scales.get_mut(row..row + 1)[0] = done.scale;
                self.sums.get_mut(row..row + 1)[0] = done.sum;
            }
        }
        team.barrier();
        // SAFETY: these are written again only in a later phase.
        unsafe {
            QuantizedRows {
                q: self.q.get(0..layout.len(self.rows, source.padded)),
                layout,
                scales: self.scales.get(0..self.rows),
                sums: self.sums.get(0..self.rows),
            }
        }
    }

    /// Quantises the source and computes what falls to this thread of its product.
    fn multiply(&self, source: &Source<'_>, job: &Job<'a>, team: &Team<'_>, own: &mut ThreadScratch) {
        let rows = self.quantize(source, team, &mut own.row);
        for range in Ranges::new(team, job.span.len(), job.pieces) {
            let range = job.span.start + range.start..job.span.start + range.end;
            self.product(job.strips, range, rows, &mut own.product, job.target);
        }
    }

    /// Products of a range of strips, which may reach over several matrices.
    fn product(
        &self,
        strips: &Strips,
        range: Range<usize>,
        rows: QuantizedRows<'_>,
        scratch: &mut ProductScratch,
        target: Target<'_>,
    ) {
        let Target { out, stride, first, accumulate } = target;
        for part in strips.parts() {
            let within = range.start.max(part.strips.start)..range.end.min(part.strips.end);
            if within.is_empty() {
                continue;
            }
            assert!((self.rows - 1) * stride + (within.end - first) * STRIP_ROWS <= out.len());
            let factors = &mut scratch.factors[..self.rows];
            for (f, s) in factors.iter_mut().zip(rows.scales) {
                *f = part.scale / s;
            }
            // SAFETY: the outputs are inside `out` by the check above, belong to strips of this thread only, and are
            // not read in this phase; the kernel set is available.
            unsafe {
                let product = Product {
                    form: strips.form(),
                    strips: strips.range(within.clone()),
                    strip_bytes: strips.strip_bytes(),
                    q: rows.q,
                    layout: rows.layout,
                    row_sums: rows.sums,
                    factors,
                    out: out.as_mut_ptr().add((within.start - first) * STRIP_ROWS),
                    stride,
                    accumulate,
                };
                (self.model.kernels.product)(&product, &mut scratch.codes);
            }
        }
    }

    /// Final norm and output layer of the rows that need logits.
    fn output_part(&self, team: &Team<'_>, own: &mut ThreadScratch) {
        if self.logit_rows == 0 {
            return;
        }
        let (hidden, stride) = (self.model.spec.hidden_size, self.widths.hidden);
        let scan = self.scan();
        let scanned = scan.as_ref().map_or(0, |scan| scan.rows);
        let share = team.share(self.logit_rows);
        // Rows that are scanned come first.
        let mut places = [0, scanned];
        for (i, row) in logit_row_indices(self.sequences).enumerate() {
            let place = &mut places[usize::from(!self.is_top(i) && !self.approximate())];
            let place = std::mem::replace(place, *place + 1);
            if share.contains(&i) {
                // SAFETY: rows are shared out, the residual stream is only read; the kernel set is available.
                unsafe {
                    let x = self.x.get(row * stride..row * stride + hidden);
                    let out = self.normed.get_mut(place * stride..place * stride + hidden);
                    (self.model.kernels.rms_norm)(
                        x,
                        &self.model.final_norm,
                        self.model.spec.rms_norm_eps,
                        out,
                    );
                    if let Some(scan) = scan.as_ref().filter(|scan| place < scan.rows) {
                        scan.quantize(place, &mut own.output);
                    }
                    if let Want::Hidden(rows) = &self.want {
                        self.give_hidden(out, rows.get_mut(i * hidden..(i + 1) * hidden));
                    }
                }
            }
        }
        let Want::Logits { rows, logits, top } = &self.want else { return };
        team.barrier();
        // SAFETY: all threads call the same; normed and quantised rows are only read from here on.
        unsafe {
            match (rows, &scan) {
                (_, None) => {}
                (RowWants::All, Some(scan)) => scan.approximate(team, *logits),
                (wants, Some(scan)) => scan.top(team, *wants, &mut own.output, *top),
            }
            if scanned < self.logit_rows {
                let full = FullLogits {
                    kernels: self.model.kernels,
                    output: &self.model.output,
                    h: self.normed,
                    stride,
                    rows: scanned..self.logit_rows,
                    resident: self.model.int8.is_none(),
                    outcome: self.outcome,
                };
                full.run(team, &mut own.output.bytes, *logits);
            }
        }
    }

    /// Copies a hidden row to the result.
    fn give_hidden(&self, row: &[f32], out: &mut [f32]) {
        out.copy_from_slice(row);
        if row.iter().any(|x| !x.is_finite()) {
            self.outcome.not_finite();
        }
    }

    /// Whether a logit row wants its largest logits.
    fn is_top(&self, row: usize) -> bool {
        matches!(&self.want, Want::Logits { rows, .. } if rows.is_top(row))
    }

    /// Whether all logits are those of the int8 rows alone.
    fn approximate(&self) -> bool {
        self.model.int8.as_ref().is_some_and(|int8| !int8.is_exact())
    }

    /// The scan of the int8 rows, if something that is wanted comes from them.
    fn scan(&self) -> Option<Scan<'a>> {
        let int8 = self.model.int8.as_ref()?;
        let Want::Logits { rows, .. } = &self.want else { return None };
        let rows = if self.approximate() { self.logit_rows } else { rows.tops(self.logit_rows) };
        (rows > 0).then_some(Scan {
            kernels: self.model.kernels,
            int8,
            dense: &self.model.output,
            h: self.normed,
            stride: self.widths.hidden,
            rows,
            scratch: self.output,
            outcome: self.outcome,
        })
    }
}
