//! The tensors of an output, with what each is made of, and how their bytes are made.

use std::ops::Range;

use bitnet_core::{BlockType, DType, DenseType};
use bitnet_formats::{StoredType, TensorPlan};
use bitnet_model::load::LoadedModel;
use bitnet_model::{Activation, DenseTensor, Extras, LayerWeights, ModelSpec, RopeScaling};
use bitnet_quant::codec::{i2s_tail, pack_hf, pack_i2s, pack_tq1_0, pack_tq2_0};
use bitnet_quant::{I2sLayout, RowOrder, TernaryMatrix, TritCodec, absmean};

use crate::error::{ConvertError, Result};
use crate::masters::Masters;
use crate::names::{GGUF, HUGGING_FACE, Names};
use crate::stream::produce;
use crate::{TableType, Target};

/// Rows that are decoded before they are packed.
const ROWS: usize = 32;

/// A tensor to write.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Name, type and shape.
    pub(crate) plan: TensorPlan,
    content: Content<'a>,
}

/// What a tensor is made of.
#[derive(Debug)]
enum Content<'a> {
    /// A norm or a scale.
    Floats(Vec<f32>, DType),
    /// Embedding or output layer, in this type.
    Table(&'a DenseTensor, DenseType),
    /// Ternary weights.
    Trits(&'a TernaryMatrix, Packing),
    /// Masters from which absmean gives the weights.
    Masters(&'a TernaryMatrix),
    /// Masters as they are in the source.
    Copy(&'a TernaryMatrix),
}

/// How trits are packed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    /// Four rows a byte.
    HuggingFace,
    /// I2_S, with the order of the rows.
    I2s(RowOrder),
    /// TQ1_0, the same.
    Tq1(RowOrder),
    /// TQ2_0, the same.
    Tq2(RowOrder),
}

/// All tensors of a model in the form `target`, in the order of the file. `notes` gets what people should know.
///
/// # Errors
/// [`ConvertError::Unsupported`] if the form cannot hold the model.
pub(crate) fn items<'a>(
    model: &'a LoadedModel,
    target: Target,
    tables: TableType,
    notes: &mut Vec<String>,
) -> Result<Vec<Item<'a>>> {
    check(&model.spec, target)?;
    let names = if target.is_gguf() { GGUF } else { HUGGING_FACE };
    let mut list = List { target, tables, names, items: Vec::new(), measured: Measured::default() };
    let weights = &model.weights;
    list.table(names.embedding, &weights.embedding)?;
    list.norm(names.final_norm.to_owned(), &weights.final_norm);
    for (number, layer) in weights.layers.iter().enumerate() {
        list.layer(number, layer, &model.spec)?;
    }
    if let Some(output) = &weights.output {
        list.table(names.output, output)?;
    }
    list.measured.tell(notes);
    Ok(list.items)
}

/// Refuses what the form would leave out. The configuration of a folder is carried over, and tells of rotary scaling.
fn check(spec: &ModelSpec, target: Target) -> Result<()> {
    let mut extras = spec.extras.clone();
    if !target.is_gguf() {
        extras.rope_scaling = RopeScaling::None;
    }
    if extras == Extras::default() && spec.activation != Activation::Gelu {
        return Ok(());
    }
    Err(ConvertError::Unsupported {
        target: target.name(),
        what: format!("the architecture {}, with more norms, windows or other positions", spec.architecture),
        remedy: "use the model as it is: it loads in every form in which such models are published",
    })
}

/// What was found out about masters in the source.
#[derive(Debug, Default)]
struct Measured {
    copied: usize,
    remade: usize,
    ternary: usize,
}

impl Measured {
    fn tell(&self, notes: &mut Vec<String>) {
        if self.copied > 0 {
            notes.push(format!("{} tensors: the masters of the source are copied as they are", self.copied));
        }
        if self.remade > 0 {
            notes.push(format!(
                "{} tensors: masters are made of trits and scale, so that absmean gives these back; what masters had \
                 beyond that is not there",
                self.remade
            ));
        }
        if self.ternary > 0 {
            notes.push(format!(
                "{} tensors of the source are float but hold at most three values already; absmean of such a tensor \
                 would shrink its scale, so they are not copied",
                self.ternary
            ));
        }
    }
}

/// Collects the tensors of one form.
struct List<'a> {
    target: Target,
    tables: TableType,
    names: Names,
    items: Vec<Item<'a>>,
    measured: Measured,
}

impl<'a> List<'a> {
    fn push(&mut self, name: String, stored: StoredType, shape: &[usize], content: Content<'a>) {
        let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        self.items.push(Item { plan: TensorPlan::new(name, stored, shape), content });
    }

    fn unsupported(&self, what: String, remedy: &'static str) -> ConvertError {
        ConvertError::Unsupported { target: self.target.name(), what, remedy }
    }

    /// In f32 for GGUF, in bf16 for transformers where that is exact.
    fn norm(&mut self, name: String, values: &[f32]) {
        let exact = values.iter().all(|v| v.to_bits().trailing_zeros() >= 16);
        let dtype = if exact && !self.target.is_gguf() { DType::BF16 } else { DType::F32 };
        self.push(
            name,
            StoredType::of(dtype.into()),
            &[values.len()],
            Content::Floats(values.to_vec(), dtype),
        );
    }

    /// Block types are kept in GGUF files only; elsewhere, f32 holds what they stand for.
    fn table(&mut self, name: &str, table: &'a DenseTensor) -> Result<()> {
        let gguf = self.target.is_gguf();
        let stored = match self.tables {
            TableType::Keep if !gguf && table.stored().plain().is_none() => DType::F32.into(),
            TableType::Keep => table.stored(),
            TableType::F16 => DType::F16.into(),
            TableType::Bf16 => DType::BF16.into(),
            TableType::Q8_0 => DenseType::Blocks(BlockType::Q8_0),
        };
        if stored.plain().is_none() && (!gguf || stored.bytes_of(table.cols()).is_none()) {
            let what = format!("tensor {name} of {} columns as {stored}", table.cols());
            return Err(self.unsupported(what, "keep the type of the tables, or write them as f16"));
        }
        let shape = [table.rows(), table.cols()];
        self.push(name.to_owned(), StoredType::of(stored), &shape, Content::Table(table, stored));
        Ok(())
    }

    fn layer(&mut self, number: usize, layer: &'a LayerWeights, spec: &ModelSpec) -> Result<()> {
        let names = self.names;
        self.norm(names.weight(number, names.attn_norm), &layer.attn_norm);
        self.norm(names.weight(number, names.ffn_norm), &layer.ffn_norm);
        for (part, norm) in
            [(names.attn_sub_norm, &layer.attn_sub_norm), (names.ffn_sub_norm, &layer.ffn_sub_norm)]
        {
            if let Some(norm) = norm {
                self.norm(names.weight(number, part), norm);
            }
        }
        for (i, (part, (_, matrix))) in names.projections.iter().zip(layer.projections()).enumerate() {
            // Files of the architecture llama have the rows of queries and keys in another order.
            let interleaved = self.target.is_gguf() && !spec.sub_norms && i < 2;
            let order = match interleaved {
                true => RowOrder::RotaryInterleaved { head_dim: spec.head_dim },
                false => RowOrder::Natural,
            };
            self.projection(names.weight(number, part), matrix, order)?;
        }
        Ok(())
    }

    fn projection(&mut self, name: String, matrix: &'a TernaryMatrix, order: RowOrder) -> Result<()> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        match self.target {
            Target::SafetensorsPacked => {
                self.check(&name, TritCodec::HfPacked, rows, cols)?;
                let scale = name.replace(".weight", ".weight_scale");
                let content = Content::Trits(matrix, Packing::HuggingFace);
                self.push(name, StoredType::U8, &[rows / 4, cols], content);
                self.push(scale, StoredType::BF16, &[1], Content::Floats(vec![matrix.scale()], DType::BF16));
            }
            Target::SafetensorsBf16 => {
                let content = if self.has_masters(&name, matrix)? {
                    Content::Copy(matrix)
                } else {
                    Content::Masters(matrix)
                };
                self.push(name, StoredType::BF16, &[rows, cols], content);
            }
            Target::GgufI2s => {
                self.check(&name, TritCodec::I2S(I2sLayout::Group128), rows, cols)?;
                self.push(name, StoredType::I2S, &[rows, cols], Content::Trits(matrix, Packing::I2s(order)));
            }
            Target::GgufTq1 => {
                self.check(&name, TritCodec::Tq1_0, rows, cols)?;
                self.push(
                    name,
                    StoredType::TQ1_0,
                    &[rows, cols],
                    Content::Trits(matrix, Packing::Tq1(order)),
                );
            }
            Target::GgufTq2 => {
                self.check(&name, TritCodec::Tq2_0, rows, cols)?;
                self.push(
                    name,
                    StoredType::TQ2_0,
                    &[rows, cols],
                    Content::Trits(matrix, Packing::Tq2(order)),
                );
            }
            Target::Onnx => {
                let what = format!("tensor {name} without the graph around it");
                return Err(self.unsupported(what, "the graph is written as a whole"));
            }
        }
        Ok(())
    }

    /// Whether the source has bf16 masters of a matrix that can be copied.
    fn has_masters(&mut self, name: &str, matrix: &TernaryMatrix) -> Result<bool> {
        if !matches!(matrix.codec(), TritCodec::Dense { .. }) {
            self.measured.remade += 1;
            return Ok(false);
        }
        let TritCodec::Dense { dtype, inv } = matrix.codec() else { return Ok(false) };
        let found = absmean::measure(dtype, matrix.data().as_slice()).map_err(ConvertError::quant(name))?;
        matrix.data().release();
        self.measured.ternary += usize::from(found.already_ternary);
        // A source with rows in another order or with a factor of its own is none of transformers.
        let whole = matrix.order() == RowOrder::Natural && found.inv == inv && found.scale == matrix.scale();
        let copy = dtype == DType::BF16.into() && !found.already_ternary && whole;
        *(if copy { &mut self.measured.copied } else { &mut self.measured.remade }) += 1;
        Ok(copy)
    }

    fn check(&self, name: &str, codec: TritCodec, rows: usize, cols: usize) -> Result<()> {
        match codec.byte_len(rows, cols) {
            Ok(_) => Ok(()),
            Err(error) => {
                let remedy = "choose a form without that rule, such as safetensors-bf16";
                Err(self.unsupported(format!("tensor {name}: {error}"), remedy))
            }
        }
    }
}

/// The row of the model that stands at row `stored` of a file.
fn model_row(order: RowOrder, stored: usize) -> usize {
    match order {
        RowOrder::Natural => stored,
        RowOrder::RotaryInterleaved { head_dim } => {
            let within = stored % head_dim;
            stored - within + within % 2 * (head_dim / 2) + within / 2
        }
    }
}

impl Item<'_> {
    /// Bytes of the tensor in the file.
    pub(crate) fn byte_len(&self) -> u64 {
        self.plan.stored.byte_len(&self.plan.shape).unwrap_or(0)
    }

    /// Makes the bytes and gives them to `sink` block by block. Pages of the source are given back.
    ///
    /// # Errors
    /// If the source cannot be decoded, and those of `sink`.
    pub(crate) fn emit(&self, threads: usize, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let name = self.plan.name.as_str();
        match &self.content {
            Content::Floats(values, dtype) => sink(&dtype.encode(values)),
            Content::Table(table, dtype) => emit_table(name, table, *dtype, threads, sink),
            Content::Copy(matrix) => {
                let row = matrix.cols() * DType::BF16.size();
                let copy = |range: Range<usize>, out: &mut [u8]| {
                    Ok(matrix.data().read_into(range.start * row, out)?)
                };
                produce(matrix.rows(), row, threads, &copy, sink)
            }
            Content::Masters(matrix) => emit_masters(name, matrix, threads, sink),
            Content::Trits(matrix, packing) => {
                emit_trits(name, matrix, *packing, threads, sink)?;
                matrix.data().release();
                Ok(())
            }
        }
    }
}

fn emit_trits(
    name: &str,
    matrix: &TernaryMatrix,
    packing: Packing,
    threads: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let decode =
        |row: usize, trits: &mut [i8]| matrix.decode_row(row, trits).map_err(ConvertError::quant(name));
    match packing {
        Packing::HuggingFace => {
            // A row of bytes is four rows of the matrix, a quarter of it apart.
            let make = |range: Range<usize>, out: &mut [u8]| {
                let mut trits = vec![0i8; 4 * cols];
                for (row, out) in range.zip(out.chunks_exact_mut(cols)) {
                    for (quarter, trits) in trits.chunks_exact_mut(cols).enumerate() {
                        decode(quarter * (rows / 4) + row, trits)?;
                    }
                    out.copy_from_slice(&pack_hf(&trits, 4, cols).map_err(ConvertError::quant(name))?);
                }
                Ok(())
            };
            produce(rows / 4, cols, threads, &make, sink)
        }
        Packing::I2s(order) => {
            let layout = I2sLayout::Group128;
            let pack = |trits: &[i8], rows: usize| pack_i2s(layout, trits, rows, cols);
            emit_rows(name, matrix, order, TritCodec::I2S(layout), &pack, threads, sink)?;
            sink(&i2s_tail(matrix.scale()))
        }
        Packing::Tq1(order) => {
            let pack = |trits: &[i8], rows: usize| pack_tq1_0(trits, rows, cols, matrix.scale());
            emit_rows(name, matrix, order, TritCodec::Tq1_0, &pack, threads, sink)
        }
        Packing::Tq2(order) => {
            let pack = |trits: &[i8], rows: usize| pack_tq2_0(trits, rows, cols, matrix.scale());
            emit_rows(name, matrix, order, TritCodec::Tq2_0, &pack, threads, sink)
        }
    }
}

/// Packs some rows of trits.
type Pack<'a> = &'a (dyn Fn(&[i8], usize) -> bitnet_quant::Result<Vec<u8>> + Sync);

/// Packs rows in the order of the file, a few at a time.
fn emit_rows(
    name: &str,
    matrix: &TernaryMatrix,
    order: RowOrder,
    codec: TritCodec,
    pack: Pack<'_>,
    threads: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let cols = matrix.cols();
    let row_bytes = codec.byte_len(1, cols).map_err(ConvertError::quant(name))? as usize;
    let make = |range: Range<usize>, out: &mut [u8]| {
        let mut trits = vec![0i8; ROWS.min(range.len()) * cols];
        for (first, out) in range.step_by(ROWS).zip(out.chunks_mut(ROWS * row_bytes)) {
            let rows = out.len() / row_bytes;
            for (i, trits) in trits.chunks_exact_mut(cols).take(rows).enumerate() {
                matrix.decode_row(model_row(order, first + i), trits).map_err(ConvertError::quant(name))?;
            }
            let packed = pack(&trits[..rows * cols], rows).map_err(ConvertError::quant(name))?;
            out.copy_from_slice(&packed);
        }
        Ok(())
    };
    produce(matrix.rows(), row_bytes, threads, &make, sink)
}

fn emit_masters(
    name: &str,
    matrix: &TernaryMatrix,
    threads: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let masters = Masters::plan(name, matrix, threads)?;
    let cols = matrix.cols();
    let make = |range: Range<usize>, out: &mut [u8]| {
        let mut trits = vec![0i8; cols];
        for (row, out) in range.zip(out.chunks_exact_mut(2 * cols)) {
            matrix.decode_row(row, &mut trits).map_err(ConvertError::quant(name))?;
            masters.row(row, &trits, out);
        }
        Ok(())
    };
    produce(matrix.rows(), 2 * cols, threads, &make, sink)?;
    matrix.data().release();
    Ok(())
}

/// Copies rows past the mapping, so that a large table does not become resident, and rounds them if asked to.
fn emit_table(
    name: &str,
    table: &DenseTensor,
    stored: DenseType,
    threads: usize,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let cols = table.cols();
    let row_bytes = stored.bytes_of(cols).unwrap_or(0);
    let make = |range: Range<usize>, out: &mut [u8]| {
        if stored == table.stored() {
            return Ok(table.data().read_into(range.start * row_bytes, out)?);
        }
        let mut buffer = Vec::new();
        let mut values = vec![0.0f32; cols];
        for (row, out) in range.zip(out.chunks_exact_mut(row_bytes)) {
            let rows = table.read_rows(row..row + 1, &mut buffer)?;
            rows.dtype.decode(rows.bytes, &mut values);
            let rounded = rounded(stored, &values).ok_or_else(|| ConvertError::Unsupported {
                target: stored.name(),
                what: format!("tensor {name}, row {row}, holds a value beyond its range"),
                remedy: "keep the type of the tables, or write them as bf16",
            })?;
            out.copy_from_slice(&rounded);
        }
        Ok(())
    };
    produce(table.rows(), row_bytes, threads, &make, sink)
}

/// Values in a type; `None` if it cannot hold one of them.
pub(crate) fn rounded(stored: DenseType, values: &[f32]) -> Option<Vec<u8>> {
    match stored {
        DenseType::Plain(dtype) => {
            // Beyond this f16 rounds to infinity.
            let fits = dtype != DType::F16 || values.iter().all(|v| v.abs() < 65_520.0);
            fits.then(|| dtype.encode(values))
        }
        DenseType::Blocks(blocks) => {
            let mut out = Vec::new();
            blocks.encode(values, &mut out).then_some(out)
        }
    }
}
