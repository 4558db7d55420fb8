//! How inputs become forward calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bitnet_core::MemorySize;
use bitnet_core::memory_pool::PoolBuf;
use bitnet_model::load::Pooling;
use bitnet_model::{Batch, Give, LogitRows, Sequence};

use super::{InferInput, InferOutput, InferRequest, Inference};
use crate::background::Cancel;
use crate::embed::{EmbedOptions, pooled};
use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::generate::Prompt;
use crate::kv::{BlockPool, PoolExhausted, lock};
use crate::process::Process;

/// KV blocks of one input, which is computed once and not continued.
struct Lease {
    blocks: Vec<u32>,
    pool: Arc<Mutex<BlockPool>>,
}

impl Lease {
    fn new(pool: &Arc<Mutex<BlockPool>>, count: usize) -> Result<Self, PoolExhausted> {
        let mut lease = Self { blocks: Vec::with_capacity(count), pool: Arc::clone(pool) };
        let mut pool = lock(pool);
        for _ in 0..count {
            match pool.take() {
                Ok(block) => lease.blocks.push(block),
                Err(error) => {
                    // Giving back takes the lock again.
                    drop(pool);
                    return Err(error);
                }
            }
        }
        drop(pool);
        Ok(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.pool).give_back(self.blocks.drain(..));
    }
}

/// One input on its way.
struct Job<'a> {
    /// Its number among the inputs.
    place: usize,
    /// Its tokens; zeros that count positions if there are rows.
    tokens: Vec<u32>,
    rows: Option<&'a [f32]>,
    output: InferOutput,
    /// How states become an embedding.
    pooling: Pooling,
    /// Whether every token gives a row.
    all: bool,
    /// Tokens computed.
    done: usize,
    /// Values of the result that are there.
    filled: usize,
    out: PoolBuf<f32>,
    lease: Option<Lease>,
}

/// A part of an input in a forward call.
#[derive(Clone, Copy)]
struct Part {
    job: usize,
    start: usize,
    end: usize,
    logits: LogitRows,
}

impl Part {
    fn rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last => 1,
            LogitRows::All => self.end - self.start,
        }
    }
}

impl Job<'_> {
    /// What forward calls give for it.
    fn give(&self) -> Give {
        if self.output == InferOutput::Logits { Give::Logits } else { Give::Hidden }
    }

    /// The next tokens, at most `room` of them.
    fn part(&self, job: usize, room: usize) -> Part {
        let (start, end) = (self.done, self.tokens.len().min(self.done + room));
        let logits = match self.all {
            true => LogitRows::All,
            false if end == self.tokens.len() => LogitRows::Last,
            false => LogitRows::None,
        };
        Part { job, start, end, logits }
    }

    fn is_done(&self) -> bool {
        self.done == self.tokens.len()
    }
}

/// Results in the order of inputs.
type Results = Vec<Option<Result<Inference, EngineError>>>;

impl InferenceEngine {
    /// Computes inputs together; one result each.
    pub(crate) fn infer_all(&self, requests: &[&InferRequest]) -> Vec<Result<Inference, EngineError>> {
        self.core().again_if_lost(|| self.infer_groups(requests))
    }

    fn infer_groups(&self, requests: &[&InferRequest]) -> Vec<Result<Inference, EngineError>> {
        let mut results: Results = requests.iter().map(|_| None).collect();
        // A forward call computes from tokens or from rows, and gives logits or states.
        let mut groups: [VecDeque<Job<'_>>; 4] = Default::default();
        for (place, request) in requests.iter().enumerate() {
            match self.job(place, request) {
                Ok(job) => {
                    let group = usize::from(job.rows.is_some()) + 2 * usize::from(job.give() == Give::Hidden);
                    groups[group].push_back(job);
                }
                Err(error) => results[place] = Some(Err(error)),
            }
        }
        for group in groups {
            self.run_group(group, &mut results);
        }
        results.into_iter().map(|result| result.unwrap_or(Err(EngineError::EmptyPrompt))).collect()
    }

    /// Checks and encodes an input.
    fn job<'a>(&self, place: usize, request: &'a InferRequest) -> Result<Job<'a>, EngineError> {
        let (options, width) = (EmbedOptions::default(), self.spec().hidden_size);
        let is_embedding = request.output == InferOutput::Embedding;
        let (tokens, rows) = match &request.input {
            InferInput::Text(text) if is_embedding => (self.embedding_tokens(place, text, &options)?, None),
            InferInput::Text(text) => (self.encode(&Prompt::text(text))?, None),
            InferInput::Tokens(tokens) => (self.encode(&Prompt::Tokens(tokens.clone()))?, None),
            InferInput::Rows(rows) => {
                if rows.is_empty() || !rows.len().is_multiple_of(width) {
                    return Err(EngineError::RowSize { given: rows.len(), width });
                }
                if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
                    return Err(EngineError::RowValue {
                        row: at / width,
                        column: at % width,
                        value: rows[at],
                    });
                }
                (vec![0; rows.len() / width], Some(rows.as_slice()))
            }
        };
        let (count, context) = (tokens.len(), self.context());
        if count > context {
            return Err(EngineError::TextTooLong { index: place, tokens: count, context });
        }
        let pooling = self.pooling(&options);
        let all = if is_embedding { pooling != Pooling::Last } else { request.all_rows };
        Ok(Job {
            place,
            tokens,
            rows,
            output: request.output,
            pooling,
            all,
            done: 0,
            filled: 0,
            out: PoolBuf::default(),
            lease: None,
        })
    }

    /// Values of a row of a call's result.
    fn width(&self, give: Give) -> usize {
        match give {
            Give::Logits => self.spec().vocab_size,
            Give::Hidden => self.spec().hidden_size,
        }
    }

    /// Computes inputs that may share forward calls.
    fn run_group(&self, mut waiting: VecDeque<Job<'_>>, results: &mut Results) {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        loop {
            let parts = self.fill(&mut jobs, &mut waiting, results);
            if parts.is_empty() {
                return;
            }
            let mut failed = Vec::new();
            if parts.len() == 1 || self.run_inputs(&mut jobs, &parts).is_err() {
                // One of them is to blame: each by itself shows which.
                for part in &parts {
                    if let Err(error) = self.run_inputs(&mut jobs, std::slice::from_ref(part)) {
                        failed.push((jobs[part.job].place, error));
                    }
                }
            }
            let mut going = Vec::with_capacity(jobs.len());
            for job in jobs {
                if let Some(at) = failed.iter().position(|(place, _)| *place == job.place) {
                    let (place, error) = failed.swap_remove(at);
                    results[place] = Some(Err(error));
                } else if job.is_done() {
                    let place = job.place;
                    results[place] = Some(self.finish(job));
                } else {
                    going.push(job);
                }
            }
            jobs = going;
        }
    }

    /// Fills a forward call: with what is left of the inputs that are begun, then with new ones.
    fn fill<'a>(
        &self,
        jobs: &mut Vec<Job<'a>>,
        waiting: &mut VecDeque<Job<'a>>,
        results: &mut Results,
    ) -> Vec<Part> {
        let mut room = self.info().max_batch_tokens.max(1);
        let mut parts = Vec::new();
        let mut add = |job: &Job<'_>, index: usize, room: &mut usize| {
            let part = job.part(index, *room);
            if part.start < part.end {
                *room -= part.end - part.start;
                parts.push(part);
            }
        };
        for (index, job) in jobs.iter().enumerate() {
            add(job, index, &mut room);
        }
        while room > 0
            && let Some(mut job) = waiting.pop_front()
        {
            match self.begin(&mut job) {
                Ok(()) => {
                    add(&job, jobs.len(), &mut room);
                    jobs.push(job);
                }
                // It waits until others give their blocks back; if there are none, it never gets any.
                Err(EngineError::Sessions(_)) if !jobs.is_empty() => {
                    waiting.push_front(job);
                    break;
                }
                Err(error) => results[job.place] = Some(Err(error)),
            }
        }
        parts
    }

    /// Gets an input its KV blocks and memory for its result.
    fn begin(&self, job: &mut Job<'_>) -> Result<(), EngineError> {
        let blocks = job.tokens.len().div_ceil(self.info().block_size);
        job.lease = Some(Lease::new(self.pool(), blocks)?);
        let rows = if job.all { job.tokens.len() } else { 1 };
        job.out = self.memory().take(rows * self.width(job.give())).map_err(bitnet_model::ExecError::from)?;
        Ok(())
    }

    /// One forward call, and its rows to where they belong.
    fn run_inputs(&self, jobs: &mut [Job<'_>], parts: &[Part]) -> Result<(), EngineError> {
        let Some(first) = parts.first() else { return Ok(()) };
        let give = jobs[first.job].give();
        let width = self.width(give);
        let total = parts.iter().map(Part::rows).sum::<usize>() * width;
        let taken = |error| EngineError::from(bitnet_model::ExecError::from(error));
        // The result of a single part goes straight to its place.
        let mut own = match parts {
            [one] => std::mem::take(&mut jobs[one.job].out),
            _ => self.memory().take(total).map_err(taken)?,
        };
        let start = if parts.len() == 1 { jobs[first.job].filled } else { 0 };
        let outcome = self.call(jobs, parts, give, &mut own[start..start + total]);
        if let [one] = parts {
            jobs[one.job].out = own;
            outcome?;
            jobs[one.job].filled += total;
            jobs[one.job].done = one.end;
            return Ok(());
        }
        outcome?;
        let mut at = 0;
        for part in parts {
            let (job, len) = (&mut jobs[part.job], part.rows() * width);
            job.out[job.filled..job.filled + len].copy_from_slice(&own[at..at + len]);
            (job.filled, job.done, at) = (job.filled + len, part.end, at + len);
        }
        Ok(())
    }

    fn call(&self, jobs: &[Job<'_>], parts: &[Part], give: Give, out: &mut [f32]) -> Result<(), EngineError> {
        let hidden = self.spec().hidden_size;
        let sequence = |part: &Part| {
            let job = &jobs[part.job];
            let blocks = job.lease.as_ref().map_or(&[][..], |lease| &lease.blocks);
            let tokens = &job.tokens[part.start..part.end];
            Sequence { tokens, position: part.start, blocks, logits: part.logits }
        };
        let sequences: Vec<Sequence<'_>> = parts.iter().map(sequence).collect();
        let batch = Batch { sequences: &sequences };
        let rows: Vec<&[f32]> = parts
            .iter()
            .filter_map(|part| jobs[part.job].rows.map(|rows| &rows[part.start * hidden..part.end * hidden]))
            .collect();
        let backend = &mut *self.backend();
        self.reserve_memory(backend)?;
        let executor = backend.executor();
        match (&rows[..], give) {
            ([], Give::Logits) => executor.forward(&batch, out)?,
            ([], Give::Hidden) => executor.forward_hidden(&batch, out)?,
            ([one], give) => executor.forward_rows(&batch, one, give, out)?,
            (several, give) => executor.forward_rows(&batch, &several.concat(), give, out)?,
        }
        Ok(())
    }

    /// The result of an input whose tokens are all computed.
    fn finish(&self, job: Job<'_>) -> Result<Inference, EngineError> {
        let (width, tokens, output) = (self.width(job.give()), job.tokens.len(), job.output);
        if output != InferOutput::Embedding {
            return Ok(Inference { values: job.out, width, tokens, output });
        }
        let vector = pooled(job.out.chunks_exact(width), job.pooling, true);
        let mut values = self.memory().take(width).map_err(bitnet_model::ExecError::from)?;
        values.copy_from_slice(&vector);
        Ok(Inference { values, width, tokens, output })
    }
}

impl Process<InferRequest> for InferenceEngine {
    type Output = Inference;

    fn process(&self, input: &InferRequest, _: &Cancel) -> Result<Inference, EngineError> {
        self.infer_all(&[input]).pop().unwrap_or(Err(EngineError::EmptyPrompt))
    }

    fn process_batch(&self, inputs: &[&InferRequest], _: &Cancel) -> Vec<Result<Inference, EngineError>> {
        self.infer_all(inputs)
    }

    /// The result's memory, twice while it is copied, and keys and values.
    fn memory_of(&self, input: &InferRequest) -> MemorySize {
        let tokens = match &input.input {
            InferInput::Text(text) => text.len() + 2,
            InferInput::Tokens(tokens) => tokens.len(),
            InferInput::Rows(rows) => rows.len() / self.spec().hidden_size,
        };
        let tokens = tokens.min(self.context()) as u64;
        let (rows, width) = match input.output {
            InferOutput::Logits => (if input.all_rows { tokens } else { 1 }, self.spec().vocab_size),
            InferOutput::Hidden if !input.all_rows => (1, self.spec().hidden_size),
            InferOutput::Hidden | InferOutput::Embedding => (tokens, self.spec().hidden_size),
        };
        let result = rows * width as u64 * size_of::<f32>() as u64;
        MemorySize::bytes(2 * result + tokens * self.info().kv_bytes_per_token().as_bytes())
    }

    fn free_memory(&self) -> Option<MemorySize> {
        Some(self.memory_stats().free())
    }
}
