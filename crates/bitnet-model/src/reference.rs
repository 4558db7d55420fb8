//! The forward pass in plain scalar Rust: the oracle.
//!
//! Trits are held as `i8`, products are triple loops, nothing is fused, blocked or threaded. It defines, in the most
//! readable form, which operations happen in which order; float reductions and `exp` come from [`bitnet_core::lanes`].
//! CPU executors must produce the same bits, GPU executors the same values within their stated tolerance.

mod attention;

use bitnet_core::{MemorySize, lanes};
use bitnet_quant::{TernaryMatrix, absmax};

use self::attention::{LayerCache, attention, slot};
use crate::executor::{Batch, ExecError, Executor, ExecutorInfo, LogitRows, Sequence, Traffic};
use crate::kv::KvType;
use crate::weights::{DenseTensor, Weights};
use crate::{Activation, ModelSpec};

/// Tokens in one KV block of the oracle: small and odd on purpose, so that tests cross block borders.
const BLOCK_SIZE: usize = 5;

/// Rotary angles of one position: `cos` and `sin` of `position * theta^(-2j / head_dim)`, `[head_dim / 2]` each.
///
/// The angle is rounded to f32 as in transformers; sine and cosine are computed in f64 and rounded once.
pub fn rope_angles(spec: &ModelSpec, position: usize, cos: &mut [f32], sin: &mut [f32]) {
    for (j, (c, s)) in cos.iter_mut().zip(sin).enumerate() {
        let inv_freq = 1.0 / spec.rope_theta.powf((2 * j) as f64 / spec.head_dim as f64);
        let angle = f64::from(position as f32 * inv_freq as f32);
        (*c, *s) = (angle.cos() as f32, angle.sin() as f32);
    }
}

/// Rotates one head in half-split pairing: element `j` with element `j + head_dim / 2`.
#[inline(always)]
pub fn rope_rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(cos.len());
    for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

/// A ternary matrix as plain trits.
struct Matrix {
    cols: usize,
    scale: f32,
    trits: Vec<i8>,
}

impl Matrix {
    fn new(name: &str, m: &TernaryMatrix) -> Result<Self, ExecError> {
        let trits = m.to_trits().map_err(|source| ExecError::Weights { tensor: name.to_owned(), source })?;
        Ok(Self { cols: m.cols(), scale: m.scale(), trits })
    }

    /// `y[r] = sum(q * t) * (scale / s)` for one quantised row.
    fn multiply(&self, q: &[i8], s: f32) -> Vec<f32> {
        let factor = self.scale / s;
        self.trits
            .chunks_exact(self.cols)
            .map(|row| {
                let sum: i32 = row.iter().zip(q).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum();
                sum as f32 * factor
            })
            .collect()
    }
}

struct Layer {
    attn_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    attn_sub_norm: Option<Vec<f32>>,
    o: Matrix,
    ffn_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    ffn_sub_norm: Option<Vec<f32>>,
    down: Matrix,
}

/// Where a row is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Layer, from 0.
    pub layer: usize,
    /// The projections that read the row: `q, k, v`, `o`, `gate, up` or `down`.
    pub projection: &'static str,
    /// Position of the token.
    pub position: usize,
}

/// Sees a row before quantisation, its scale and its int8 values, which it may change.
pub type QuantizeHook = Box<dyn FnMut(Site, &[f32], f32, &mut [i8]) + Send>;

/// The oracle as an [`Executor`].
pub struct ReferenceExecutor {
    spec: ModelSpec,
    layers: Vec<Layer>,
    embedding: DenseTensor,
    output: DenseTensor,
    final_norm: Vec<f32>,
    cache: Vec<LayerCache>,
    kv_type: KvType,
    blocks: usize,
    hook: Option<QuantizeHook>,
}

impl ReferenceExecutor {
    /// Unpacks all weights to one byte a trit. Keys and values are kept as `kv_type` says.
    ///
    /// # Errors
    /// [`ExecError::Weights`] if a ternary tensor is damaged.
    pub fn new(spec: ModelSpec, weights: &Weights, kv_type: KvType) -> Result<Self, ExecError> {
        let mut layers = Vec::with_capacity(weights.layers.len());
        for (i, l) in weights.layers.iter().enumerate() {
            let matrix = |name: &str, m| Matrix::new(&format!("layer {i} {name}"), m);
            layers.push(Layer {
                attn_norm: l.attn_norm.clone(),
                q: matrix("q", &l.q)?,
                k: matrix("k", &l.k)?,
                v: matrix("v", &l.v)?,
                attn_sub_norm: l.attn_sub_norm.clone(),
                o: matrix("o", &l.o)?,
                ffn_norm: l.ffn_norm.clone(),
                gate: matrix("gate", &l.gate)?,
                up: matrix("up", &l.up)?,
                ffn_sub_norm: l.ffn_sub_norm.clone(),
                down: matrix("down", &l.down)?,
            });
        }
        let cache = layers.iter().map(|_| LayerCache::new(&spec, kv_type)).collect();
        let (embedding, output) = (weights.embedding.clone(), weights.output_layer().clone());
        let final_norm = weights.final_norm.clone();
        Ok(Self { spec, layers, embedding, output, final_norm, cache, kv_type, blocks: 0, hook: None })
    }

    /// Calls `hook` for every row that is quantised: to look at activations, and to study rounding.
    pub fn set_hook(&mut self, hook: Option<QuantizeHook>) {
        self.hook = hook;
    }

    /// One token through all layers; returns the residual stream.
    fn token(&mut self, s: &Sequence<'_>, index: usize) -> Vec<f32> {
        let spec = &self.spec;
        let position = s.position + index;
        let mut x = vec![0.0; spec.hidden_size];
        self.embedding.decode_row(s.tokens[index] as usize, &mut x);
        let hook = &mut self.hook;
        for (number, (layer, cache)) in self.layers.iter().zip(&mut self.cache).enumerate() {
            let mut quantize = |projection, x: &[f32], norm: Option<&Vec<f32>>| {
                let (h, mut q, scale) = norm_and_quantize(x, norm.map(Vec::as_slice), spec.rms_norm_eps);
                if let Some(hook) = hook {
                    hook(Site { layer: number, projection, position }, &h, scale, &mut q);
                }
                (q, scale)
            };
            let (q, scale) = quantize("q, k, v", &x, Some(&layer.attn_norm));
            let mut query = layer.q.multiply(&q, scale);
            let mut key = layer.k.multiply(&q, scale);
            let value = layer.v.multiply(&q, scale);
            rotate_heads(spec, position, &mut query);
            rotate_heads(spec, position, &mut key);
            cache.store(slot(s.blocks, position), &key, &value);
            let o = attention(spec, cache, s.blocks, position, &query);
            let (q, scale) = quantize("o", &o, layer.attn_sub_norm.as_ref());
            add(&mut x, &layer.o.multiply(&q, scale));

            let (q, scale) = quantize("gate, up", &x, Some(&layer.ffn_norm));
            let mut m = layer.gate.multiply(&q, scale);
            for (g, u) in m.iter_mut().zip(layer.up.multiply(&q, scale)) {
                *g = match spec.activation {
                    Activation::Relu2 => lanes::relu2(*g),
                    Activation::Silu => lanes::silu(*g),
                } * u;
            }
            let (q, scale) = quantize("down", &m, layer.ffn_sub_norm.as_ref());
            add(&mut x, &layer.down.multiply(&q, scale));
        }
        x
    }

    fn logits(&self, x: &[f32], out: &mut [f32]) {
        let mut h = vec![0.0; x.len()];
        lanes::rms_norm(x, &self.final_norm, self.spec.rms_norm_eps, &mut h);
        let mut row = vec![0.0; x.len()];
        for (i, logit) in out.iter_mut().enumerate() {
            self.output.decode_row(i, &mut row);
            *logit = lanes::dot(&h, &row);
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// RMS norm, if there is one, and int8 quantisation of one row: the normed row, its int8 values and their scale.
fn norm_and_quantize(x: &[f32], weight: Option<&[f32]>, eps: f32) -> (Vec<f32>, Vec<i8>, f32) {
    let mut h = x.to_vec();
    if let Some(weight) = weight {
        lanes::rms_norm(x, weight, eps, &mut h);
    }
    let mut q = vec![0; h.len()];
    let scale = absmax::quantize_row(&h, &mut q);
    (h, q, scale)
}

fn rotate_heads(spec: &ModelSpec, position: usize, heads: &mut [f32]) {
    let half = spec.head_dim / 2;
    let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
    rope_angles(spec, position, &mut cos, &mut sin);
    for head in heads.chunks_exact_mut(spec.head_dim) {
        rope_rotate(head, &cos, &sin);
    }
}

impl Executor for ReferenceExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn info(&self) -> ExecutorInfo {
        let dense = self.embedding.data().len() + self.output.data().len();
        let block_bytes: usize = self.cache.iter().map(LayerCache::block_bytes).sum();
        ExecutorInfo {
            description: "cpu (scalar reference, 1 thread)".to_owned(),
            weight_bytes: MemorySize::bytes(self.spec.ternary_parameters() + dense as u64),
            file_bytes: MemorySize::bytes(0),
            block_size: BLOCK_SIZE,
            block_bytes: MemorySize::bytes(block_bytes as u64),
            kv_type: self.kv_type,
            max_batch_tokens: 64,
            kernels: "reference",
            threads: 1,
            traffic: Traffic {
                layers: MemorySize::bytes(self.spec.ternary_parameters()),
                output: MemorySize::bytes(self.output.data().len() as u64),
                output_scan: MemorySize::bytes(self.output.data().len() as u64),
            },
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        if count > self.blocks {
            for cache in &mut self.cache {
                cache.resize(count);
            }
            self.blocks = count;
        }
        Ok(())
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.spec, BLOCK_SIZE, self.blocks)?;
        batch.check_output(&self.spec, logits)?;
        let vocab = self.spec.vocab_size;
        let mut rows = logits.chunks_exact_mut(vocab);
        for s in batch.sequences {
            for index in 0..s.tokens.len() {
                let x = self.token(s, index);
                let wanted = match s.logits {
                    LogitRows::None => false,
                    LogitRows::Last => index + 1 == s.tokens.len(),
                    LogitRows::All => true,
                };
                if wanted && let Some(out) = rows.next() {
                    self.logits(&x, out);
                }
            }
        }
        if logits.iter().all(|l| l.is_finite()) { Ok(()) } else { Err(ExecError::NotFinite) }
    }
}

impl std::fmt::Debug for ReferenceExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReferenceExecutor({} layers, {} KV blocks)", self.layers.len(), self.blocks)
    }
}
