//! [`Linear`]: the products of the graph whose right side is a weight.

use bitnet_formats::StoredTensor;

use super::constant::{Constant, Operand, resolve};
use super::graph::Graph;
use crate::load::error::Result;

/// Longest chain of operators behind a product that is looked through for its scale.
const MAX_CHAIN: usize = 8;

/// A product with a weight of `[rows, cols]`, rows being output features.
#[derive(Debug, Clone)]
pub(super) struct Linear<'a> {
    /// Index of its node.
    pub(super) node: usize,
    /// The value that it multiplies.
    pub(super) activation: &'a str,
    /// Its weight.
    pub(super) weight: Weight<'a>,
    pub(super) rows: u64,
    pub(super) cols: u64,
    /// What the product is multiplied by afterwards.
    pub(super) factor: Option<f32>,
}

/// The weight of a product.
#[derive(Debug, Clone)]
pub(super) enum Weight<'a> {
    /// A matrix, stored as `[cols, rows]` if `in_columns`.
    Matrix { constant: Constant<'a>, in_columns: bool },
    /// Blocks of two bits, rows padded to `stride` elements.
    Blocks { tensor: &'a StoredTensor, stride: u64, block: u64, zero: i32, scales: &'a StoredTensor },
}

impl<'a> Weight<'a> {
    /// The tensor with the weights themselves.
    pub(super) fn tensor(&self) -> &'a StoredTensor {
        match self {
            Weight::Matrix { constant, .. } => constant.tensor,
            Weight::Blocks { tensor, .. } => tensor,
        }
    }
}

/// All such products, and what stands in the way of others.
pub(super) struct Linears<'a> {
    pub(super) found: Vec<Linear<'a>>,
    /// Products with weights that are not understood: their nodes, with the reason.
    pub(super) obscured: Vec<String>,
}

/// Finds the products of a graph, in the order of the file.
///
/// # Errors
/// If a product does more than a projection does: a bias, a factor, scales that differ.
pub(super) fn find<'a>(graph: &Graph<'a>) -> Result<Linears<'a>> {
    let mut linears = Linears { found: Vec::new(), obscured: Vec::new() };
    for index in 0..graph.file.nodes.len() {
        let node = graph.node(index);
        let linear = match node.op_type.as_str() {
            "MatMul" | "FusedMatMul" | "MatMulInteger" | "Gemm" => {
                matrix(graph, index, &mut linears.obscured)?
            }
            "MatMulNBits" => Some(blocks(graph, index)?),
            _ => None,
        };
        if let Some(mut linear) = linear {
            linear.factor = factor_behind(graph, node.output())?;
            linears.found.push(linear);
        }
    }
    Ok(linears)
}

fn matrix<'a>(graph: &Graph<'a>, index: usize, obscured: &mut Vec<String>) -> Result<Option<Linear<'a>>> {
    let node = graph.node(index);
    let (Some(activation), Some(right)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let mut constant = match resolve(graph, right)? {
        Operand::Constant(constant) => constant,
        Operand::Obscured(what) => {
            obscured.push(format!("{} with a weight behind {what}", node.describe()));
            return Ok(None);
        }
        Operand::Dynamic => return Ok(None),
    };
    let &[first, second] = constant.tensor.shape.as_slice() else { return Ok(None) };
    if graph.tensor(activation).is_some() {
        return Ok(None);
    }
    let only = "plain products of activations and weights are";
    let flag = |name: &str| node.int(name).unwrap_or(0) != 0;
    let mut exchanged = constant.transposed;
    match node.op_type.as_str() {
        "Gemm" => {
            exchanged ^= flag("transB");
            if flag("transA") || node.float("alpha").unwrap_or(1.0) != 1.0 {
                return Err(graph.unsupported(format!("{} with transA or alpha", node.describe()), only));
            }
            if node.input(2).is_some_and(|bias| !graph.is_zero(bias)) {
                return Err(bias_error(graph, &node.describe()));
            }
        }
        "FusedMatMul" => {
            exchanged ^= flag("transB");
            if flag("transA") || node.float("alpha").unwrap_or(1.0) != 1.0 {
                return Err(graph.unsupported(format!("{} with transA or alpha", node.describe()), only));
            }
        }
        "MatMulInteger" => constant.zero += node.input(3).map_or(Ok(0), |name| graph.zero_point(name))?,
        _ => {}
    }
    // A product reads [cols, rows]; it lies so unless it is exchanged on the way.
    let (rows, cols) = if exchanged { (first, second) } else { (second, first) };
    let weight = Weight::Matrix { constant, in_columns: !exchanged };
    Ok(Some(Linear { node: index, activation, weight, rows, cols, factor: None }))
}

/// `MatMulNBits` of ONNX Runtime: `B` `[N, blocks, block / 4]`, low bits first along K.
fn blocks<'a>(graph: &Graph<'a>, index: usize) -> Result<Linear<'a>> {
    let node = graph.node(index);
    let refuse = |what: &str| {
        graph.unsupported(format!("{} with {what}", node.describe()), "bits = 2 without bias is")
    };
    let size = |name: &str| node.int(name).and_then(|value| u64::try_from(value).ok());
    let (Some(cols), Some(rows), Some(block)) = (size("K"), size("N"), size("block_size")) else {
        return Err(refuse("K, N or block_size missing"));
    };
    let bits = node.int("bits").unwrap_or(4);
    if bits != 2 || !block.is_power_of_two() || !(16..=1 << 20).contains(&block) || cols == 0 {
        return Err(refuse(&format!("bits = {bits} and block_size = {block}")));
    }
    let operand = |i: usize| node.input(i).and_then(|name| graph.tensor(name));
    let (Some(activation), Some(tensor), Some(scales)) = (node.input(0), operand(1), operand(2)) else {
        return Err(refuse("weights or scales that are computed"));
    };
    if node.input(4).is_some() {
        return Err(refuse("g_idx (a permutation of the columns)"));
    }
    if node.input(5).is_some_and(|bias| !graph.is_zero(bias)) {
        return Err(bias_error(graph, &node.describe()));
    }
    let per_row = cols.div_ceil(block);
    let zero = match node.input(3) {
        None => 2,
        Some(name) => block_zero(graph, name, rows, per_row)?,
    };
    let weight = Weight::Blocks { tensor, stride: per_row.saturating_mul(block), block, zero, scales };
    Ok(Linear { node: index, activation, weight, rows, cols, factor: None })
}

/// The zero point of all blocks: packed like the weights, each row padded to whole bytes, or one float a block.
fn block_zero(graph: &Graph<'_>, name: &str, rows: u64, per_row: u64) -> Result<i32> {
    let Some(tensor) = graph.tensor(name).filter(|tensor| tensor.stored == bitnet_formats::StoredType::U8)
    else {
        return graph.zero_point(name);
    };
    let bytes = tensor.data.as_slice();
    let row_bytes = per_row.div_ceil(4);
    if row_bytes.checked_mul(rows) != Some(bytes.len() as u64) || bytes.is_empty() {
        let what =
            format!("zero point {name:?} of {} bytes for {rows} rows of {per_row} blocks", bytes.len());
        return Err(graph.unsupported(what, "two bits a block, rows in whole bytes, are"));
    }
    let first = i32::from(bytes[0] & 3);
    for row in bytes.chunks_exact(row_bytes as usize) {
        let other =
            (0..per_row as usize).map(|i| super::graph::integer(row, i, 2, false)).find(|&z| z != first);
        if let Some(other) = other {
            let what = format!("zero point {name:?} with the values {first} and {other}");
            return Err(graph.unsupported(what, "one zero point for a whole projection is"));
        }
    }
    Ok(first)
}

fn bias_error(graph: &Graph<'_>, node: &str) -> crate::LoadError {
    graph.unsupported(format!("{node} with a bias"), "projections without biases are")
}

/// The constant that a product is multiplied by before anything else is done with it: the weight's scale in graphs that
/// multiply trits. The scale of the activations, which is computed, is passed over.
fn factor_behind(graph: &Graph<'_>, output: &str) -> Result<Option<f32>> {
    let mut value = output;
    let mut factor: Option<f32> = None;
    for _ in 0..MAX_CHAIN {
        let &[reader] = graph.consumers(value) else { break };
        let node = graph.node(reader);
        let change = match (node.op_type.as_str(), node.inputs.as_slice()) {
            ("Cast" | "Identity", _) => None,
            ("Mul", [a, b]) => match multiplier(graph, if a == value { b } else { a })? {
                Multiplier::Constant(found) => Some(found),
                Multiplier::Activation => None,
                Multiplier::Unknown => break,
            },
            ("Div", [a, b]) if a == value => match multiplier(graph, b)? {
                Multiplier::Constant(divisor) => Some(1.0 / divisor),
                Multiplier::Activation | Multiplier::Unknown => None,
            },
            ("Add", [a, b]) => {
                let other = if a == value { b } else { a };
                if graph.tensor(other).is_some() && !graph.is_zero(other) {
                    return Err(bias_error(graph, &node.describe()));
                }
                break;
            }
            _ => break,
        };
        if let Some(change) = change {
            factor = Some(factor.unwrap_or(1.0) * change);
        }
        value = node.output();
    }
    Ok(factor)
}

/// What a product is multiplied or divided by.
enum Multiplier {
    /// A constant, or one that a computed scale is multiplied or divided by.
    Constant(f32),
    /// The scale of the activations.
    Activation,
    /// Anything else.
    Unknown,
}

fn multiplier(graph: &Graph<'_>, name: &str) -> Result<Multiplier> {
    // Largest values of int8 and uint8, from which scales of activations are computed.
    const LIMITS: [f32; 3] = [127.0, 128.0, 255.0];
    if graph.tensor(name).is_some() {
        return Ok(graph.scalar(name)?.map_or(Multiplier::Unknown, Multiplier::Constant));
    }
    if is_activation_scale(graph, name) {
        return Ok(Multiplier::Activation);
    }
    let Some(index) = graph.producer(name) else { return Ok(Multiplier::Unknown) };
    let node = graph.node(index);
    let [a, b] = node.inputs.as_slice() else { return Ok(Multiplier::Unknown) };
    Ok(match (node.op_type.as_str(), graph.scalar(a)?, graph.scalar(b)?) {
        ("Mul" | "Div", Some(limit), None) | ("Mul" | "Div", None, Some(limit))
            if LIMITS.iter().any(|&known| limit == known || limit == 1.0 / known) =>
        {
            Multiplier::Activation
        }
        ("Mul" | "Div", Some(constant), None) | ("Mul", None, Some(constant)) => {
            Multiplier::Constant(constant)
        }
        ("Div", None, Some(constant)) => Multiplier::Constant(1.0 / constant),
        _ => Multiplier::Unknown,
    })
}

/// Whether a value scales a row that is then rounded.
fn is_activation_scale(graph: &Graph<'_>, name: &str) -> bool {
    let produced = graph.producer(name).map(|index| graph.node(index).op_type.as_str());
    let is_scaling = |index: &usize| {
        let node = graph.node(*index);
        let rounds =
            |index: &usize| matches!(graph.node(*index).op_type.as_str(), "Round" | "QuantizeLinear");
        matches!(node.op_type.as_str(), "Mul" | "Div") && graph.consumers(node.output()).iter().any(rounds)
    };
    produced == Some("DynamicQuantizeLinear") || graph.consumers(name).iter().any(is_scaling)
}
