//! From the weight of a product to a projection of the model.

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{StoredTensor, StoredType};
use bitnet_quant::{Element, Elements, TritCodec, absmean};

use super::constant::Constant;
use super::graph::{Graph, integer};
use super::linear::{Linear, Weight};
use crate::DenseTensor;
use crate::load::assemble::Slot;
use crate::load::error::{LoadError, Result, ShapeText};
use crate::load::projection::{Form, Projection};

/// The projection that a product is; `rotary` is the width of a head for queries and keys.
///
/// # Errors
/// If shape, type or scales do not fit.
pub(super) fn projection(
    graph: &Graph<'_>,
    slot: &Slot,
    linear: &Linear<'_>,
    rotary: Option<usize>,
) -> Result<Projection> {
    refuse_scaled_heads(graph, linear, rotary)?;
    let tensor = linear.weight.tensor();
    let expected = [slot.rows as u64, slot.cols as u64];
    if [linear.rows, linear.cols] != expected {
        return Err(LoadError::TensorShape {
            file: graph.origin.to_owned(),
            tensor: tensor.name.clone(),
            found: ShapeText(vec![linear.rows, linear.cols]),
            expected: ShapeText(expected.to_vec()),
        });
    }
    let form = match &linear.weight {
        Weight::Matrix { constant, in_columns } => matrix(graph, slot, constant, *in_columns, linear.factor)?,
        Weight::Blocks { tensor, stride, block, zero, scales } => {
            let blocks = Blocks { tensor, scales, zero: *zero, block: *block };
            let scale = blocks.scale(graph)? * linear.factor.unwrap_or(1.0);
            let element = Element::Int { bits: 2, signed: false, zero: *zero };
            let elements = Elements { element, transposed: false, stride: *stride as usize };
            Form::Ternary(TritCodec::Elements(elements), scale)
        }
    };
    Ok(slot.filled(tensor, form, tensor.data.clone()))
}

/// Attention scores are divided by the root of the width of a head. A graph may do that to the queries instead, or by
/// halves to queries and keys; taken for the scale of the weights, it would be applied twice.
fn refuse_scaled_heads(graph: &Graph<'_>, linear: &Linear<'_>, rotary: Option<usize>) -> Result<()> {
    let (Some(head_dim), Some(factor)) = (rotary, linear.factor) else { return Ok(()) };
    let scale = 1.0 / (head_dim as f32).sqrt();
    if [scale, scale.sqrt()].iter().any(|scale| (factor - scale).abs() < 1e-6) {
        let what =
            format!("{} multiplied by {factor}, as attention scores are", graph.node(linear.node).describe());
        return Err(graph.unsupported(what, "graphs that scale attention scores, not queries or keys, are"));
    }
    Ok(())
}

fn matrix(
    graph: &Graph<'_>,
    slot: &Slot,
    constant: &Constant<'_>,
    in_columns: bool,
    factor: Option<f32>,
) -> Result<Form> {
    let tensor = constant.tensor;
    let named = |what: &str| format!("tensor {:?} {what}", tensor.name);
    if let Some(dtype) = tensor.stored.dense() {
        return masters(graph, slot, constant, dtype, in_columns, factor);
    }
    let (bits, signed) = match tensor.stored {
        StoredType::I8 => (8, true),
        StoredType::U8 => (8, false),
        StoredType::I4 => (4, true),
        StoredType::U4 => (4, false),
        StoredType::I2 => (2, true),
        StoredType::U2 => (2, false),
        other => {
            let what = named(&format!("of type {other}"));
            return Err(graph.unsupported(what, "floats and integers of 2, 4 and 8 bits are"));
        }
    };
    let scale = match (constant.scale, factor) {
        (None, None) => {
            let what = named("of integers without a scale");
            return Err(graph.unsupported(what, "integers that are multiplied by one constant scale are"));
        }
        (scale, factor) => scale.unwrap_or(1.0) * factor.unwrap_or(1.0),
    };
    let element = Element::Int { bits, signed, zero: constant.zero };
    let stride = if in_columns { slot.rows } else { slot.cols };
    Ok(Form::Ternary(TritCodec::Elements(Elements { element, transposed: in_columns, stride }), scale))
}

fn masters(
    graph: &Graph<'_>,
    slot: &Slot,
    constant: &Constant<'_>,
    dtype: DType,
    in_columns: bool,
    factor: Option<f32>,
) -> Result<Form> {
    let tensor = constant.tensor;
    let refuse =
        |what: &str, remedy| Err(graph.unsupported(format!("tensor {:?} {what}", tensor.name), remedy));
    if constant.zero != 0 {
        return refuse("of floats with a zero point", "integers with a zero point are");
    }
    if let Some(step) = constant.quantized_by {
        // The graph rounds floats to integers and back. That is the weights themselves if they are trits of this scale.
        let measured = absmean::measure(dtype, tensor.data.as_slice()).map_err(|source| {
            LoadError::Quant { file: graph.origin.to_owned(), tensor: tensor.name.clone(), source }
        })?;
        let scale = constant.scale.unwrap_or(step);
        let same = |a: f32, b: f32| (a - b).abs() <= 1e-6 * b.abs();
        if !(measured.already_ternary && same(measured.scale, step) && same(scale, step)) {
            let what =
                format!("of {dtype} weights that the graph rounds by {step} and multiplies by {scale}");
            return refuse(&what, "weights that are -a, 0 and a with a as the scale are");
        }
        return Ok(dense(slot, dtype, in_columns, None));
    }
    let scale = match (constant.scale, factor) {
        (None, None) => None,
        (scale, factor) => Some(scale.unwrap_or(1.0) * factor.unwrap_or(1.0)),
    };
    if constant.rounded && scale.is_some_and(|scale| scale != 1.0) {
        return refuse(
            "of masters whose products are scaled once more",
            "masters with no scale of their own are",
        );
    }
    Ok(dense(slot, dtype, in_columns, scale.filter(|&scale| scale != 1.0)))
}

fn dense(slot: &Slot, dtype: DType, in_columns: bool, factor: Option<f32>) -> Form {
    if in_columns {
        Form::MastersInColumns { dtype, rows: slot.rows, factor }
    } else {
        Form::Masters { dtype: dtype.into(), factor }
    }
}

/// Blocks of `MatMulNBits`.
struct Blocks<'a> {
    tensor: &'a StoredTensor,
    scales: &'a StoredTensor,
    zero: i32,
    block: u64,
}

impl Blocks<'_> {
    /// The scale that all blocks with a trit other than 0 have.
    ///
    /// # Errors
    /// If they differ, with both values, or sizes do not fit.
    fn scale(&self, graph: &Graph<'_>) -> Result<f32> {
        let refuse = |what: String, remedy| Err(graph.unsupported(what, remedy));
        let (scales, name) = (self.scales, &self.scales.name);
        let Some(dtype) = scales.stored.dense() else {
            return refuse(
                format!("tensor {name:?} of type {}", scales.stored),
                "scales of f32, f16 and bf16 are",
            );
        };
        let bytes = scales.data.as_slice();
        let block_bytes = (self.block / 4) as usize;
        let count = self.tensor.data.len() / block_bytes;
        if self.tensor.stored != StoredType::U8 || count == 0 || bytes.len() != count * dtype.size() {
            let what = format!("tensor {name:?} with {} bytes of scales for {count} blocks", bytes.len());
            return refuse(what, "one scale a block of bytes is");
        }
        let mut found: Option<f32> = None;
        let mut value = [0.0f32];
        for (block, scale) in bytes.chunks_exact(dtype.size()).enumerate() {
            dtype.decode(scale, &mut value);
            if found == Some(value[0]) || self.is_zero(block, block_bytes) {
                continue;
            }
            if let Some(first) = found {
                let what =
                    format!("tensor {name:?} with the scales {first} and {} (block {block})", value[0]);
                return refuse(what, "one scale for all blocks of a projection is");
            }
            found = Some(value[0]);
        }
        // A projection of zeros has no scale; any will do.
        Ok(found.unwrap_or(1.0))
    }

    /// Whether a block holds nothing but zeros, so that its scale does not matter.
    fn is_zero(&self, block: usize, block_bytes: usize) -> bool {
        let bytes = &self.tensor.data.as_slice()[block * block_bytes..][..block_bytes];
        (0..4 * block_bytes).all(|i| integer(bytes, i, 2, false) == self.zero)
    }
}

/// A dense table `[rows, cols]` out of a product's weight: in place, or turned around if it lies in columns.
///
/// # Errors
/// If it is not of floats, or scaled.
pub(super) fn table(graph: &Graph<'_>, linear: &Linear<'_>) -> Result<StoredTensor> {
    let tensor = linear.weight.tensor();
    let refuse = |what: &str| {
        graph
            .unsupported(format!("tensor {:?} {what}", tensor.name), "an output layer of f32, f16 or bf16 is")
    };
    let Weight::Matrix { constant, in_columns } = &linear.weight else {
        return Err(refuse("of 2-bit blocks in the output layer"));
    };
    let dtype = tensor
        .stored
        .dense()
        .ok_or_else(|| refuse(&format!("of type {} in the output layer", tensor.stored)))?;
    let scaled = constant.scale.is_some_and(|scale| scale != 1.0) || linear.factor.is_some_and(|f| f != 1.0);
    if scaled || constant.rounded || constant.quantized_by.is_some() || constant.zero != 0 {
        return Err(refuse("scaled or quantised in the output layer"));
    }
    let mut table = tensor.clone();
    if *in_columns {
        table.shape = vec![linear.rows, linear.cols];
        table.data = turned(tensor, dtype, linear.rows as usize, linear.cols as usize);
    }
    Ok(table)
}

/// `[cols, rows]` as `[rows, cols]`.
fn turned(tensor: &StoredTensor, dtype: DType, rows: usize, cols: usize) -> ByteView {
    const TILE: usize = 32;
    let (size, bytes) = (dtype.size(), tensor.data.as_slice());
    let mut out = vec![0u8; bytes.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c in 0..cols {
            for r in r0..(r0 + TILE).min(rows) {
                out[(r * cols + c) * size..][..size].copy_from_slice(&bytes[(c * rows + r) * size..][..size]);
            }
        }
    }
    tensor.data.release();
    ByteView::from_vec(out)
}

/// Whether a product reads the same numbers as a table holds: the same tensor, or equal in a sample of rows.
pub(super) fn is_same(linear: &Linear<'_>, embedding: &StoredTensor) -> bool {
    let Weight::Matrix { constant, in_columns } = &linear.weight else { return false };
    let tensor = constant.tensor;
    if std::ptr::eq(tensor, embedding) {
        return true;
    }
    let (rows, cols) = (linear.rows as usize, linear.cols as usize);
    let (Some(a), Some(b)) = (tensor.stored.dense(), embedding.stored.dense()) else { return false };
    let Some(table) = DenseTensor::new(rows, cols, b, embedding.data.clone()) else { return false };
    let (mut row, mut value) = (vec![0.0; cols], [0.0]);
    let bytes = tensor.data.as_slice();
    (0..rows).step_by((rows / 61).max(1)).all(|r| {
        table.decode_row(r, &mut row);
        (0..cols).all(|c| {
            let index = if *in_columns { c * rows + r } else { r * cols + c };
            a.decode(&bytes[index * a.size()..][..a.size()], &mut value);
            value[0] == row[c]
        })
    })
}
