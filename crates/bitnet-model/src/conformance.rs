//! The conformance suite: one list of models and batches that every executor is run against the oracle with.
//!
//! Feature `conformance`, for the tests of executors. A CPU executor passes [`run`] with [`Tolerance::Bits`]; a GPU
//! executor with a stated relative error.

mod calls;

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_quant::codec::pack_hf;
use bitnet_quant::{RowOrder, TernaryMatrix, TritCodec};

use crate::reference::ReferenceExecutor;
use crate::{
    Activation, Batch, DenseTensor, ExecError, Executor, Extras, KvType, LayerExtras, LayerWeights,
    LogitRows, ModelSpec, RopeScaling, Sequence, SlidingWindow, Weights,
};

/// How close logits must be to the oracle's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// The same bits.
    Bits,
    /// `|a - b|_2 <= tolerance * |b|_2` for each row.
    Relative(f32),
}

/// A small random model.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Tokens of the longest text it is run with: some models get one over several KV blocks and ranges of attention.
    pub longest: usize,
    /// What is special about it.
    pub name: &'static str,
    /// Its architecture.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: Weights,
}

/// A small counter-based generator, so that samples are the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `-1..1`.
    pub fn next_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A trit.
    pub fn next_trit(&mut self) -> i8 {
        (self.next_u64() % 3) as i8 - 1
    }
}

/// Models that differ in everything an executor can get wrong: sizes that are not multiples of anything, grouping,
/// activations, norms, tying, element types.
pub fn samples() -> Vec<Sample> {
    let base = ModelSpec {
        architecture: "sample".to_owned(),
        vocab_size: 96,
        hidden_size: 128,
        intermediate_size: 256,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 32,
        activation: Activation::Relu2,
        sub_norms: true,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        context_length: 1024,
        tied_output: true,
        extras: Extras::default(),
    };
    let silu = ModelSpec {
        hidden_size: 100,
        intermediate_size: 172,
        num_heads: 5,
        num_kv_heads: 5,
        head_dim: 20,
        activation: Activation::Silu,
        sub_norms: false,
        tied_output: false,
        vocab_size: 101,
        rope_theta: 10_000.0,
        ..base.clone()
    };
    let odd = ModelSpec {
        hidden_size: 148,
        intermediate_size: 260,
        num_heads: 6,
        num_kv_heads: 3,
        head_dim: 100,
        num_layers: 3,
        vocab_size: 67,
        activation: Activation::Silu,
        ..base.clone()
    };
    let wide = ModelSpec {
        hidden_size: 1040,
        intermediate_size: 2064,
        num_heads: 8,
        num_kv_heads: 2,
        head_dim: 128,
        num_layers: 1,
        ..base.clone()
    };
    let long = ModelSpec {
        hidden_size: 64,
        intermediate_size: 64,
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 128,
        num_layers: 1,
        ..base.clone()
    };
    let mut samples = vec![
        sample("relu2, sub-norms, tied bf16", base.clone(), DType::BF16, 1, 75),
        sample("silu, no sub-norms, untied f16", silu, DType::F16, 2, 290),
        sample("heads wider than the stream, tied f32", odd, DType::F32, 3, 270),
        sample("long rows, grouped heads", wide, DType::BF16, 4, 75),
        sample("long context, wide heads", long, DType::F32, 5, 555),
    ];
    samples.extend(first_reproductions(&base));
    samples.extend(variants(&base));
    samples
}

/// Models shaped like those of 1bitLLM.
fn first_reproductions(base: &ModelSpec) -> [Sample; 2] {
    // As 1bitLLM's 3B: a head is no multiple of a vector, a row no multiple of a tile.
    let first = ModelSpec {
        hidden_size: 200,
        intermediate_size: 540,
        num_heads: 2,
        num_kv_heads: 2,
        head_dim: 100,
        activation: Activation::Silu,
        rope_theta: 10_000.0,
        ..base.clone()
    };
    // As its large and xl.
    let large = ModelSpec {
        hidden_size: 192,
        intermediate_size: 1092,
        head_dim: 96,
        num_layers: 1,
        vocab_size: 98,
        ..first.clone()
    };
    [
        sample("a head for each key, heads of 100, tied f16", first, DType::F16, 6, 75),
        sample("a head for each key, heads of 96, tied f32", large, DType::F32, 7, 40),
    ]
}

/// Models with [`Extras`]: as the embedding models have them, and each alone or in other company.
fn variants(base: &ModelSpec) -> Vec<Sample> {
    let qwen3 = ModelSpec {
        hidden_size: 96,
        intermediate_size: 160,
        num_kv_heads: 2,
        head_dim: 40,
        activation: Activation::Silu,
        extras: Extras { head_norms: true, projection_norms: true, ..Extras::default() },
        ..base.clone()
    };
    let gemma3 = ModelSpec {
        hidden_size: 72,
        intermediate_size: 136,
        num_layers: 3,
        num_heads: 2,
        head_dim: 48,
        activation: Activation::Gelu,
        rope_theta: 1e6,
        extras: Extras {
            head_norms: true,
            projection_norms: true,
            post_norms: true,
            scaled_embedding: true,
            query_pre_attn_scalar: Some(56.0),
            rope_scaling: RopeScaling::Linear(8.0),
            sliding: Some(SlidingWindow::periodic(21, 3, 3, 1e4)),
        },
        ..base.clone()
    };
    // A window over several blocks and ranges, that begins and ends anywhere in them.
    let window = ModelSpec {
        hidden_size: 64,
        intermediate_size: 64,
        num_heads: 8,
        head_dim: 16,
        sub_norms: false,
        extras: Extras {
            sliding: Some(SlidingWindow { window: 270, layers: vec![true, false], rope_theta: 777.0 }),
            rope_scaling: RopeScaling::Factors((1..=8).map(|i| 0.5 + i as f32).collect()),
            ..Extras::default()
        },
        ..base.clone()
    };
    let llama3 = ModelSpec {
        sub_norms: false,
        num_layers: 1,
        extras: Extras {
            post_norms: true,
            rope_scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 128.0,
            },
            ..Extras::default()
        },
        ..base.clone()
    };
    vec![
        sample("norms of heads and projections (Qwen3)", qwen3, DType::BF16, 6, 75),
        sample("all norms, gelu, windows (Gemma 3)", gemma3, DType::F32, 7, 280),
        sample("windows over ranges, rotary factors", window, DType::F16, 8, 560),
        sample("norms behind attention, scaled rotation", llama3, DType::F16, 9, 75),
    ]
}

fn sample(name: &'static str, spec: ModelSpec, dtype: DType, seed: u64, longest: usize) -> Sample {
    let mut random = Random::new(seed);
    let weights = random_weights(&spec, dtype, &mut random);
    Sample { longest, name, spec, weights }
}

/// Random weights for `spec`, whose projections must have rows in multiples of four.
pub fn random_weights(spec: &ModelSpec, dtype: DType, random: &mut Random) -> Weights {
    let mut layers = Vec::new();
    for _ in 0..spec.num_layers {
        let (h, f, q, kv) = (spec.hidden_size, spec.intermediate_size, spec.q_size(), spec.kv_size());
        layers.push(LayerWeights {
            attn_norm: norm(h, random),
            q: ternary(q, h, random),
            k: ternary(kv, h, random),
            v: ternary(kv, h, random),
            attn_sub_norm: spec.sub_norms.then(|| norm(q, random)),
            o: ternary(h, q, random),
            ffn_norm: norm(h, random),
            gate: ternary(f, h, random),
            up: ternary(f, h, random),
            ffn_sub_norm: spec.sub_norms.then(|| norm(f, random)),
            down: ternary(h, f, random),
            extras: extras(spec, random),
        });
    }
    Weights {
        embedding: dense(spec, dtype, random),
        output: (!spec.tied_output).then(|| dense(spec, dtype, random)),
        final_norm: norm(spec.hidden_size, random),
        layers,
    }
}

fn extras(spec: &ModelSpec, random: &mut Random) -> LayerExtras {
    let (hidden, head) = (spec.hidden_size, spec.head_dim);
    LayerExtras {
        head_norms: spec.extras.head_norms.then(|| std::array::from_fn(|_| norm(head, random))),
        projection_norms: spec.extras.projection_norms.then(|| std::array::from_fn(|_| norm(hidden, random))),
        post_norms: spec.extras.post_norms.then(|| std::array::from_fn(|_| norm(hidden, random))),
    }
}

fn norm(len: usize, random: &mut Random) -> Vec<f32> {
    (0..len).map(|_| 1.0 + 0.3 * random.next_f32()).collect()
}

fn ternary(rows: usize, cols: usize, random: &mut Random) -> TernaryMatrix {
    let trits: Vec<i8> = (0..rows * cols).map(|_| random.next_trit()).collect();
    let bytes = pack_hf(&trits, rows, cols).expect("rows in multiples of four");
    let scale = (1.0 + 0.5 * random.next_f32()) / (cols as f32).sqrt();
    TernaryMatrix::new(rows, cols, scale, TritCodec::HfPacked, RowOrder::Natural, ByteView::from_vec(bytes))
        .expect("packed to fit")
}

fn dense(spec: &ModelSpec, dtype: DType, random: &mut Random) -> DenseTensor {
    let values: Vec<f32> = (0..spec.vocab_size * spec.hidden_size).map(|_| random.next_f32()).collect();
    let data = ByteView::from_vec(dtype.encode(&values));
    DenseTensor::new(spec.vocab_size, spec.hidden_size, dtype, data).expect("encoded to fit")
}

/// Builds an executor for a sample.
pub type Build<'a> = &'a mut dyn FnMut(&Sample) -> Result<Box<dyn Executor>, ExecError>;

/// Runs the suite against the oracle that keeps keys and values as `kv_type`; the first difference is returned as text.
///
/// # Errors
/// What differs and where.
pub fn run(tolerance: Tolerance, kv_type: KvType, build: Build<'_>) -> Result<(), String> {
    samples().iter().try_for_each(|sample| run_sample(sample, tolerance, kv_type, build))
}

/// Runs the suite with one model.
///
/// # Errors
/// As [`run`].
pub fn run_sample(
    sample: &Sample,
    tolerance: Tolerance,
    kv_type: KvType,
    build: Build<'_>,
) -> Result<(), String> {
    let texts: Vec<Vec<u32>> = [sample.longest, 5, 33].iter().map(|&n| tokens(sample, n)).collect();
    let oracle = oracle_logits(sample, kv_type, &texts).map_err(|e| e.to_string())?;
    let mut executor = build(sample).map_err(|e| format!("{}: {e}", sample.name))?;
    let cases: &[(&str, &[usize])] = &[
        ("whole", &[1024]),
        ("token by token", &[1]),
        ("chunks of 7", &[7]),
        ("chunks", &[1, 40, 2, 12, 13]),
    ];
    for (case, chunks) in cases {
        let got = prefill(&mut *executor, &texts[0], chunks).map_err(|e| e.to_string())?;
        let name = format!("{}, {case}", sample.name);
        compare(&name, tolerance, &got, &oracle[0], sample.spec.vocab_size)?;
    }
    calls::check_hidden(&mut *executor, sample, kv_type, tolerance, &texts[2])?;
    calls::check_copies(&mut *executor, sample, tolerance, &texts[0], &oracle[0])?;
    calls::check_stored(&mut *executor, sample, kv_type, tolerance, &texts[0], &oracle[0])?;
    calls::check_select(&mut *executor, sample, &texts[2])?;
    let got = interleaved(&mut *executor, &texts).map_err(|e| e.to_string())?;
    for (i, (got, want)) in got.iter().zip(&oracle).enumerate() {
        let name = format!("{}, sequence {i} in a mixed batch", sample.name);
        compare(&name, tolerance, got, want, sample.spec.vocab_size)?;
    }
    Ok(())
}

fn tokens(sample: &Sample, count: usize) -> Vec<u32> {
    let mut random = Random::new(count as u64);
    (0..count).map(|_| (random.next_u64() % sample.spec.vocab_size as u64) as u32).collect()
}

fn oracle_logits(sample: &Sample, kv_type: KvType, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ExecError> {
    let mut oracle = ReferenceExecutor::new(sample.spec.clone(), &sample.weights, kv_type)?;
    texts.iter().map(|t| prefill(&mut oracle, t, &[t.len()])).collect()
}

/// Logits of all tokens, computed in chunks whose sizes go round.
///
/// # Errors
/// As [`Executor::forward`].
pub fn prefill(executor: &mut dyn Executor, tokens: &[u32], chunks: &[usize]) -> Result<Vec<f32>, ExecError> {
    let vocab = executor.spec().vocab_size;
    let count = tokens.len().div_ceil(executor.info().block_size) as u32;
    executor.reserve_blocks(count as usize)?;
    // Blocks in descending order: tables need not be sorted.
    let blocks: Vec<u32> = (0..count).rev().collect();
    let mut logits = vec![0.0; tokens.len() * vocab];
    let mut position = 0;
    for &chunk in chunks.iter().cycle() {
        let end = tokens.len().min(position + chunk);
        let s =
            Sequence { tokens: &tokens[position..end], position, blocks: &blocks, logits: LogitRows::All };
        executor.forward(&Batch { sequences: &[s] }, &mut logits[position * vocab..end * vocab])?;
        position = end;
        if position == tokens.len() {
            break;
        }
    }
    Ok(logits)
}

/// Logits of several sequences that share every batch, each in chunks of its own size.
fn interleaved(executor: &mut dyn Executor, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ExecError> {
    let vocab = executor.spec().vocab_size;
    let block_size = executor.info().block_size;
    let per_text = texts.iter().map(|t| t.len().div_ceil(block_size)).max().unwrap_or(0);
    executor.reserve_blocks(per_text * texts.len())?;
    let tables: Vec<Vec<u32>> =
        (0..texts.len()).map(|i| (0..per_text).map(|b| (b * texts.len() + i) as u32).collect()).collect();
    let mut out: Vec<Vec<f32>> = texts.iter().map(|_| Vec::new()).collect();
    let mut positions = vec![0; texts.len()];
    while positions.iter().zip(texts).any(|(&p, t)| p < t.len()) {
        let mut sequences = Vec::new();
        let mut owners = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let (start, end) = (positions[i], text.len().min(positions[i] + 1 + 5 * i));
            if start < end {
                let tokens = &text[start..end];
                sequences.push(Sequence {
                    tokens,
                    position: start,
                    blocks: &tables[i],
                    logits: LogitRows::All,
                });
                owners.push((i, end));
            }
        }
        let batch = Batch { sequences: &sequences };
        let mut logits = vec![0.0; batch.logit_rows() * vocab];
        executor.forward(&batch, &mut logits)?;
        let mut at = 0;
        for ((i, end), s) in owners.into_iter().zip(&sequences) {
            let len = s.tokens.len() * vocab;
            out[i].extend_from_slice(&logits[at..at + len]);
            at += len;
            positions[i] = end;
        }
    }
    Ok(out)
}

/// Compares rows of logits.
///
/// # Errors
/// What differs and where.
pub fn compare(
    name: &str,
    tolerance: Tolerance,
    got: &[f32],
    want: &[f32],
    vocab: usize,
) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{name}: {} logits instead of {}", got.len(), want.len()));
    }
    for (row, (got, want)) in got.chunks_exact(vocab).zip(want.chunks_exact(vocab)).enumerate() {
        match tolerance {
            Tolerance::Bits => {
                if let Some(i) = (0..vocab).find(|&i| got[i].to_bits() != want[i].to_bits()) {
                    return Err(format!("{name}: row {row}, logit {i} is {:e}, not {:e}", got[i], want[i]));
                }
            }
            Tolerance::Relative(limit) => {
                let error = relative_error(got, want);
                if error.is_nan() || error > limit {
                    return Err(format!("{name}: row {row} differs by {error:e}, more than {limit:e}"));
                }
            }
        }
    }
    Ok(())
}

/// `|a - b|_2 / |b|_2`.
pub fn relative_error(a: &[f32], b: &[f32]) -> f32 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(a - b)).sum();
    let norm: f64 = b.iter().map(|&b| square(b)).sum();
    (difference / norm).sqrt() as f32
}
