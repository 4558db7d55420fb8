//! [`Scratch`]: what a pass works in, from the pool; it grows with the passes that come.

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::kernels::{Call, RECORD, records};
use crate::memory::{Buffer, Memory};
use crate::model::Model;
use crate::pack::words_of;
use crate::plan::Plan;

/// Tokens of a chunk of the vocabulary, as select.wgsl has it.
pub(crate) const CHUNK: usize = 2048;
/// Most of the largest logits of a row that the device looks for; for more the host gets all.
pub(crate) const MAX_TOP: usize = 256;
/// Room for what is found near the largest logits of a row, as interval.wgsl has it.
pub(crate) fn near_room(k: usize) -> usize {
    (16 * k).clamp(1024, 4096)
}

/// Bytes of logits that are computed before they are read back.
const LOGIT_BYTES: usize = 64 << 20;
/// Bytes of partial results of attention.
const PARTIAL_BYTES: usize = 64 << 20;

/// How much a pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) rows: usize,
    pub(crate) logit_rows: usize,
    /// Rows of logits that are on the device at a time.
    pub(crate) chunk_rows: usize,
    /// Words that chunks of the vocabulary find for all rows of a chunk that are looked at, and words of what rows give.
    pub(crate) found: usize,
    pub(crate) results: usize,
    pub(crate) partials: usize,
    pub(crate) input_words: usize,
    pub(crate) calls: usize,
}

impl Needs {
    /// The smallest that covers both.
    fn max(self, other: Self) -> Self {
        Self {
            rows: self.rows.max(other.rows),
            logit_rows: self.logit_rows.max(other.logit_rows),
            chunk_rows: self.chunk_rows.max(other.chunk_rows),
            found: self.found.max(other.found),
            results: self.results.max(other.results),
            partials: self.partials.max(other.partials),
            input_words: self.input_words.max(other.input_words),
            calls: self.calls.max(other.calls),
        }
    }

    /// Rounded up, so that small steps do not make new buffers.
    fn rounded(self) -> Self {
        let up = |n: usize, least: usize| n.max(least).next_power_of_two();
        Self {
            rows: up(self.rows, 1),
            logit_rows: up(self.logit_rows, 1),
            chunk_rows: self.chunk_rows.max(1),
            found: up(self.found, 64),
            results: up(self.results, 64),
            partials: up(self.partials, 16),
            input_words: up(self.input_words, 1 << 14),
            calls: up(self.calls, 16),
        }
    }
}

/// Buffers of a pass.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Residual stream, `[rows][hidden]`.
    pub(crate) x: Buffer,
    /// What attention or feed-forward part adds to it, `[rows][hidden]`.
    pub(crate) y: Buffer,
    /// Quantised rows, of the longest width.
    pub(crate) q: Buffer,
    /// Scale and sum of each.
    pub(crate) info: Buffer,
    pub(crate) qkv: Buffer,
    /// Ranges of attention, `[partials][heads][head_dim + 2]`.
    pub(crate) partials: Buffer,
    /// What attention gives, `[rows][heads][head_dim]`.
    pub(crate) o: Buffer,
    pub(crate) gate_up: Buffer,
    /// Hidden rows that have logits.
    pub(crate) hidden: Buffer,
    /// Of rows that are looked at by the image: two int8 parts of hidden rows, and what is known of them.
    pub(crate) parts: Buffer,
    pub(crate) hidden_images: Buffer,
    /// Logits, or what is near them.
    pub(crate) logits: Buffer,
    /// What chunks of the vocabulary found, and what rows did.
    pub(crate) found: Buffer,
    pub(crate) results: Buffer,
    pub(crate) inputs: Buffer,
    pub(crate) calls: Buffer,
}

/// Buffers of a pass, and how much they are for.
#[derive(Debug)]
pub(crate) struct Scratch {
    capacity: Needs,
    buffers: Option<Buffers>,
    bytes: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { capacity: Needs::default(), buffers: None, bytes: Vec::new() }
    }

    /// Rows of logits that are on the device at a time.
    pub(crate) fn logit_rows(gpu: &Gpu, vocab: usize) -> usize {
        let most = (LOGIT_BYTES as u64).min(gpu.limits.max_storage_buffer_binding_size) as usize;
        (most / (4 * vocab)).max(1)
    }

    /// Partial results of attention that there is room for.
    pub(crate) fn partials(gpu: &Gpu, model: &Model) -> usize {
        let most = (PARTIAL_BYTES as u64).min(gpu.limits.max_storage_buffer_binding_size) as usize;
        (most / partial_bytes(model)).max(1)
    }

    /// Makes room; tells whether buffers are others now.
    ///
    /// # Errors
    /// [`WgpuError::OutOfMemory`]; what there was is gone then, and made again by the next call.
    pub(crate) fn ensure(
        &mut self,
        gpu: &Gpu,
        memory: &mut Memory,
        model: &Model,
        needs: Needs,
    ) -> Result<bool, WgpuError> {
        if self.buffers.is_some() && self.capacity.max(needs) == self.capacity {
            return Ok(false);
        }
        let capacity = self.capacity.max(needs.rounded());
        if let Some(old) = self.buffers.take() {
            old.give_back(memory);
        }
        match Buffers::take(gpu, memory, model, capacity) {
            Ok(buffers) => {
                (self.buffers, self.capacity) = (Some(buffers), capacity);
                Ok(true)
            }
            Err(error) => {
                self.capacity = Needs::default();
                Err(error)
            }
        }
    }

    /// The buffers.
    ///
    /// # Errors
    /// [`WgpuError::Device`] before the first [`ensure`](Self::ensure).
    pub(crate) fn buffers(&self) -> Result<&Buffers, WgpuError> {
        self.buffers.as_ref().ok_or_else(|| WgpuError::Device("no buffers for a pass".to_owned()))
    }

    /// Writes a plan to the device.
    ///
    /// # Errors
    /// As [`buffers`](Self::buffers).
    pub(crate) fn write(&mut self, gpu: &Gpu, plan: &Plan) -> Result<(), WgpuError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        records::<Call>(&plan.calls, &mut bytes);
        let buffers = self.buffers()?;
        gpu.queue.write_buffer(&buffers.inputs.buffer, 0, bytemuck::cast_slice(&plan.inputs));
        gpu.queue.write_buffer(&buffers.calls.buffer, 0, &bytes);
        self.bytes = bytes;
        Ok(())
    }
}

fn partial_bytes(model: &Model) -> usize {
    4 * model.spec.num_heads * (model.spec.head_dim + 2)
}

impl Buffers {
    fn take(gpu: &Gpu, memory: &mut Memory, model: &Model, capacity: Needs) -> Result<Self, WgpuError> {
        let spec = &model.spec;
        let (hidden, attention, ffn) = (spec.hidden_size, spec.q_size(), spec.intermediate_size);
        let longest = words_of(hidden.max(attention).max(ffn));
        let chunks = spec.vocab_size.div_ceil(CHUNK);
        let quads = model.image.as_ref().map_or(0, |image| image.quads);
        let mut floats = |rows: usize, width: usize| memory.take(gpu, 4 * (rows * width) as u64);
        let rows = capacity.rows;
        Ok(Self {
            x: floats(rows, hidden)?,
            y: floats(rows, hidden)?,
            q: floats(rows, 4 * longest)?,
            info: floats(rows, 2)?,
            qkv: floats(rows, attention + 2 * spec.kv_size())?,
            partials: floats(capacity.partials, partial_bytes(model) / 4)?,
            o: floats(rows, attention)?,
            gate_up: floats(rows, 2 * ffn)?,
            hidden: floats(capacity.logit_rows, hidden)?,
            parts: floats(capacity.chunk_rows, 8 * quads)?,
            hidden_images: floats(capacity.chunk_rows, 4)?,
            logits: floats(capacity.chunk_rows, spec.vocab_size)?,
            found: floats(chunks, capacity.found)?,
            results: floats(1, capacity.results)?,
            inputs: floats(1, capacity.input_words)?,
            calls: memory.take(gpu, RECORD * capacity.calls as u64)?,
        })
    }

    fn give_back(self, memory: &mut Memory) {
        let Self {
            x,
            y,
            q,
            info,
            qkv,
            partials,
            o,
            gate_up,
            hidden,
            parts,
            hidden_images,
            logits,
            found,
            results,
            inputs,
            calls,
        } = self;
        let all = [
            x,
            y,
            q,
            info,
            qkv,
            partials,
            o,
            gate_up,
            hidden,
            parts,
            hidden_images,
            logits,
            found,
            results,
            inputs,
            calls,
        ];
        for buffer in all {
            memory.give(buffer);
        }
    }
}
