//! [`Model`]: the weights on the device, cut so that each piece fits a binding.

use bitnet_core::DType;
use bitnet_model::{DenseTensor, ExecError, KvType, LayerWeights, ModelSpec, Weights};
use bitnet_quant::TernaryMatrix;

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::image::{self, Image, ImagePart};
use crate::memory::{Buffer, Memory};
use crate::pack::{Stack, words_of};

/// The widest head that kernels have workgroup memory for.
const MAX_HEAD_DIM: usize = 256;
/// Bytes of a dense table that are read at a time.
const READ_STEP: usize = 8 << 20;

/// Rows of a projection in one buffer.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) weights: Buffer,
    /// One for each row.
    pub(crate) scales: Buffer,
    pub(crate) rows: usize,
    /// Where they begin in a row of the result.
    pub(crate) offset: usize,
}

/// A projection, or several that multiply the same rows.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) parts: Vec<Part>,
    /// Packed words of a row.
    pub(crate) words: usize,
}

/// Rows of a dense table in one buffer.
#[derive(Debug)]
pub(crate) struct TablePart {
    pub(crate) storage: Buffer,
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// Embedding or output layer.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) parts: Vec<TablePart>,
    pub(crate) dtype: DType,
    /// Words of a row.
    pub(crate) words: usize,
}

/// Where the norms of a layer begin in [`Model::norms`], in floats.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorms {
    pub(crate) attention: usize,
    pub(crate) attention_sub: Option<usize>,
    pub(crate) ffn: usize,
    pub(crate) ffn_sub: Option<usize>,
    pub(crate) heads: Option<[usize; 2]>,
    /// Before `q`, `k`, `v`, `gate` and `up`.
    pub(crate) projections: Option<[usize; 5]>,
    pub(crate) post: Option<[usize; 2]>,
}

/// A layer. Queries, keys and values are one matrix, gate and up another, but where each has a norm of its own.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) qkv: Vec<Matrix>,
    pub(crate) o: Matrix,
    pub(crate) gate_up: Vec<Matrix>,
    pub(crate) down: Matrix,
    pub(crate) norms: LayerNorms,
}

/// All weights.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) layers: Vec<Layer>,
    pub(crate) embedding: Table,
    /// `None` if it is the embedding.
    pub(crate) output: Option<Table>,
    /// Of the output layer, if it can be had.
    pub(crate) image: Option<Image>,
    /// All norms, each at a multiple of four floats.
    pub(crate) norms: Buffer,
    pub(crate) final_norm: usize,
}

impl Model {
    /// Packs and uploads weights. `progress` hears how many ternary weights are done, and how many there are.
    ///
    /// # Errors
    /// Damaged weights, shapes that kernels do not take, no memory.
    pub(crate) fn new(
        gpu: &mut Gpu,
        memory: &mut Memory,
        spec: ModelSpec,
        weights: &Weights,
        kv_type: KvType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let backend = gpu.backend();
        check(&spec, kv_type).map_err(|what| ExecError::Unsupported { backend, what })?;
        let mut floats = Vec::new();
        let mut loader = Loader { gpu, memory, progress, done: 0, total: spec.ternary_parameters() };
        let mut layers = Vec::with_capacity(weights.layers.len());
        for (number, layer) in weights.layers.iter().enumerate() {
            layers.push(loader.layer(number, &spec, layer, &mut floats)?);
        }
        let final_norm = add_norm(&mut floats, &weights.final_norm);
        let embedding = loader.table(&weights.embedding)?;
        let output = match &weights.output {
            Some(table) => Some(loader.table(table)?),
            None => None,
        };
        let image = loader.image(weights.output.as_ref().unwrap_or(&weights.embedding))?;
        let norms = loader.buffer(bytemuck::cast_slice(&floats)).map_err(|e| e.into_exec(backend))?;
        gpu.flush().map_err(|e| e.into_exec(backend))?;
        Ok(Self { spec, layers, embedding, output, image, norms, final_norm })
    }

    /// The output layer.
    pub(crate) fn output_table(&self) -> &Table {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of the ternary weights.
    pub(crate) fn ternary_bytes(&self) -> u64 {
        let matrices = self.layers.iter().flat_map(|l| {
            let both = l.qkv.iter().chain(&l.gate_up);
            both.chain([&l.o, &l.down])
        });
        matrices.flat_map(|m| &m.parts).map(|p| p.weights.buffer.size() + p.scales.buffer.size()).sum()
    }

    /// Bytes of all weights.
    pub(crate) fn bytes(&self) -> u64 {
        let tables = self.embedding.bytes() + self.output.as_ref().map_or(0, Table::bytes);
        self.ternary_bytes() + tables + self.image.as_ref().map_or(0, Image::bytes) + self.norms.buffer.size()
    }
}

impl Table {
    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.storage.buffer.size()).sum()
    }
}

/// Whether kernels take this shape; if not, what they lack.
fn check(spec: &ModelSpec, kv_type: KvType) -> Result<(), String> {
    let widths = [
        ("hidden size", spec.hidden_size),
        ("feed-forward width", spec.intermediate_size),
        ("width of all query heads", spec.q_size()),
    ];
    if let Some((name, width)) = widths.iter().find(|(_, width)| !width.is_multiple_of(4)) {
        return Err(format!("a {name} of {width}, which is no multiple of 4"));
    }
    if spec.head_dim > MAX_HEAD_DIM {
        return Err(format!("heads of {}; at most {MAX_HEAD_DIM} are possible", spec.head_dim));
    }
    if kv_type == KvType::Int8 && !spec.head_dim.is_multiple_of(4) {
        return Err(format!(
            "int8 keys and values with heads of {}, which is no multiple of 4",
            spec.head_dim
        ));
    }
    Ok(())
}

/// Appends a norm at a multiple of four floats; gives its place.
fn add_norm(floats: &mut Vec<f32>, norm: &[f32]) -> usize {
    let at = floats.len();
    floats.extend_from_slice(norm);
    floats.resize(floats.len().next_multiple_of(4), 0.0);
    at
}

struct Loader<'a> {
    gpu: &'a mut Gpu,
    memory: &'a mut Memory,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(
        &mut self,
        number: usize,
        spec: &ModelSpec,
        l: &LayerWeights,
        floats: &mut Vec<f32>,
    ) -> Result<Layer, ExecError> {
        let names = ["q", "k", "v", "o", "gate", "up", "down"].map(|name| format!("layer {number} {name}"));
        let [q, k, v, o, gate, up, down] = &names;
        let qkv = [(q.as_str(), &l.q), (k.as_str(), &l.k), (v.as_str(), &l.v)];
        let gate_up = [(gate.as_str(), &l.gate), (up.as_str(), &l.up)];
        let separate = spec.extras.projection_norms;
        let mut norm = |n: &[f32]| add_norm(floats, n);
        let norms = LayerNorms {
            attention: norm(&l.attn_norm),
            attention_sub: l.attn_sub_norm.as_deref().map(&mut norm),
            ffn: norm(&l.ffn_norm),
            ffn_sub: l.ffn_sub_norm.as_deref().map(&mut norm),
            heads: l.extras.head_norms.as_ref().map(|n| n.each_ref().map(|n| norm(n))),
            projections: l.extras.projection_norms.as_ref().map(|n| n.each_ref().map(|n| norm(n))),
            post: l.extras.post_norms.as_ref().map(|n| n.each_ref().map(|n| norm(n))),
        };
        let layer = Layer {
            qkv: self.stacked(&qkv, separate)?,
            o: self.matrix(&[(o, &l.o)], 0)?,
            gate_up: self.stacked(&gate_up, separate)?,
            down: self.matrix(&[(down, &l.down)], 0)?,
            norms,
        };
        for (_, matrix) in l.projections() {
            matrix.data().release();
        }
        Ok(layer)
    }

    /// One matrix of all, or one of each.
    fn stacked(&mut self, all: &[(&str, &TernaryMatrix)], separate: bool) -> Result<Vec<Matrix>, ExecError> {
        if !separate {
            return Ok(vec![self.matrix(all, 0)?]);
        }
        let mut offset = 0;
        let mut matrices = Vec::new();
        for one in all {
            matrices.push(self.matrix(std::slice::from_ref(one), offset)?);
            offset += one.1.rows();
        }
        Ok(matrices)
    }

    fn matrix(&mut self, matrices: &[(&str, &TernaryMatrix)], offset: usize) -> Result<Matrix, ExecError> {
        let backend = self.gpu.backend();
        let stack = Stack { matrices };
        let (words, rows) = (words_of(stack.cols()), stack.rows());
        let most = self.rows_of_part(4 * words).map_err(|e| e.into_exec(backend))?;
        let mut parts = Vec::new();
        for first in (0..rows).step_by(most) {
            let range = first..rows.min(first + most);
            let packed = stack.pack(range.clone())?;
            let scales = stack.scales(range.clone());
            let mut upload = |bytes| self.buffer(bytes).map_err(|e| e.into_exec(backend));
            parts.push(Part {
                weights: upload(bytemuck::cast_slice(&packed))?,
                scales: upload(bytemuck::cast_slice(&scales))?,
                rows: range.len(),
                offset: offset + first,
            });
            self.done += (range.len() * stack.cols()) as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(Matrix { parts, words })
    }

    /// Rows of so many bytes that fit a binding.
    fn rows_of_part(&self, row_bytes: usize) -> Result<usize, WgpuError> {
        match self.gpu.max_binding as usize / row_bytes {
            0 => Err(WgpuError::Unsupported(format!(
                "rows of {row_bytes} bytes on a device whose kernels see {} bytes of a buffer",
                self.gpu.max_binding
            ))),
            rows => Ok(rows),
        }
    }

    fn buffer(&mut self, bytes: &[u8]) -> Result<Buffer, WgpuError> {
        let buffer = self.memory.take_exact(self.gpu, bytes.len() as u64)?;
        self.gpu.upload(&buffer.buffer, 0, bytes)?;
        Ok(buffer)
    }

    fn table(&mut self, table: &DenseTensor) -> Result<Table, ExecError> {
        let backend = self.gpu.backend();
        let failed = |e: WgpuError| e.into_exec(backend);
        let dtype = table.plain_type();
        let row_bytes = table.cols() * if dtype == DType::F32 { 4 } else { 2 };
        let most = self.rows_of_part(row_bytes).map_err(failed)?;
        let step = (READ_STEP / row_bytes).max(1);
        let (mut parts, mut scratch) = (Vec::new(), Vec::new());
        for first in (0..table.rows()).step_by(most) {
            let end = table.rows().min(first + most);
            let bytes = ((end - first) * row_bytes) as u64;
            let storage = self.memory.take_exact(self.gpu, bytes).map_err(failed)?;
            for row in (first..end).step_by(step) {
                let rows = table.read_rows(row..end.min(row + step), &mut scratch)?;
                let at = ((row - first) * row_bytes) as u64;
                self.gpu.upload(&storage.buffer, at, rows.bytes).map_err(failed)?;
            }
            parts.push(TablePart { storage, first, rows: end - first });
        }
        Ok(Table { parts, dtype, words: row_bytes / 4 })
    }

    /// The int8 image of the output layer; none if there is no memory for it: it can be done without.
    fn image(&mut self, table: &DenseTensor) -> Result<Option<Image>, ExecError> {
        if !Image::can_hold(table.cols()) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        match self.image_parts(table, &mut parts) {
            Ok(rows) => Ok(Some(Image { parts, rows, quads: image::quads_of(table.cols()) })),
            Err(ExecError::OutOfDeviceMemory { .. }) => {
                parts.into_iter().for_each(|part| self.memory.give(part.codes));
                self.memory.trim(self.gpu);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes and uploads the parts of the image; gives what is known of all rows.
    fn image_parts(&mut self, table: &DenseTensor, parts: &mut Vec<ImagePart>) -> Result<Buffer, ExecError> {
        let backend = self.gpu.backend();
        let failed = |e: WgpuError| e.into_exec(backend);
        let row_bytes = 16 * image::quads_of(table.cols());
        let most = self.rows_of_part(row_bytes).map_err(failed)?;
        let step = (4 * READ_STEP / row_bytes).max(1);
        let mut all_known = Vec::with_capacity(table.rows());
        for first in (0..table.rows()).step_by(most) {
            let end = table.rows().min(first + most);
            let bytes = ((end - first) * row_bytes) as u64;
            let codes = self.memory.take_exact(self.gpu, bytes).map_err(failed)?;
            let to = codes.buffer.clone();
            parts.push(ImagePart { codes, first, rows: end - first });
            for row in (first..end).step_by(step) {
                let (codes, known) = image::quantise(table, row..end.min(row + step))?;
                let at = ((row - first) * row_bytes) as u64;
                self.gpu.upload(&to, at, bytemuck::cast_slice(&codes)).map_err(failed)?;
                all_known.extend(known);
            }
        }
        self.buffer(bytemuck::cast_slice(&all_known)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::conformance::samples;

    #[test]
    fn shapes_that_kernels_do_not_take_are_told() {
        let spec = samples().swap_remove(0).spec;
        assert_eq!(check(&spec, KvType::Int8), Ok(()));
        let odd = ModelSpec { hidden_size: 130, ..spec.clone() };
        assert!(check(&odd, KvType::F16).unwrap_err().contains("hidden size of 130"));
        let wide = ModelSpec { head_dim: 512, ..spec.clone() };
        assert!(check(&wide, KvType::F16).unwrap_err().contains("at most 256"));
        let six = ModelSpec { head_dim: 6, ..spec };
        assert!(check(&six, KvType::Int8).is_err() && check(&six, KvType::F16).is_ok());
    }

    #[test]
    fn norms_begin_at_multiples_of_four() {
        let mut floats = Vec::new();
        assert_eq!(add_norm(&mut floats, &[1.0; 6]), 0);
        assert_eq!(add_norm(&mut floats, &[2.0; 4]), 8);
        assert_eq!(floats.len(), 12);
    }
}
