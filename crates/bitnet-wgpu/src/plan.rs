//! [`Plan`]: what the host tells kernels about a pass: rows, block tables, angles, work of attention, wanted logits.
//!
//! All of it is one buffer of words (`inputs`) and one of parameter records (`Call`), written once a pass.

use bitnet_model::reference::rope_angles;
use bitnet_model::{Batch, LogitRows, ModelSpec, Sequence};

use crate::kernels::Call;
use crate::kv::BLOCK_SIZE;

/// Positions with a softmax of their own.
const RANGE: usize = bitnet_model::kv::RANGE;
/// Words of a row's record.
const ROW_WORDS: usize = 8;

/// Rows of attention that are computed together, as far as memory for partial results goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Its record among the calls.
    pub(crate) call: usize,
    /// Work items of attention.
    pub(crate) items: u32,
    /// Rows.
    pub(crate) rows: u32,
}

/// Rows of the output layer that one dispatch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputSlice {
    /// Its record among the calls.
    pub(crate) call: usize,
    /// Rows.
    pub(crate) rows: usize,
}

/// What is looked for in a row of logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopRow<'a> {
    /// The row of the logits on the device.
    pub(crate) row: usize,
    /// The hidden row that they are of.
    pub(crate) hidden: usize,
    /// How many, at least one.
    pub(crate) k: usize,
    /// The tokens that count, as words of bits, if not all do.
    pub(crate) allowed: Option<bitnet_model::TokenSet<'a>>,
}

/// Angles of positions, computed when they are first needed.
#[derive(Debug)]
pub(crate) struct Angles {
    sliding: bool,
    known: Vec<bool>,
    /// `[position][cosines, sines]`.
    values: Vec<f32>,
}

impl Angles {
    fn new(sliding: bool) -> Self {
        Self { sliding, known: Vec::new(), values: Vec::new() }
    }

    /// Cosines and sines of a position.
    fn of(&mut self, spec: &ModelSpec, position: usize) -> &[f32] {
        let width = spec.head_dim;
        if position >= self.known.len() {
            let room = (position + 1).next_power_of_two();
            self.known.resize(room, false);
            self.values.resize(room * width, 0.0);
        }
        let values = &mut self.values[position * width..][..width];
        if !self.known[position] {
            let (cos, sin) = values.split_at_mut(width / 2);
            rope_angles(spec, self.sliding, position, cos, sin);
            self.known[position] = true;
        }
        values
    }
}

/// Cuts a batch into passes of at most `most` tokens.
pub(crate) fn passes<'a>(batch: &Batch<'a>, most: usize) -> Vec<Vec<Sequence<'a>>> {
    let (mut passes, mut pass, mut room) = (Vec::new(), Vec::new(), most);
    for s in batch.sequences {
        let mut start = 0;
        while start < s.tokens.len() {
            let end = s.tokens.len().min(start + room);
            let last = end == s.tokens.len();
            let logits = if last || s.logits == LogitRows::All { s.logits } else { LogitRows::None };
            pass.push(Sequence { tokens: &s.tokens[start..end], position: s.position + start, logits, ..*s });
            room -= end - start;
            start = end;
            if room == 0 {
                passes.push(std::mem::take(&mut pass));
                room = most;
            }
        }
    }
    if !pass.is_empty() {
        passes.push(pass);
    }
    passes
}

/// What a pass needs to know. Its memory is used again for the next.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<u32>,
    pub(crate) calls: Vec<Call>,
    /// Attention of layers without and with a sliding window.
    pub(crate) slices: [Vec<Slice>; 2],
    pub(crate) rows: usize,
    pub(crate) logit_rows: usize,
    /// Whether some text has several new tokens.
    pub(crate) tiled: bool,
    /// Most partial results of a slice.
    pub(crate) partials: usize,
    angles: [Angles; 2],
}

/// What limits a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of a text that a work item of attention has, if texts have several.
    pub(crate) tile: usize,
    /// Partial results (of a row and range) that there is memory for.
    pub(crate) partials: usize,
}

impl Plan {
    pub(crate) fn new() -> Self {
        Self {
            inputs: Vec::new(),
            calls: Vec::new(),
            slices: [Vec::new(), Vec::new()],
            rows: 0,
            logit_rows: 0,
            tiled: false,
            partials: 0,
            angles: [Angles::new(false), Angles::new(true)],
        }
    }

    /// Plans a pass of some sequences.
    pub(crate) fn start(&mut self, spec: &ModelSpec, sequences: &[Sequence<'_>], limits: Limits) {
        let batch = Batch { sequences };
        (self.rows, self.logit_rows, self.partials) = (batch.tokens(), batch.logit_rows(), 0);
        self.tiled = sequences.iter().any(|s| s.tokens.len() > 1);
        self.inputs.clear();
        // Word 0 is nobody's, so that a place of 0 can mean "none".
        self.inputs.push(0);
        let mut call = Call { rows: self.rows as u32, rows_at: 1, ..Call::default() };
        self.inputs.resize(1 + ROW_WORDS * self.rows, 0);
        self.add_rows(sequences);
        call.logit_at = self.inputs.len() as u32;
        self.inputs.extend(logit_rows(sequences).map(|row| row as u32));
        call.rope_full = self.add_angles(spec, sequences, 0);
        self.calls.clear();
        self.slices.iter_mut().for_each(Vec::clear);
        if spec.extras.sliding.is_some() {
            call.rope_sliding = self.add_angles(spec, sequences, 1);
        }
        self.calls.push(call);
        let limits = Limits { tile: if self.tiled { limits.tile } else { 1 }, ..limits };
        self.add_work(sequences, limits, None);
        if let Some(sliding) = &spec.extras.sliding {
            self.add_work(sequences, limits, Some(sliding.window));
        }
    }

    /// Block tables and records of rows.
    fn add_rows(&mut self, sequences: &[Sequence<'_>]) {
        let mut record = 1;
        for s in sequences {
            let table = self.inputs.len() as u32;
            let blocks = (s.position + s.tokens.len()).div_ceil(BLOCK_SIZE);
            self.inputs.extend_from_slice(&s.blocks[..blocks]);
            for (&token, position) in s.tokens.iter().zip(s.position..) {
                self.inputs[record..record + 3].copy_from_slice(&[token, position as u32, table]);
                record += ROW_WORDS;
            }
        }
    }

    /// Angles of all rows; gives their place.
    fn add_angles(&mut self, spec: &ModelSpec, sequences: &[Sequence<'_>], kind: usize) -> u32 {
        let at = self.inputs.len() as u32;
        for s in sequences {
            for position in s.position..s.position + s.tokens.len() {
                let values = self.angles[kind].of(spec, position);
                self.inputs.extend(values.iter().map(|value| value.to_bits()));
            }
        }
        at
    }

    /// Work items of attention, in slices whose partial results have room, and places of these results.
    fn add_work(&mut self, sequences: &[Sequence<'_>], limits: Limits, window: Option<usize>) {
        let kind = usize::from(window.is_some());
        let mut slice = OpenSlice { at: self.inputs.len(), row: 0, partials: 0 };
        let mut row = 0;
        for s in sequences {
            for start in (0..s.tokens.len()).step_by(limits.tile) {
                let count = limits.tile.min(s.tokens.len() - start);
                let first_range = |position: usize| {
                    window.map_or(0, |window| (position + 1).saturating_sub(window)) / RANGE
                };
                let positions = s.position + start..s.position + start + count;
                let partials: usize = positions.clone().map(|p| p / RANGE - first_range(p) + 1).sum();
                if slice.partials > 0 && slice.partials + partials > limits.partials {
                    self.close_slice(kind, slice, row);
                    slice = OpenSlice { at: self.inputs.len(), row, partials: 0 };
                }
                for (i, position) in positions.clone().enumerate() {
                    self.inputs[1 + (row + i) * ROW_WORDS + 3 + kind] = slice.partials as u32;
                    slice.partials += position / RANGE - first_range(position) + 1;
                }
                for range in first_range(positions.start)..=(positions.end - 1) / RANGE {
                    // A range that begins behind the first rows of a tile is none of theirs.
                    let skipped = (range * RANGE).saturating_sub(positions.start);
                    let (first, rows) = (row + skipped, count - skipped);
                    self.inputs.extend([first as u32, rows as u32, range as u32, 0]);
                }
                row += count;
            }
        }
        self.close_slice(kind, slice, row);
    }

    fn close_slice(&mut self, kind: usize, slice: OpenSlice, end: usize) {
        if end == slice.row {
            return;
        }
        let items = (self.inputs.len() - slice.at) / 4;
        self.partials = self.partials.max(slice.partials);
        self.slices[kind].push(Slice {
            call: self.calls.len(),
            items: items as u32,
            rows: (end - slice.row) as u32,
        });
        let call = Call { work_at: slice.at as u32, slice_row: slice.row as u32, ..self.calls[0] };
        self.calls.push(call);
    }

    /// Plans the output layer for hidden rows `first..first + rows`, whose logits stand from row `to` on.
    pub(crate) fn add_output(&mut self, first: usize, to: usize, rows: usize) -> Vec<OutputSlice> {
        let mut slices = Vec::new();
        let mut at = 0;
        while at < rows {
            let count = (rows - at).min(8);
            slices.push(OutputSlice { call: self.calls.len(), rows: count });
            let call = Call {
                out_first: (first + at) as u32,
                out_rows: count as u32,
                out_to: (to + at) as u32,
                ..self.calls[0]
            };
            self.calls.push(call);
            at += count;
        }
        slices
    }

    /// Plans the selection of rows; gives its record among the calls.
    pub(crate) fn add_top(&mut self, vocab: usize, rows: &[TopRow<'_>]) -> usize {
        let words = vocab.div_ceil(32);
        let masks: Vec<u32> = rows
            .iter()
            .map(|row| match row.allowed {
                None => 0,
                Some(set) => {
                    let at = self.inputs.len() as u32;
                    self.inputs.extend((0..words).map(|word| set.word(word)));
                    at
                }
            })
            .collect();
        let at = self.inputs.len() as u32;
        for (row, mask) in rows.iter().zip(masks) {
            self.inputs.extend([row.row as u32, row.k as u32, mask, row.hidden as u32]);
        }
        let top_k = rows.iter().map(|row| row.k).max().unwrap_or(1) as u32;
        self.calls.push(Call { top_at: at, top_k, ..self.calls[0] });
        self.calls.len() - 1
    }
}

/// A slice that work is added to.
#[derive(Debug, Clone, Copy)]
struct OpenSlice {
    at: usize,
    row: usize,
    partials: usize,
}

/// Rows of a pass that have logits, in order.
pub(crate) fn logit_rows<'a>(sequences: &'a [Sequence<'a>]) -> impl Iterator<Item = usize> + 'a {
    let mut start = 0;
    sequences.iter().flat_map(move |s| {
        let end = start + s.tokens.len();
        let range = end - s.logit_rows()..end;
        start = end;
        range
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::conformance::samples;

    fn sequence<'a>(
        tokens: &'a [u32],
        position: usize,
        blocks: &'a [u32],
        logits: LogitRows,
    ) -> Sequence<'a> {
        Sequence { tokens, position, blocks, logits }
    }

    #[test]
    fn batches_are_cut_without_changing_what_is_wanted() {
        let tokens: Vec<u32> = (0..10).collect();
        let blocks = [0];
        let batch = [
            sequence(&tokens[..3], 0, &blocks, LogitRows::Last),
            sequence(&tokens, 5, &blocks, LogitRows::Last),
            sequence(&tokens[..2], 1, &blocks, LogitRows::All),
        ];
        let passes = passes(&Batch { sequences: &batch }, 4);
        let shape: Vec<Vec<(usize, usize, LogitRows)>> = passes
            .iter()
            .map(|p| p.iter().map(|s| (s.tokens.len(), s.position, s.logits)).collect())
            .collect();
        let (none, last) = (LogitRows::None, LogitRows::Last);
        let want = vec![
            vec![(3, 0, last), (1, 5, none)],
            vec![(4, 6, none)],
            vec![(4, 10, none)],
            vec![(1, 14, last), (2, 1, LogitRows::All)],
        ];
        assert_eq!(shape, want);
    }

    #[test]
    fn work_of_attention_is_cut_into_slices_of_whole_tiles() {
        let spec = samples().swap_remove(0).spec;
        let tokens = vec![0; 600];
        let blocks: Vec<u32> = (0..20).collect();
        let batch = [sequence(&tokens, 0, &blocks, LogitRows::None)];
        let mut plan = Plan::new();
        plan.start(&spec, &batch, Limits { tile: 8, partials: 300 });
        let slices = &plan.slices[0];
        assert_eq!(slices.iter().map(|s| s.rows).sum::<u32>(), 600);
        assert!(slices.len() > 3 && plan.partials <= 300, "{slices:?}");
        let items: u32 = (0..600u32).step_by(8).map(|row| (row + 7) / 256 + 1).sum();
        assert_eq!(slices.iter().map(|s| s.items).sum::<u32>(), items);
        plan.start(&spec, &batch[..1], Limits { tile: 8, partials: 1 << 20 });
        assert_eq!((plan.slices[0].len(), plan.slices[1].len()), (1, 0));
    }
}
