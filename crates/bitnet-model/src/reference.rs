//! The forward pass in plain scalar Rust: the oracle.
//!
//! Trits are held as `i8`, products are triple loops, nothing is fused, blocked or threaded. It defines, in the most
//! readable form, which operations happen in which order; float reductions and `exp` come from [`bitnet_core::lanes`].
//! CPU executors must produce the same bits, GPU executors the same values within their stated tolerance.

mod attention;
mod layer;
mod walk;

use bitnet_core::{MemorySize, lanes};

use self::attention::LayerCache;
pub use self::layer::Site;
use self::layer::{Hook, Layer, Place};
pub use self::walk::{Observer, walk};
use crate::executor::{
    Batch, ExecError, Executor, ExecutorInfo, Give, LogitRows, Sequence, Traffic, check_blocks,
    read_embedding_rows,
};
use crate::kv::KvType;
use crate::kv_rows::KvRows;
use crate::weights::{DenseTensor, Weights};
use crate::{ModelSpec, RopeScaling};

/// Tokens in one KV block of the oracle: small and odd on purpose, so that tests cross block borders.
const BLOCK_SIZE: usize = 5;

/// Rotary angles of one position: `cos` and `sin` of `position * theta^(-2j / head_dim)`, `[head_dim / 2]` each, with the
/// frequencies scaled as the model wants it. `sliding` asks for the angles of layers with a sliding window.
///
/// The angle is rounded to f32 as in transformers; sine and cosine are computed in f64 and rounded once.
pub fn rope_angles(spec: &ModelSpec, sliding: bool, position: usize, cos: &mut [f32], sin: &mut [f32]) {
    let (theta, scaling) = match &spec.extras.sliding {
        Some(window) if sliding => (window.rope_theta, &RopeScaling::None),
        _ => (spec.rope_theta, &spec.extras.rope_scaling),
    };
    for (j, (c, s)) in cos.iter_mut().zip(sin).enumerate() {
        let inv_freq = scaling.apply(j, 1.0 / theta.powf((2 * j) as f64 / spec.head_dim as f64));
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
        let layers: Result<Vec<Layer>, ExecError> =
            weights.layers.iter().enumerate().map(|(number, layer)| Layer::new(number, layer)).collect();
        let layers = layers?;
        let cache = layers.iter().map(|_| LayerCache::new(&spec, kv_type)).collect();
        let (embedding, output) = (weights.embedding.clone(), weights.output_layer().clone());
        let final_norm = weights.final_norm.clone();
        Ok(Self { spec, layers, embedding, output, final_norm, cache, kv_type, blocks: 0, hook: None })
    }

    /// Calls `hook` for every row that is quantised: to look at activations, and to study rounding.
    pub fn set_hook(&mut self, hook: Option<QuantizeHook>) {
        self.hook = hook;
    }

    /// One token through all layers, from `row` instead of its row of the embedding if that is given; returns the residual
    /// stream.
    fn token(&mut self, s: &Sequence<'_>, index: usize, row: Option<&[f32]>) -> Vec<f32> {
        let position = s.position + index;
        let mut x = match row {
            Some(row) => scaled(&self.spec, row.to_vec()),
            None => embedded(&self.spec, &self.embedding, s.tokens[index]),
        };
        for (number, (layer, cache)) in self.layers.iter().zip(&mut self.cache).enumerate() {
            let place = Place { layer: number, blocks: s.blocks, position };
            let hook = self.hook.as_mut().map(|hook| &mut **hook as Hook<'_>);
            layer.forward(&self.spec, place, cache, &mut x, hook);
        }
        x
    }

    /// The hidden state behind the final norm.
    fn hidden(&self, x: &[f32]) -> Vec<f32> {
        let mut h = vec![0.0; x.len()];
        lanes::rms_norm(x, &self.final_norm, self.spec.rms_norm_eps, &mut h);
        h
    }

    fn give_hidden(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(&self.hidden(x));
    }

    fn logits(&self, x: &[f32], out: &mut [f32]) {
        let h = self.hidden(x);
        let mut row = vec![0.0; x.len()];
        for (i, logit) in out.iter_mut().enumerate() {
            self.output.decode_row(i, &mut row);
            *logit = lanes::dot(&h, &row);
        }
    }

    /// Runs the batch, from `input` instead of its tokens if that is given; `finish` turns the residual stream of each wanted token into its row of the result.
    fn run(
        &mut self,
        batch: &Batch<'_>,
        input: Option<&[f32]>,
        out: &mut [f32],
        width: usize,
        finish: impl Fn(&Self, &[f32], &mut [f32]),
    ) -> Result<(), ExecError> {
        let mut rows = out.chunks_exact_mut(width);
        let mut input = input.map(|rows| rows.chunks_exact(self.spec.hidden_size));
        for s in batch.sequences {
            for index in 0..s.tokens.len() {
                let x = self.token(s, index, input.as_mut().and_then(Iterator::next));
                let wanted = match s.logits {
                    LogitRows::None => false,
                    LogitRows::Last => index + 1 == s.tokens.len(),
                    LogitRows::All => true,
                };
                if wanted && let Some(out) = rows.next() {
                    finish(self, &x, out);
                }
            }
        }
        if out.iter().all(|l| l.is_finite()) { Ok(()) } else { Err(ExecError::NotFinite) }
    }
}

/// The residual stream of a token before the first layer.
fn embedded(spec: &ModelSpec, embedding: &DenseTensor, token: u32) -> Vec<f32> {
    let mut x = vec![0.0; spec.hidden_size];
    embedding.decode_row(token as usize, &mut x);
    scaled(spec, x)
}

/// A row of the embedding as the first layer gets it.
fn scaled(spec: &ModelSpec, mut x: Vec<f32>) -> Vec<f32> {
    if spec.extras.scaled_embedding {
        x.iter_mut().for_each(|x| *x *= spec.embedding_scale());
    }
    x
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

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        check_blocks(&[from, to], self.blocks)?;
        for cache in &mut self.cache {
            cache.copy(from as usize, to as usize);
        }
        Ok(())
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.blocks)?;
        let rows = KvRows::new(&self.spec, self.kv_type);
        rows.check(positions, BLOCK_SIZE, out.len())?;
        for (slot, out) in out.chunks_exact_mut(rows.position_bytes()).enumerate() {
            let slot = block as usize * BLOCK_SIZE + slot;
            for ((layer, part, head), row) in rows.places().zip(out.chunks_exact_mut(rows.row_bytes())) {
                self.cache[layer].give_row(slot, part, head, row);
            }
        }
        Ok(())
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.blocks)?;
        let rows = KvRows::new(&self.spec, self.kv_type);
        rows.check(positions, BLOCK_SIZE, bytes.len())?;
        for (slot, bytes) in bytes.chunks_exact(rows.position_bytes()).enumerate() {
            let slot = block as usize * BLOCK_SIZE + slot;
            for ((layer, part, head), row) in rows.places().zip(bytes.chunks_exact(rows.row_bytes())) {
                self.cache[layer].take_row(slot, part, head, row);
            }
        }
        Ok(())
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.spec, BLOCK_SIZE, self.blocks)?;
        batch.check_output(&self.spec, logits)?;
        self.run(batch, None, logits, self.spec.vocab_size, Self::logits)
    }

    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.spec, BLOCK_SIZE, self.blocks)?;
        batch.check_hidden(&self.spec, hidden)?;
        self.run(batch, None, hidden, self.spec.hidden_size, Self::give_hidden)
    }

    fn embedding_rows(&mut self, tokens: &[u32], rows: &mut [f32]) -> Result<(), ExecError> {
        read_embedding_rows(&self.spec, &self.embedding, tokens, rows)
    }

    fn forward_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &[f32],
        give: Give,
        out: &mut [f32],
    ) -> Result<(), ExecError> {
        batch.validate(&self.spec, BLOCK_SIZE, self.blocks)?;
        batch.check_rows(&self.spec, rows)?;
        match give {
            Give::Logits => {
                batch.check_output(&self.spec, out)?;
                self.run(batch, Some(rows), out, self.spec.vocab_size, Self::logits)
            }
            Give::Hidden => {
                batch.check_hidden(&self.spec, out)?;
                self.run(batch, Some(rows), out, self.spec.hidden_size, Self::give_hidden)
            }
        }
    }
}

impl std::fmt::Debug for ReferenceExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReferenceExecutor({} layers, {} KV blocks)", self.layers.len(), self.blocks)
    }
}
