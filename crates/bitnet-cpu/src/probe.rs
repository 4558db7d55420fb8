//! Single kernels on the calling thread, for measurements: what `cargo bench -p bitnet-cpu` runs.
//!
//! Each struct owns the buffers of one kernel, filled with made-up numbers, and `run` calls that kernel of one kernel
//! set once, on the calling thread. How threads share kernels out is measured with whole passes of
//! [`crate::CpuExecutor`]. All `new` take the name of a kernel set as [`crate::kernel_sets`] lists it.

use bitnet_core::DType;
use bitnet_core::buffer::AlignedBuf;
use bitnet_model::kv::RANGE;
use bitnet_model::{Activation, ExecError, Extras, KvType, ModelSpec};
use bitnet_quant::TernaryMatrix;

use crate::kernels::attention::{self, Attend, AttendScratch, QUERIES, Query, state_len};
use crate::kernels::{self, KernelSet};
use crate::kv::{BLOCK_SIZE, KvCache, KvLayout, KvPart};
use crate::layout::{Form, QUAD};
use crate::linear::{BitLinear, QuantizedRows};

/// Added to the mean of squares.
const EPS: f32 = 1e-5;

fn kernel_set(name: &str) -> Result<&'static KernelSet, ExecError> {
    kernels::choose(Some(name)).map_err(|what| ExecError::Unsupported { backend: "cpu", what })
}

/// Made-up activations with some large ones among them.
fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin() * (1 + i % 13) as f32).collect()
}

/// The ternary product of some quantised rows, without the quantisation.
pub struct TernaryProduct {
    layer: BitLinear,
    rows: QuantizedRows,
    out: Vec<f32>,
}

impl TernaryProduct {
    /// Packs `matrix` in `form` and makes up `rows` quantised rows.
    ///
    /// # Errors
    /// As [`BitLinear::new`].
    ///
    /// # Panics
    /// If `rows` is 0.
    pub fn new(matrix: &TernaryMatrix, kernels: &str, form: Form, rows: usize) -> Result<Self, ExecError> {
        assert!(rows > 0, "at least one row");
        let mut layer = BitLinear::with_form(matrix, Some(kernels), form)?;
        let quantized = layer.quantize_rows(&wave(rows * matrix.cols()))?;
        let out = vec![0.0; rows * layer.padded_rows()];
        Ok(Self { layer, rows: quantized, out })
    }

    /// Bytes of the packed weights, all of which one run reads.
    pub fn weight_bytes(&self) -> usize {
        self.layer.weight_bytes()
    }

    /// Multiplies all rows. The result is `[rows, padded rows of the matrix]`.
    pub fn run(&mut self) -> &[f32] {
        self.layer.multiply(&mut self.rows, &mut self.out);
        &self.out
    }
}

/// RMS norm, if wanted, and int8 quantisation of one row.
pub struct NormQuantize {
    kernels: &'static KernelSet,
    x: Vec<f32>,
    weight: Option<Vec<f32>>,
    h: AlignedBuf<f32>,
    q: AlignedBuf<i8>,
}

impl NormQuantize {
    /// For rows of `width` activations.
    ///
    /// # Errors
    /// If the kernel set is not available or there is no memory.
    pub fn new(kernels: &str, width: usize, norm: bool) -> Result<Self, ExecError> {
        Ok(Self {
            kernels: kernel_set(kernels)?,
            x: wave(width),
            weight: norm.then(|| vec![1.1; width]),
            h: AlignedBuf::zeroed(width)?,
            q: AlignedBuf::zeroed(width.next_multiple_of(QUAD))?,
        })
    }

    /// Quantises the row. The result is as long as the row, filled up to whole quads.
    pub fn run(&mut self) -> &[i8] {
        // SAFETY: the kernel set is available.
        unsafe {
            (self.kernels.norm_quantize)(&self.x, self.weight.as_deref(), EPS, &mut self.h, &mut self.q);
        }
        &self.q
    }
}

/// The gated activation of one row.
pub struct Activate {
    kernels: &'static KernelSet,
    activation: Activation,
    source: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Activate {
    /// For rows of `width`.
    ///
    /// # Errors
    /// If the kernel set is not available.
    pub fn new(kernels: &str, activation: Activation, width: usize) -> Result<Self, ExecError> {
        let source = wave(width);
        let up = source.iter().rev().copied().collect();
        Ok(Self { kernels: kernel_set(kernels)?, activation, gate: vec![0.0; width], source, up })
    }

    /// `act(gate) * up`. The kernel overwrites the gate, so each run copies it first.
    pub fn run(&mut self) -> &[f32] {
        self.gate.copy_from_slice(&self.source);
        // SAFETY: the kernel set is available.
        unsafe { (self.kernels.activate)(self.activation, &mut self.gate, &self.up) };
        &self.gate
    }
}

/// Attention of the queries that share one key/value head.
pub struct Attention {
    kernels: &'static KernelSet,
    kv: KvCache,
    queries: Vec<f32>,
    /// Query heads of the key/value head.
    group: usize,
    /// Positions that the last row attends to.
    depth: usize,
    scratch: AttendScratch,
    states: Vec<f32>,
    out: Vec<f32>,
}

impl Attention {
    /// The last `rows` of `depth` positions, with `group` query heads of `head_dim` each.
    ///
    /// # Errors
    /// If the kernel set is not available or there is no memory.
    ///
    /// # Panics
    /// If `rows` is 0 or more than `depth`, or `group` or `head_dim` is 0.
    pub fn new(
        kernels: &str,
        kv_type: KvType,
        head_dim: usize,
        group: usize,
        depth: usize,
        rows: usize,
    ) -> Result<Self, ExecError> {
        assert!((1..=depth).contains(&rows) && group > 0 && head_dim > 0, "at least one of each");
        let kernels = kernel_set(kernels)?;
        let spec = one_head(head_dim, group);
        let mut kv = KvCache::new(&spec, kv_type);
        kv.reserve(depth.div_ceil(BLOCK_SIZE))?;
        let layout = kv.layout();
        store(kernels, &kv, &wave(depth * head_dim));
        Ok(Self {
            kernels,
            queries: wave(rows * group * head_dim),
            group,
            depth,
            scratch: AttendScratch::new(layout)?,
            states: vec![0.0; rows * group * state_len(layout)],
            out: vec![0.0; rows * group * head_dim],
            kv,
        })
    }

    /// Multiply-adds of a run: queries with keys, weights with values.
    pub fn multiply_adds(&self) -> usize {
        let (head_dim, count) = (self.layout().head_dim, self.queries.len() / self.layout().head_dim);
        (0..count).map(|query| 2 * self.limit(query) * head_dim).sum()
    }

    /// Bytes of the blocks of keys and values that one run reads, at least once.
    pub fn kv_bytes(&self) -> usize {
        self.kv.block_count() * self.kv.block_bytes()
    }

    /// Attends. The result is `[rows, group, head_dim]`.
    pub fn run(&mut self) -> &[f32] {
        let (layout, len) = (self.layout(), state_len(self.layout()));
        let heads: Vec<Query<'_>> = self
            .queries
            .chunks_exact(layout.head_dim)
            .enumerate()
            .map(|(i, head)| Query { head, first: 0, limit: self.limit(i) })
            .collect();
        // SAFETY: nothing writes to keys and values meanwhile.
        let piece = |block: usize| unsafe { self.kv.piece(block as u32, 0, 0) };
        for range in 0..self.depth.div_ceil(RANGE) {
            for (queries, states) in heads.chunks(QUERIES).zip(self.states.chunks_mut(QUERIES * len)) {
                let scale = 1.0 / (layout.head_dim as f32).sqrt();
                let a = Attend { layout, scale, queries, range, fresh: range == 0, piece: &piece };
                // SAFETY: the kernel set is available.
                unsafe { (self.kernels.attend)(&a, &mut self.scratch, states) };
            }
        }
        for (state, out) in self.states.chunks_exact(len).zip(self.out.chunks_exact_mut(layout.head_dim)) {
            attention::finish(state, out);
        }
        &self.out
    }

    fn layout(&self) -> KvLayout {
        self.kv.layout()
    }

    /// Positions that a query attends to.
    fn limit(&self, query: usize) -> usize {
        let rows = self.queries.len() / self.layout().head_dim / self.group;
        self.depth - rows + query / self.group + 1
    }
}

/// A model whose cache has one key/value head.
fn one_head(head_dim: usize, group: usize) -> ModelSpec {
    ModelSpec {
        architecture: "probe".to_owned(),
        vocab_size: 1,
        hidden_size: head_dim * group,
        intermediate_size: 1,
        num_layers: 1,
        num_heads: group,
        num_kv_heads: 1,
        head_dim,
        activation: Activation::Relu2,
        sub_norms: false,
        rms_norm_eps: EPS,
        rope_theta: 10_000.0,
        context_length: 1,
        tied_output: true,
        extras: Extras::default(),
    }
}

/// Writes `rows`, `[positions][head_dim]`, as keys and, backwards, as values.
fn store(kernels: &KernelSet, kv: &KvCache, rows: &[f32]) {
    let layout = kv.layout();
    let mut encoded = vec![0; layout.row_bytes()];
    let keys = rows.chunks_exact(layout.head_dim);
    for (position, (key, value)) in keys.clone().zip(keys.rev()).enumerate() {
        let (block, slot) = ((position / BLOCK_SIZE) as u32, position % BLOCK_SIZE);
        for (part, row) in [(KvPart::Key, key), (KvPart::Value, value)] {
            // SAFETY: the kernel set is available, and only this thread knows the cache.
            unsafe {
                let scale = (kernels.encode_kv)(layout.kv_type, row, &mut encoded);
                kv.write(block, slot, 0, 0, part, &encoded, scale);
            }
        }
    }
}

/// Encoding of one row of keys or values.
pub struct EncodeKv {
    kernels: &'static KernelSet,
    kv_type: KvType,
    row: Vec<f32>,
    out: Vec<u8>,
}

impl EncodeKv {
    /// For a head of `head_dim`.
    ///
    /// # Errors
    /// If the kernel set is not available.
    pub fn new(kernels: &str, kv_type: KvType, head_dim: usize) -> Result<Self, ExecError> {
        let out = vec![0; KvLayout { kv_type, head_dim }.row_bytes()];
        Ok(Self { kernels: kernel_set(kernels)?, kv_type, row: wave(head_dim), out })
    }

    /// Encodes the row. The result is as the cache takes it.
    pub fn run(&mut self) -> &[u8] {
        // SAFETY: the kernel set is available.
        unsafe { (self.kernels.encode_kv)(self.kv_type, &self.row, &mut self.out) };
        &self.out
    }
}

/// Products of consecutive full-precision rows with one vector: how candidates of the output layer are rescored.
pub struct DenseRows {
    kernels: &'static KernelSet,
    dtype: DType,
    rows: Vec<u8>,
    h: Vec<f32>,
    out: Vec<f32>,
}

impl DenseRows {
    /// For a matrix `[rows, cols]`.
    ///
    /// # Errors
    /// If the kernel set is not available.
    pub fn new(kernels: &str, dtype: DType, rows: usize, cols: usize) -> Result<Self, ExecError> {
        Ok(Self {
            kernels: kernel_set(kernels)?,
            dtype,
            rows: dtype.encode(&wave(rows * cols)),
            h: wave(cols),
            out: vec![0.0; rows],
        })
    }

    /// Multiplies. The result is `[rows]`.
    pub fn run(&mut self) -> &[f32] {
        // SAFETY: the kernel set is available.
        unsafe { (self.kernels.dense)(self.dtype, &self.rows, &self.h, &mut self.out) };
        &self.out
    }
}

/// Debug output that names the kernel set.
macro_rules! debug {
    ($($name:ident: $set:ident $(. $of:ident)*),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.$set $(. $of)*)
            }
        }
    )*};
}
debug!(
    TernaryProduct: layer,
    NormQuantize: kernels,
    Activate: kernels,
    Attention: kernels,
    EncodeKv: kernels,
    DenseRows: kernels
);

#[cfg(test)]
mod tests {
    use bitnet_core::bytes::ByteView;
    use bitnet_quant::codec::pack_hf;
    use bitnet_quant::{RowOrder, TritCodec};

    use super::*;

    /// What `make` gives for each available set; all must be the same, bit for bit.
    fn same<T: PartialEq + std::fmt::Debug>(make: impl Fn(&str) -> T) -> T {
        let sets = kernels::kernel_sets().into_iter().filter(|s| s.available);
        sets.map(|s| make(s.name)).reduce(|a, b| if a == b { a } else { panic!("{a:?} and {b:?}") }).unwrap()
    }

    #[test]
    fn a_product_is_that_of_the_layer() {
        let (rows, cols) = (40, 100);
        let trits: Vec<i8> = (0..rows * cols).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
        let bytes = ByteView::from_vec(pack_hf(&trits, rows, cols).unwrap());
        let matrix =
            TernaryMatrix::new(rows, cols, 0.7, TritCodec::HfPacked, RowOrder::Natural, bytes).unwrap();
        for form in Form::ALL {
            for count in [1, 7] {
                let mut layer = BitLinear::with_form(&matrix, Some("scalar"), form).unwrap();
                let mut want = Vec::new();
                for x in wave(count * cols).chunks_exact(cols) {
                    want.push(layer.forward(x).to_vec());
                }
                let got = same(|set| TernaryProduct::new(&matrix, set, form, count).unwrap().run().to_vec());
                for (got, want) in got.chunks_exact(layer.padded_rows()).zip(&want) {
                    assert_eq!(&got[..rows], want);
                }
            }
        }
    }

    #[test]
    fn attention_averages_values() {
        let (head_dim, group) = (40, 3);
        for kv_type in KvType::ALL {
            for (depth, rows) in [(1, 1), (300, 1), (515, 8)] {
                let probe = |set: &str| Attention::new(set, kv_type, head_dim, group, depth, rows).unwrap();
                let got = same(|set| probe(set).run().to_vec());
                assert_eq!(got.len(), rows * group * head_dim);
                let largest = wave(depth * head_dim).iter().fold(0.0f32, |m, x| m.max(x.abs()));
                assert!(got.iter().all(|x| x.abs() <= 1.01 * largest), "{kv_type}");
                assert!(got.iter().any(|x| *x != 0.0), "{kv_type}");
                if depth == 1 {
                    assert_eq!(probe("scalar").multiply_adds(), 2 * group * head_dim);
                    let value = wave(head_dim);
                    for (got, want) in got.iter().zip(value.iter().cycle()) {
                        assert!((got - want).abs() <= 0.01 * largest, "{kv_type}: {got} is not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn small_kernels_agree_and_repeat() {
        same(|set| {
            let mut probe = Activate::new(set, Activation::Silu, 50).unwrap();
            let first = probe.run().to_vec();
            assert_eq!(first, probe.run(), "a run starts from the same gate");
            let mut norm = NormQuantize::new(set, 50, true).unwrap();
            let mut plain = NormQuantize::new(set, 50, false).unwrap();
            let encoded: Vec<u8> =
                KvType::ALL.iter().flat_map(|&t| EncodeKv::new(set, t, 20).unwrap().run().to_vec()).collect();
            assert_eq!(encoded.len(), 20 * (4 + 2 + 1));
            let dense = DenseRows::new(set, DType::F16, 9, 50).unwrap().run().to_vec();
            (first, norm.run().to_vec(), plain.run().to_vec(), encoded, dense)
        });
        let x = wave(3);
        let want = x.iter().map(|x| x * x).sum::<f32>();
        assert!((DenseRows::new("scalar", DType::F32, 1, 3).unwrap().run()[0] - want).abs() < 1e-4);
    }
}
