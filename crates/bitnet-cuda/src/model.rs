//! [`Model`]: the weights on the device.

use std::time::Instant;

use bitnet_core::DType;
use bitnet_core::device_pool::Lent;
use bitnet_model::reference::rope_angles;
use bitnet_model::{DenseTensor, ExecError, LayerWeights, ModelSpec, Weights};
use bytemuck::{bytes_of, cast_slice};

use crate::CudaError;
use crate::args::ImageArgs;
use crate::gpu::{Address, Launch};
use crate::layout::{BLOCK_ROWS, GROUP, Plan, Source, TILE_WORDS};
use crate::memory::Memory;

/// Bytes of weights that are packed and copied at a time.
const PIECE: usize = 8 << 20;
/// Bytes of a page of small constants.
const PAGE: usize = 1 << 20;
/// Rows of tables are padded to so many elements: what sixteen chains take in a step.
const TABLE_STEP: usize = 16;
/// Positions that rotary tables have room for at first.
const FIRST_POSITIONS: usize = 4096;

/// A packed ternary matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) weights: Address,
    pub(crate) blocks: Address,
    pub(crate) row_blocks: u32,
    pub(crate) groups: u32,
    /// The norm of its own before it, or 0.
    pub(crate) norm: Address,
}

/// One layer. Addresses of norms that are not there are 0.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attn_norm: Address,
    /// Queries, keys and values together, or each with its norm.
    pub(crate) qkv: Vec<Matrix>,
    pub(crate) head_norms: [Address; 2],
    pub(crate) attn_sub_norm: Address,
    pub(crate) o: Matrix,
    pub(crate) ffn_norm: Address,
    /// Gate and up side by side, or each with its norm.
    pub(crate) gate_up: Vec<Matrix>,
    pub(crate) ffn_sub_norm: Address,
    pub(crate) down: Matrix,
    /// Behind attention and behind the feed-forward part.
    pub(crate) post_norms: [Address; 2],
}

/// The embedding or the output layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) address: Address,
    pub(crate) dtype: DType,
    /// Elements of a row.
    pub(crate) pitch: usize,
    pub(crate) bytes: usize,
}

impl Table {
    /// The number that kernels know the element type by.
    pub(crate) fn type_code(self) -> u32 {
        match self.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
        }
    }
}

/// The int8 image of the output layer; see `kernels/scan.cu`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Image {
    pub(crate) codes: Address,
    /// What is known of each row.
    pub(crate) rows: Address,
    pub(crate) row_blocks: usize,
    /// Of 128 columns.
    pub(crate) groups: usize,
    pub(crate) bytes: usize,
}

impl Image {
    /// Makes the image on the device.
    fn new(memory: &mut Memory, spec: &ModelSpec, table: Table) -> Result<Self, CudaError> {
        let (row_blocks, groups) = (spec.vocab_size.div_ceil(BLOCK_ROWS), spec.hidden_size.div_ceil(GROUP));
        let (code_bytes, row_bytes) =
            (row_blocks * groups * BLOCK_ROWS * GROUP, 16 * row_blocks * BLOCK_ROWS);
        let codes = memory.take_exact(code_bytes)?.buffer;
        let rows = memory.take_exact(row_bytes)?.buffer;
        let args = ImageArgs {
            table: table.address,
            codes,
            images: rows,
            vocab: spec.vocab_size as u32,
            cols: spec.hidden_size as u32,
            pitch: table.pitch as u32,
            groups: groups as u32,
            dtype: table.type_code(),
            pad: 0,
        };
        memory.gpu.launch(&Launch {
            kernel: "make_image",
            grid: [row_blocks as u32, 1, 1],
            cluster: 1,
            threads: 512,
            shared: 0,
            argument: bytes_of(&args),
        })?;
        Ok(Self { codes, rows, row_blocks, groups, bytes: code_bytes + row_bytes })
    }
}

/// Cosines and sines of rotary angles, `[positions][head_dim / 2]` each.
#[derive(Debug)]
struct Rope {
    cosines: Lent<Address>,
    sines: Lent<Address>,
}

/// All weights.
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) layers: Vec<Layer>,
    pub(crate) embedding: Table,
    pub(crate) output: Table,
    pub(crate) image: Image,
    pub(crate) final_norm: Address,
    /// Bytes of packed ternary weights.
    pub(crate) ternary_bytes: usize,
    /// Whether queries and keys are rotated, and keys and values stored, behind their product.
    pub(crate) rotates_in_product: bool,
    /// Angles of layers without and with a sliding window.
    rope: [Option<Rope>; 2],
    positions: usize,
}

/// Puts weights on the device.
struct Loader<'a, 'p> {
    memory: &'a mut Memory,
    threads: usize,
    page: Address,
    used: usize,
    done: u64,
    total: u64,
    progress: &'p mut dyn FnMut(u64, u64),
}

impl Loader<'_, '_> {
    /// Small data that stays.
    fn constant(&mut self, bytes: &[u8]) -> Result<Address, CudaError> {
        let room = bytes.len().next_multiple_of(256);
        if room > PAGE {
            let own = self.memory.take_exact(room)?.buffer;
            self.memory.upload(own, bytes)?;
            return Ok(own);
        }
        if self.page == 0 || self.used + room > PAGE {
            (self.page, self.used) = (self.memory.take_exact(PAGE)?.buffer, 0);
        }
        let address = self.page + self.used as u64;
        self.used += room;
        self.memory.upload(address, bytes)?;
        Ok(address)
    }

    fn norm(&mut self, weights: Option<&Vec<f32>>) -> Result<Address, CudaError> {
        weights.map_or(Ok(0), |weights| self.constant(cast_slice(weights)))
    }

    /// Packs a matrix piece by piece: while one is copied, the next is packed.
    fn matrix(&mut self, plan: &Plan<'_>, norm: Option<&Vec<f32>>) -> Result<Matrix, ExecError> {
        let weights = self.memory.take_exact(plan.bytes())?.buffer;
        let block_words = plan.groups() * TILE_WORDS;
        let step = (PIECE / (4 * block_words)).max(1);
        let mut piece = Vec::new();
        for first in (0..plan.row_blocks()).step_by(step) {
            let count = step.min(plan.row_blocks() - first);
            piece.clear();
            piece.resize(count * block_words, 0u32);
            plan.pack(first, &mut piece, self.threads)?;
            let bytes: &[u8] = cast_slice(&piece);
            self.memory.upload(weights + (first * block_words * 4) as u64, bytes)?;
            self.done += bytes.len() as u64;
            (self.progress)(self.done.min(self.total), self.total);
        }
        let blocks = self.constant(cast_slice(&plan.table()))?;
        let norm = self.norm(norm)?;
        let (row_blocks, groups) = (plan.row_blocks() as u32, plan.groups() as u32);
        Ok(Matrix { weights, blocks, row_blocks, groups, norm })
    }

    fn layer(
        &mut self,
        number: usize,
        l: &LayerWeights,
        fused: bool,
        head_dim: usize,
    ) -> Result<Layer, ExecError> {
        let source = |name: &str, matrix| Source { name: format!("layer {number} {name}"), matrix };
        let (q, k, v) = (source("q", &l.q), source("k", &l.k), source("v", &l.v));
        let (gate, up) = (source("gate", &l.gate), source("up", &l.up));
        let (qkv, gate_up) = match &l.extras.projection_norms {
            Some([for_q, for_k, for_v, for_gate, for_up]) => {
                let mut each = |source, norm| self.matrix(&Plan::natural(vec![source]), Some(norm));
                let qkv = vec![each(q, for_q)?, each(k, for_k)?, each(v, for_v)?];
                (qkv, vec![each(gate, for_gate)?, each(up, for_up)?])
            }
            None => {
                let plan =
                    if fused { Plan::rotary([q, k, v], head_dim) } else { Plan::natural(vec![q, k, v]) };
                (vec![self.matrix(&plan, None)?], vec![self.matrix(&Plan::gated(gate, up), None)?])
            }
        };
        let mut pair = |norms: &Option<[Vec<f32>; 2]>| match norms {
            Some([a, b]) => Ok::<_, CudaError>([self.norm(Some(a))?, self.norm(Some(b))?]),
            None => Ok([0; 2]),
        };
        let (head_norms, post_norms) = (pair(&l.extras.head_norms)?, pair(&l.extras.post_norms)?);
        let layer = Layer {
            attn_norm: self.norm(Some(&l.attn_norm))?,
            qkv,
            head_norms,
            attn_sub_norm: self.norm(l.attn_sub_norm.as_ref())?,
            o: self.matrix(&Plan::natural(vec![source("o", &l.o)]), None)?,
            ffn_norm: self.norm(Some(&l.ffn_norm))?,
            gate_up,
            ffn_sub_norm: self.norm(l.ffn_sub_norm.as_ref())?,
            down: self.matrix(&Plan::natural(vec![source("down", &l.down)]), None)?,
            post_norms,
        };
        for (_, matrix) in l.projections() {
            matrix.data().release();
        }
        Ok(layer)
    }

    fn table(&mut self, tensor: &DenseTensor) -> Result<Table, ExecError> {
        let (dtype, pitch) = (tensor.plain_type(), tensor.cols().next_multiple_of(TABLE_STEP));
        let (row, padded) = (tensor.cols() * dtype.size(), pitch * dtype.size());
        let bytes = tensor.rows() * padded;
        let address = self.memory.take_exact(bytes)?.buffer;
        let step = (PIECE / padded).max(1);
        let (mut buffer, mut room) = (Vec::new(), Vec::new());
        for first in (0..tensor.rows()).step_by(step) {
            let rows = tensor.read_rows(first..tensor.rows().min(first + step), &mut buffer)?;
            let bytes = if row == padded {
                rows.bytes
            } else {
                room.clear();
                for row in rows.bytes.chunks_exact(row) {
                    room.extend_from_slice(row);
                    room.resize(room.len().next_multiple_of(padded), 0);
                }
                &room
            };
            self.memory.upload(address + (first * padded) as u64, bytes)?;
            self.done += bytes.len() as u64;
            (self.progress)(self.done.min(self.total), self.total);
        }
        Ok(Table { address, dtype, pitch, bytes })
    }
}

impl Model {
    /// Packs and copies all weights; `progress` hears of bytes on the device and of all of them.
    pub(crate) fn load(
        memory: &mut Memory,
        spec: ModelSpec,
        weights: &Weights,
        rotates_in_product: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let begin = Instant::now();
        let tables: usize = std::iter::once(&weights.embedding)
            .chain(&weights.output)
            .map(|table| table.rows() * table.cols() * table.plain_type().size())
            .sum();
        let total = spec.ternary_parameters() / 4 + tables as u64;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut loader = Loader { memory, threads, page: 0, used: 0, done: 0, total, progress };
        let layers: Result<Vec<Layer>, ExecError> = weights
            .layers
            .iter()
            .enumerate()
            .map(|(number, layer)| loader.layer(number, layer, rotates_in_product, spec.head_dim))
            .collect();
        let layers = layers?;
        let ternary_bytes = loader.done as usize;
        let embedding = loader.table(&weights.embedding)?;
        let output = weights.output.as_ref().map_or(Ok(embedding), |table| loader.table(table))?;
        let final_norm = loader.constant(cast_slice(&weights.final_norm))?;
        let loaded = loader.done as f64;
        let image = Image::new(memory, &spec, output)?;
        memory.gpu.synchronize()?;
        memory.transfers.load_bandwidth = Some(loaded / begin.elapsed().as_secs_f64().max(1e-9));
        let positions = 0;
        let rope = [None, None];
        let mut model = Self {
            spec,
            layers,
            embedding,
            output,
            image,
            final_norm,
            ternary_bytes,
            rotates_in_product,
            rope,
            positions,
        };
        model.ensure_positions(memory, FIRST_POSITIONS.min(model.spec.context_length))?;
        Ok(model)
    }

    /// Bytes of weights on the device.
    pub(crate) fn weight_bytes(&self) -> usize {
        let own_output = self.embedding.address != self.output.address;
        self.ternary_bytes
            + self.embedding.bytes
            + self.image.bytes
            + if own_output { self.output.bytes } else { 0 }
    }

    /// Addresses of cosines and sines of a layer.
    pub(crate) fn rope(&self, layer: usize) -> [Address; 2] {
        let rope = self.rope[usize::from(self.spec.is_sliding(layer))].as_ref();
        rope.map_or([0; 2], |rope| [rope.cosines.buffer, rope.sines.buffer])
    }

    /// Makes rotary tables long enough; whether addresses changed.
    pub(crate) fn ensure_positions(
        &mut self,
        memory: &mut Memory,
        positions: usize,
    ) -> Result<bool, CudaError> {
        if positions <= self.positions {
            return Ok(false);
        }
        let positions = positions.next_power_of_two();
        let half = self.spec.head_dim / 2;
        let kinds = if self.spec.extras.sliding.is_some() { 2 } else { 1 };
        let (mut cos, mut sin) = (vec![0.0f32; positions * half], vec![0.0f32; positions * half]);
        for kind in 0..kinds {
            for (position, (cos, sin)) in
                cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half)).enumerate()
            {
                rope_angles(&self.spec, kind == 1, position, cos, sin);
            }
            let (cosines, sines) = (memory.take_exact(cos.len() * 4)?, memory.take_exact(sin.len() * 4)?);
            memory.upload(cosines.buffer, cast_slice(&cos))?;
            memory.upload(sines.buffer, cast_slice(&sin))?;
            if let Some(old) = self.rope[kind].replace(Rope { cosines, sines }) {
                memory.give(old.cosines);
                memory.give(old.sines);
            }
        }
        self.positions = positions;
        Ok(true)
    }
}
