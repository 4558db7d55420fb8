//! A forward call: passes over the layers, then the output layer in chunks of rows, each one submission.
//!
//! A call of at most as many tokens as a pass takes, whose logits fit their buffer, is one submission: layers, output
//! layer, selection and the copy for the host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bitnet_model::{Batch, ExecError, RowWants, Sequence, TopLogits, Want};

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::kernels::Kernels;
use crate::kv::KvCache;
use crate::memory::Memory;
use crate::model::Model;
use crate::plan::{self, Limits, OutputSlice, Plan, TopRow};
use crate::program::{Builder, Grouping, Product, Program};
use crate::record::{Recorder, Times};
use crate::scratch::{Needs, Scratch, near_room};
use crate::want::{Sink, Way};

/// Programs for the buffers that there are.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    layers: HashMap<(Product, bool), Program>,
    outputs: HashMap<usize, Program>,
    scans: HashMap<usize, Program>,
    embed: Option<Program>,
    hidden: Option<Program>,
    select: Option<Program>,
    near: Option<Program>,
}

/// Everything that a call works with.
pub(crate) struct Machine {
    pub(crate) gpu: Gpu,
    pub(crate) kernels: Kernels,
    pub(crate) memory: Memory,
    pub(crate) model: Model,
    pub(crate) kv: KvCache,
    pub(crate) scratch: Scratch,
    pub(crate) plan: Plan,
    pub(crate) programs: Programs,
    /// Most rows of a pass.
    pub(crate) max_rows: usize,
    pub(crate) times: Option<Times>,
}

/// How the largest logits are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// By the image of the output layer, which may find more than there is room for.
    Near,
    /// Among all logits.
    All,
}

/// Rows of logits that are on the device together.
struct Chunk<'a> {
    /// Rows that come to the host in full, and rows whose largest logits do.
    full: Vec<OutputSlice>,
    tops: Vec<OutputSlice>,
    /// How each row's logits come to the host.
    ways: Vec<Way<'a>>,
    /// The record of the selection among the calls, and the largest k.
    select: Option<(usize, usize)>,
}

impl Chunk<'_> {
    fn tops(&self) -> usize {
        self.ways.iter().filter(|way| !way.is_full()).count()
    }

    /// Words that the selection gives for a row, or for a chunk of it.
    fn selected_words(&self) -> usize {
        self.select.map_or(0, |(_, k)| 2 + 2 * k)
    }

    /// Words that come to the host of a row whose largest logits are looked for.
    fn found_words(&self, search: Search) -> usize {
        match (search, self.select) {
            (Search::Near, Some((_, k))) => 4 + 2 * near_room(k),
            _ => self.selected_words(),
        }
    }

    /// Bytes that the host reads.
    fn bytes(&self, vocab: usize, search: Search) -> u64 {
        let full = (self.ways.len() - self.tops()) * vocab;
        4 * (full + self.tops() * self.found_words(search)) as u64
    }
}

impl Machine {
    /// Runs a checked batch, from `input` instead of its tokens if that is given.
    ///
    /// # Errors
    /// [`ExecError`].
    pub(crate) fn run(
        &mut self,
        batch: &Batch<'_>,
        input: Option<&[f32]>,
        want: Want<'_>,
    ) -> Result<(), ExecError> {
        let backend = self.gpu.backend();
        let (rows, hidden, logits, top) = split(want);
        let mut sink = Sink { hidden, logits, top, finite: true };
        let (mut first_row, mut first_logit) = (0, 0);
        let width = self.model.spec.hidden_size;
        for sequences in plan::passes(batch, self.max_rows) {
            let tokens = Batch { sequences: &sequences }.tokens();
            let input = input.map(|rows| &rows[first_row * width..(first_row + tokens) * width]);
            self.pass(&sequences, input, rows, first_logit, &mut sink).map_err(|e| e.into_exec(backend))?;
            first_row += tokens;
            first_logit += self.plan.logit_rows;
        }
        // What a call takes is measured by those who call; so it must be done.
        self.gpu.wait().map_err(|e| e.into_exec(backend))?;
        if sink.finite { Ok(()) } else { Err(ExecError::NotFinite) }
    }

    /// One pass: `rows` is what rows of logits give (`None`: hidden states are wanted), `first_logit` the number of the
    /// pass's first.
    fn pass(
        &mut self,
        sequences: &[Sequence<'_>],
        input: Option<&[f32]>,
        rows: Option<RowWants<'_>>,
        first_logit: usize,
        sink: &mut Sink<'_>,
    ) -> Result<(), WgpuError> {
        let spec = &self.model.spec;
        let tile = Grouping::new(spec).tile;
        let partials = Scratch::partials(&self.gpu, &self.model);
        self.plan.start(spec, sequences, Limits { tile, partials });
        let chunks = match rows {
            Some(rows) => self.chunks(rows, first_logit),
            None => Vec::new(),
        };
        self.prepare(&chunks)?;
        self.upload(input)?;
        let mut chunks = chunks.iter();
        let first = chunks.next();
        self.submit(Some(input.is_none()), first, sink)?;
        if rows.is_none() && self.plan.logit_rows > 0 {
            self.read_hidden(sink)?;
        }
        for chunk in chunks {
            self.submit(None, Some(chunk), sink)?;
        }
        Ok(())
    }

    /// Cuts the rows of logits of a pass into chunks, and plans their output layer.
    fn chunks<'a>(&mut self, rows: RowWants<'a>, first_logit: usize) -> Vec<Chunk<'a>> {
        let vocab = self.model.spec.vocab_size;
        let most = Scratch::logit_rows(&self.gpu, vocab);
        let mut chunks = Vec::new();
        for first in (0..self.plan.logit_rows).step_by(most) {
            let count = most.min(self.plan.logit_rows - first);
            let ways: Vec<Way<'a>> =
                (0..count).map(|row| Way::of(rows.row(first_logit + first + row))).collect();
            let tops: Vec<TopRow<'a>> = ways
                .iter()
                .enumerate()
                .filter_map(|(row, way)| match way {
                    Way::Top(want) => {
                        Some(TopRow { row, hidden: first + row, k: want.k.max(1), allowed: want.allowed })
                    }
                    _ => None,
                })
                .collect();
            let k = tops.iter().map(|top| top.k).max();
            let select = k.map(|k| (self.plan.add_top(vocab, &tops), k));
            let (mut full, mut top, mut row) = (Vec::new(), Vec::new(), 0);
            for run in ways.chunk_by(|a, b| a.is_full() == b.is_full()) {
                let slices = if run[0].is_full() { &mut full } else { &mut top };
                slices.extend(self.plan.add_output(first + row, row, run.len()));
                row += run.len();
            }
            chunks.push(Chunk { full, tops: top, ways, select });
        }
        chunks
    }

    /// Makes buffers and programs for the plan.
    fn prepare(&mut self, chunks: &[Chunk<'_>]) -> Result<(), WgpuError> {
        let search = self.search();
        let needs = Needs {
            rows: self.plan.rows,
            logit_rows: self.plan.logit_rows,
            chunk_rows: chunks.iter().map(|c| c.ways.len()).max().unwrap_or(0),
            found: chunks.iter().map(|c| c.tops() * c.selected_words()).max().unwrap_or(0),
            results: chunks.iter().map(|c| c.tops() * c.found_words(search)).max().unwrap_or(0),
            partials: self.plan.partials,
            input_words: self.plan.inputs.len(),
            calls: self.plan.calls.len(),
        };
        if self.scratch.ensure(&self.gpu, &mut self.memory, &self.model, needs)? {
            self.programs = Programs::default();
        }
        let key = (Product::of(self.plan.rows), self.plan.tiled);
        let (mut builder, programs) = self.builder()?;
        if let Entry::Vacant(place) = programs.layers.entry(key) {
            place.insert(builder.layers(key.0, key.1)?);
        }
        if programs.embed.is_none() {
            programs.embed = Some(builder.embed()?);
            programs.hidden = Some(builder.hidden()?);
        }
        Ok(())
    }

    /// What makes programs for the buffers that there are, and those that it has made.
    fn builder(&mut self) -> Result<(Builder<'_>, &mut Programs), WgpuError> {
        let builder = Builder {
            gpu: &self.gpu,
            kernels: &mut self.kernels,
            model: &self.model,
            kv: &self.kv,
            buffers: self.scratch.buffers()?,
        };
        Ok((builder, &mut self.programs))
    }

    /// How the largest logits are looked for at first.
    fn search(&self) -> Search {
        if self.model.image.is_some() { Search::Near } else { Search::All }
    }

    /// Makes programs for the output layer of a chunk.
    fn prepare_output(&mut self, chunk: &Chunk<'_>, search: Search) -> Result<(), WgpuError> {
        let (mut builder, programs) = self.builder()?;
        let image = builder.model.image.as_ref().filter(|_| search == Search::Near);
        for slice in chunk.full.iter().chain(chunk.tops.iter().filter(|_| image.is_none())) {
            let rows = slice.rows.next_power_of_two();
            if let Entry::Vacant(place) = programs.outputs.entry(rows) {
                place.insert(builder.output(rows)?);
            }
        }
        let Some(image) = image else {
            if programs.select.is_none() && chunk.select.is_some() {
                programs.select = Some(builder.select()?);
            }
            return Ok(());
        };
        for slice in &chunk.tops {
            let rows = slice.rows.next_power_of_two();
            if let Entry::Vacant(place) = programs.scans.entry(rows) {
                place.insert(builder.scan(image, rows)?);
            }
        }
        if programs.near.is_none() && chunk.select.is_some() {
            programs.near = Some(builder.near(image)?);
        }
        Ok(())
    }

    /// Writes the plan, and rows to begin with.
    fn upload(&mut self, input: Option<&[f32]>) -> Result<(), WgpuError> {
        self.scratch.write(&self.gpu, &self.plan)?;
        let Some(rows) = input else { return Ok(()) };
        let x = &self.scratch.buffers()?.x.buffer;
        if !self.model.spec.extras.scaled_embedding {
            self.gpu.queue.write_buffer(x, 0, bytemuck::cast_slice(rows));
            return Ok(());
        }
        let scale = self.model.spec.embedding_scale();
        let scaled: Vec<f32> = rows.iter().map(|value| value * scale).collect();
        self.gpu.queue.write_buffer(x, 0, bytemuck::cast_slice(&scaled));
        Ok(())
    }

    /// Computes the layers if they are still to be computed (`Some`: from the embedding or not), and a chunk of logits, which
    /// is read.
    fn submit(
        &mut self,
        layers: Option<bool>,
        chunk: Option<&Chunk<'_>>,
        sink: &mut Sink<'_>,
    ) -> Result<(), WgpuError> {
        let Some(chunk) = chunk else {
            let mut recorder = Recorder::new(&self.gpu, self.times.as_mut());
            record_layers(&mut recorder, &self.programs, &self.plan, layers);
            return recorder.submit(&self.gpu, &mut self.memory);
        };
        // All of a chunk is one submission, but where the image does not tell enough.
        let search = self.search();
        if !self.submit_chunk(layers, chunk, search, sink)? {
            self.submit_chunk(None, chunk, Search::All, sink)?;
        }
        Ok(())
    }

    /// Layers and a chunk of logits as one submission; tells whether all that is wanted was found.
    fn submit_chunk(
        &mut self,
        layers: Option<bool>,
        chunk: &Chunk<'_>,
        search: Search,
        sink: &mut Sink<'_>,
    ) -> Result<bool, WgpuError> {
        self.prepare_output(chunk, search)?;
        let vocab = self.model.spec.vocab_size;
        let target = self.memory.take_readback(&self.gpu, chunk.bytes(vocab, search))?;
        let (programs, plan, buffers) = (&self.programs, &self.plan, self.scratch.buffers()?);
        let mut recorder = Recorder::new(&self.gpu, self.times.as_mut());
        record_layers(&mut recorder, programs, plan, layers);
        let (tops, select) = match search {
            Search::Near => (&programs.scans, &programs.near),
            Search::All => (&programs.outputs, &programs.select),
        };
        let both = [(&programs.outputs, &chunk.full), (tops, &chunk.tops)];
        for (programs, slice) in both.iter().flat_map(|(p, slices)| slices.iter().map(move |s| (p, s))) {
            let program = Vec::from_iter(programs.get(&slice.rows.next_power_of_two()));
            recorder.programs(&program, plan, slice.rows, slice.call);
        }
        if let Some((call, _)) = chunk.select {
            recorder.programs(&Vec::from_iter(select), plan, chunk.tops(), call);
        }
        let (row_bytes, mut place) = (4 * vocab as u64, 0);
        for (row, _) in chunk.ways.iter().enumerate().filter(|(_, way)| way.is_full()) {
            let at = row as u64 * row_bytes;
            recorder.copy(&buffers.logits.buffer, at, &target.buffer, place, row_bytes);
            place += row_bytes;
        }
        let found_bytes = chunk.bytes(vocab, search) - place;
        if found_bytes > 0 {
            recorder.copy(&buffers.results.buffer, 0, &target.buffer, place, found_bytes);
        }
        recorder.submit(&self.gpu, &mut self.memory)?;
        let read = self.gpu.read(&target.buffer, chunk.bytes(vocab, search), |bytes| {
            let (full, found) = bytes.split_at(place as usize);
            deliver(chunk, search, vocab, bytemuck::cast_slice(full), bytemuck::cast_slice(found), sink)
        });
        self.memory.give_readback(target);
        read
    }

    /// Reads the hidden rows of the pass.
    fn read_hidden(&mut self, sink: &mut Sink<'_>) -> Result<(), WgpuError> {
        let bytes = 4 * (self.plan.logit_rows * self.model.spec.hidden_size) as u64;
        let target = self.memory.take_readback(&self.gpu, bytes)?;
        let mut recorder = Recorder::new(&self.gpu, None);
        recorder.copy(&self.scratch.buffers()?.hidden.buffer, 0, &target.buffer, 0, bytes);
        recorder.submit(&self.gpu, &mut self.memory)?;
        let read = self.gpu.read(&target.buffer, bytes, |bytes| sink.hidden(bytemuck::cast_slice(bytes)));
        self.memory.give_readback(target);
        read
    }
}

/// What rows of logits give, if they are wanted, and where hidden states, logits and the largest of them go.
type Outputs<'a> = (Option<RowWants<'a>>, &'a mut [f32], &'a mut [f32], &'a mut [TopLogits]);

fn split(want: Want<'_>) -> Outputs<'_> {
    match want {
        Want::Hidden(hidden) => (None, hidden, &mut [], &mut []),
        Want::Logits(rows, logits, top) => (Some(rows), &mut [], logits, top),
    }
}

/// Records the layers, if they are to be computed (from the embedding or not), and the final norm.
fn record_layers(recorder: &mut Recorder<'_>, programs: &Programs, plan: &Plan, layers: Option<bool>) {
    let Some(embed) = layers else { return };
    let key = (Product::of(plan.rows), plan.tiled);
    let embed = programs.embed.as_ref().filter(|_| embed);
    let all: Vec<&Program> = embed.into_iter().chain(programs.layers.get(&key)).collect();
    recorder.programs(&all, plan, plan.rows, 0);
    if plan.logit_rows > 0 {
        recorder.programs(&Vec::from_iter(&programs.hidden), plan, plan.logit_rows, 0);
    }
}

/// Gives the rows of a chunk, in order, to where they are wanted; or none, if more was found than there is room for.
fn deliver(
    chunk: &Chunk<'_>,
    search: Search,
    vocab: usize,
    full: &[f32],
    found: &[u32],
    sink: &mut Sink<'_>,
) -> bool {
    let mut full = full.chunks_exact(vocab);
    let mut found = found.chunks_exact(chunk.found_words(search).max(1));
    if search == Search::Near && found.clone().any(|words| words[0] as usize > (words.len() - 4) / 2) {
        return false;
    }
    for way in &chunk.ways {
        match (way, search) {
            (Way::Top(want), Search::Near) => {
                found.next().into_iter().for_each(|words| sink.near(want.k, words));
            }
            (Way::Top(_), Search::All) => found.next().into_iter().for_each(|words| sink.found(words)),
            (way, _) => full.next().into_iter().for_each(|values| sink.full(*way, values)),
        }
    }
    true
}
