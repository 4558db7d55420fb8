//! [`Model`]: the weights as arrays of MLX.
//!
//! The output layer is kept in single precision, whatever the type of its table: MLX's products give results in the type
//! of what they multiply, and logits of half precision would tie. Rows of the embedding are read by the host, from the
//! file if they lie there.

use bitnet_core::MemorySize;
use bitnet_model::{DenseTensor, ExecError, LayerWeights, ModelSpec, Weights};
use bitnet_quant::TernaryMatrix;

use crate::error::MlxError;
use crate::pack::{Matrix, Shared, int, pack, padded};
use crate::sys::{Array, Dtype, Pages, Stream, clear_cache, eval};

/// Values of a dense table that are read at a time.
const READ_STEP: usize = 2 << 20;

/// The norms of a layer.
#[derive(Debug)]
pub(crate) struct Norms {
    pub(crate) attention: Array,
    pub(crate) attention_sub: Option<Array>,
    pub(crate) ffn: Array,
    pub(crate) ffn_sub: Option<Array>,
    /// Over heads, `[query heads + key heads, head_dim]`.
    pub(crate) heads: Option<Array>,
    /// Before `q`, `k`, `v`, `gate` and `up`.
    pub(crate) projections: Option<[Array; 5]>,
    pub(crate) post: Option<[Array; 2]>,
}

/// A layer. Queries, keys and values are one matrix, gate and up another, but where each has a norm of its own.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) qkv: Vec<Matrix>,
    pub(crate) o: Matrix,
    pub(crate) gate_up: Vec<Matrix>,
    pub(crate) down: Matrix,
    pub(crate) norms: Norms,
}

/// All weights.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden_size, vocab_size]`, a transposed view of the table.
    pub(crate) output: Array,
    pub(crate) final_norm: Array,
    /// Rows are read from here.
    pub(crate) embedding: DenseTensor,
    /// Bytes of the ternary weights with what they share.
    pub(crate) ternary_bytes: u64,
    /// Bytes of all weights.
    pub(crate) bytes: u64,
}

impl Model {
    /// Packs weights. `progress` hears how many ternary weights are done, and how many there are.
    ///
    /// # Errors
    /// Damaged weights, shapes that are not supported, no memory, or more than `budget`.
    pub(crate) fn new(
        stream: &Stream,
        spec: ModelSpec,
        weights: &Weights,
        budget: Option<MemorySize>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        if let Some(free) = budget {
            let needed = MemorySize::bytes(estimate(&spec));
            if needed > free {
                return Err(MlxError::OutOfMemory { needed, free: Some(free) }.into());
            }
        }
        let total = spec.ternary_parameters();
        let mut loader = Loader { stream, shared: Shared::default(), bytes: 0, norm_bytes: 0 };
        let mut layers = Vec::with_capacity(weights.layers.len());
        for (number, layer) in weights.layers.iter().enumerate() {
            layers.push(loader.layer(number, &spec, layer)?);
            progress(total * (number as u64 + 1) / weights.layers.len() as u64, total);
        }
        let table = loader.table(weights.output_layer())?;
        let final_norm = loader.norm(&weights.final_norm)?;
        let ternary_bytes = loader.bytes + loader.shared.bytes;
        let bytes = ternary_bytes + loader.norm_bytes + table.bytes() as u64;
        let output = stream.transpose(&table, &[1, 0])?;
        eval(&[&output])?;
        clear_cache()?;
        let embedding = weights.embedding.clone();
        Ok(Self { spec, layers, output, final_norm, embedding, ternary_bytes, bytes })
    }

    /// Bytes of the output layer.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.output.bytes() as u64
    }

    /// Bytes of the embedding, which stays where it is.
    pub(crate) fn embedding_bytes(&self) -> u64 {
        self.embedding.data().len() as u64
    }
}

/// Bytes that the weights of a model will take, without what is small.
fn estimate(spec: &ModelSpec) -> u64 {
    let (h, q, f) = (spec.hidden_size, spec.q_size(), spec.intermediate_size);
    let codes = |rows: usize, columns: usize| (rows * padded(columns) / 4) as u64;
    let layer = codes(q + 2 * spec.kv_size(), h) + codes(h, q) + codes(2 * f, h) + codes(h, f);
    spec.num_layers as u64 * layer + 4 * (spec.vocab_size * h) as u64
}

struct Loader<'a> {
    stream: &'a Stream,
    shared: Shared,
    /// Of matrices, without what they share.
    bytes: u64,
    norm_bytes: u64,
}

impl Loader<'_> {
    fn layer(&mut self, number: usize, spec: &ModelSpec, l: &LayerWeights) -> Result<Layer, ExecError> {
        let names = ["q", "k", "v", "o", "gate", "up", "down"].map(|name| format!("layer {number} {name}"));
        let [q, k, v, o, gate, up, down] = &names;
        let qkv = [(q.as_str(), &l.q), (k.as_str(), &l.k), (v.as_str(), &l.v)];
        let gate_up = [(gate.as_str(), &l.gate), (up.as_str(), &l.up)];
        let separate = spec.extras.projection_norms;
        let layer = Layer {
            qkv: self.stacked(&qkv, separate)?,
            o: self.matrix(&[(o, &l.o)])?,
            gate_up: self.stacked(&gate_up, separate)?,
            down: self.matrix(&[(down, &l.down)])?,
            norms: self.norms(spec, l)?,
        };
        let all = layer.qkv.iter().chain(&layer.gate_up).chain([&layer.o, &layer.down]);
        eval(&all.map(|matrix| &matrix.codes.words).collect::<Vec<_>>())?;
        for (_, matrix) in l.projections() {
            matrix.data().release();
        }
        Ok(layer)
    }

    /// One matrix of all, or one of each.
    fn stacked(&mut self, all: &[(&str, &TernaryMatrix)], separate: bool) -> Result<Vec<Matrix>, ExecError> {
        let each = if separate { 1 } else { all.len() };
        all.chunks(each).map(|matrices| self.matrix(matrices)).collect()
    }

    fn matrix(&mut self, matrices: &[(&str, &TernaryMatrix)]) -> Result<Matrix, ExecError> {
        let packed = pack(self.stream, &mut self.shared, matrices)?;
        self.bytes += packed.bytes;
        Ok(packed)
    }

    fn norm(&mut self, weight: &[f32]) -> Result<Array, MlxError> {
        self.norm_bytes += size_of_val(weight) as u64;
        Array::from_f32(weight, &[int(weight.len())?])
    }

    fn norms(&mut self, spec: &ModelSpec, l: &LayerWeights) -> Result<Norms, MlxError> {
        let heads = match &l.extras.head_norms {
            Some([queries, keys]) => {
                let mut all = queries.repeat(spec.num_heads);
                all.extend(keys.repeat(spec.num_kv_heads));
                let heads = spec.num_heads + spec.num_kv_heads;
                self.norm_bytes += size_of_val(&all[..]) as u64;
                Some(Array::from_f32(&all, &[int(heads)?, int(spec.head_dim)?])?)
            }
            None => None,
        };
        let mut optional = |weight: &Option<Vec<f32>>| weight.as_deref().map(|w| self.norm(w)).transpose();
        let (attention_sub, ffn_sub) = (optional(&l.attn_sub_norm)?, optional(&l.ffn_sub_norm)?);
        let projections = match &l.extras.projection_norms {
            Some([q, k, v, gate, up]) => {
                Some([self.norm(q)?, self.norm(k)?, self.norm(v)?, self.norm(gate)?, self.norm(up)?])
            }
            None => None,
        };
        let post = match &l.extras.post_norms {
            Some([attention, ffn]) => Some([self.norm(attention)?, self.norm(ffn)?]),
            None => None,
        };
        let (attention, ffn) = (self.norm(&l.attn_norm)?, self.norm(&l.ffn_norm)?);
        Ok(Norms { attention, attention_sub, ffn, ffn_sub, heads, projections, post })
    }

    /// A dense table in single precision, `[rows, columns]`.
    fn table(&self, table: &DenseTensor) -> Result<Array, ExecError> {
        let (rows, columns) = (table.rows(), table.cols());
        let mut pages = Pages::zeroed(4 * rows * columns)?;
        let out: &mut [f32] = bytemuck::cast_slice_mut(pages.bytes_mut());
        let step = (READ_STEP / columns.max(1)).max(1);
        let mut scratch = Vec::new();
        for (first, out) in (0..rows).step_by(step).zip(out[..rows * columns].chunks_mut(step * columns)) {
            let read = table.read_rows(first..rows.min(first + step), &mut scratch)?;
            read.dtype.decode(read.bytes, out);
        }
        let all = Array::adopt(pages, Dtype::F32)?;
        let used = self.stream.part(&all, 0, 0..int(rows * columns)?)?;
        Ok(self.stream.reshape(&used, &[int(rows)?, int(columns)?])?)
    }
}
