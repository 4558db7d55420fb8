//! [`Constant`]: what the weight operand of a product is, behind the operators that only rewrite a tensor.

use bitnet_formats::StoredTensor;

use super::graph::Graph;
use crate::load::error::Result;

/// Longest chain of operators in front of a weight.
const MAX_CHAIN: usize = 24;
/// Largest part of a graph that is looked through for the quantisation of masters.
const MAX_CONE: usize = 64;

/// A tensor as a product reads it: `(tensor - zero) * scale`.
#[derive(Debug, Clone)]
pub(super) struct Constant<'a> {
    pub(super) tensor: &'a StoredTensor,
    /// Whether the product reads it with its two dimensions exchanged.
    pub(super) transposed: bool,
    /// Scale of a dequantisation.
    pub(super) scale: Option<f32>,
    /// Zero point of a dequantisation.
    pub(super) zero: i32,
    /// Whether the graph rounds it to trits itself, by the mean of its magnitudes.
    pub(super) rounded: bool,
    /// The scale by which the graph rounds it to integers (`QuantizeLinear`).
    pub(super) quantized_by: Option<f32>,
}

/// What an operand is.
#[derive(Debug, Clone)]
pub(super) enum Operand<'a> {
    /// A weight.
    Constant(Constant<'a>),
    /// A weight behind operators that are not understood: the first of them.
    Obscured(String),
    /// Something that depends on the input.
    Dynamic,
}

/// Follows a value back to the tensor that it is made of.
///
/// # Errors
/// If scales or zero points cannot be used.
pub(super) fn resolve<'a>(graph: &Graph<'a>, name: &'a str) -> Result<Operand<'a>> {
    let mut name = name;
    let (mut transposed, mut scale, mut zero, mut quantized_by) = (false, None, 0, None);
    for _ in 0..MAX_CHAIN {
        if let Some(tensor) = graph.tensor(name) {
            let rounded = false;
            return Ok(Operand::Constant(Constant {
                tensor,
                transposed,
                scale,
                zero,
                rounded,
                quantized_by,
            }));
        }
        let Some(index) = graph.producer(name) else { return Ok(Operand::Dynamic) };
        let node = graph.node(index);
        let Some(input) = node.inputs.first().map(String::as_str) else { return Ok(Operand::Dynamic) };
        name = match node.op_type.as_str() {
            "Identity" | "Cast" => input,
            "Transpose" => {
                use bitnet_formats::OnnxAttribute::Ints;
                match node.attribute("perm") {
                    Some(Ints(perm)) if perm == &[0, 1] => {}
                    Some(Ints(perm)) if perm != &[1, 0] => return Ok(Operand::Dynamic),
                    _ => transposed = !transposed,
                }
                input
            }
            "DequantizeLinear" if scale.is_none() => {
                let Some(found) = node.input(1).map(|name| graph.one_number(name)).transpose()?.flatten()
                else {
                    return Ok(Operand::Obscured(node.describe()));
                };
                scale = Some(found);
                zero = node.input(2).map_or(Ok(0), |name| graph.zero_point(name))?;
                input
            }
            "QuantizeLinear" if scale.is_some() && quantized_by.is_none() => {
                quantized_by = node.input(1).map(|name| graph.one_number(name)).transpose()?.flatten();
                if quantized_by.is_none() {
                    return Ok(Operand::Obscured(node.describe()));
                }
                input
            }
            op @ ("Mul" | "Div" | "Sub") => match (scaled(graph, index, op)?, scale) {
                (Some((other, Change::Factor(factor))), _) => {
                    scale = Some(scale.unwrap_or(1.0) * factor);
                    other
                }
                (Some((other, Change::Zero(point))), _) if zero == 0 => {
                    zero = point;
                    other
                }
                _ => return cone(graph, name, transposed),
            },
            _ => return cone(graph, name, transposed),
        };
    }
    Ok(Operand::Dynamic)
}

/// What a node with one constant number does to its other operand.
enum Change {
    Factor(f32),
    Zero(i32),
}

fn scaled<'a>(graph: &Graph<'a>, index: usize, op: &str) -> Result<Option<(&'a str, Change)>> {
    let [a, b] = graph.node(index).inputs.as_slice() else { return Ok(None) };
    let number = graph.scalar(b)?;
    Ok(match (op, number) {
        ("Mul", Some(factor)) => Some((a.as_str(), Change::Factor(factor))),
        ("Div", Some(divisor)) => Some((a.as_str(), Change::Factor(1.0 / divisor))),
        ("Sub", Some(zero)) if zero.fract() == 0.0 && zero.abs() < 256.0 => {
            Some((a.as_str(), Change::Zero(zero as i32)))
        }
        ("Sub", None) if graph.tensor(b).is_some_and(|tensor| tensor.elements() == Some(1)) => {
            Some((a.as_str(), Change::Zero(graph.zero_point(b)?)))
        }
        ("Mul", None) => graph.scalar(a)?.map(|factor| (b.as_str(), Change::Factor(factor))),
        _ => None,
    })
}

/// Operators in which exporters write `clamp(round(w / mean|w|)) * mean|w|`, the rounding of masters to trits.
const ROUNDING: [&str; 15] = [
    "Abs",
    "ReduceMean",
    "Clip",
    "Max",
    "Min",
    "Reciprocal",
    "Div",
    "Mul",
    "Round",
    "Cast",
    "Identity",
    "Transpose",
    "Sub",
    "Add",
    "Detach",
];

/// Looks at everything that a value is computed from.
fn cone<'a>(graph: &Graph<'a>, name: &'a str, transposed: bool) -> Result<Operand<'a>> {
    let mut masters: Vec<&'a StoredTensor> = Vec::new();
    let mut obscure = None;
    let mut ops: Vec<&str> = Vec::new();
    let mut todo = vec![name];
    let mut seen = vec![name];
    let mut transposed = transposed;
    while let Some(name) = todo.pop() {
        if let Some(tensor) = graph.tensor(name) {
            let known = masters.iter().any(|known| std::ptr::eq(*known, tensor));
            if tensor.shape.len() == 2 && tensor.elements().unwrap_or(0) > 1 && !known {
                masters.push(tensor);
            }
            continue;
        }
        let Some(index) = graph.producer(name) else { return Ok(Operand::Dynamic) };
        let node = graph.node(index);
        if ops.len() >= MAX_CONE {
            return Ok(Operand::Dynamic);
        }
        let op = node.op_type.as_str();
        if !ROUNDING.contains(&op) {
            obscure = obscure.or_else(|| Some(node.describe()));
        }
        transposed ^= op == "Transpose";
        ops.push(op);
        for input in node.inputs.iter().map(String::as_str).filter(|input| !input.is_empty()) {
            if !seen.contains(&input) {
                seen.push(input);
                todo.push(input);
            }
        }
    }
    let rounds = ops.contains(&"Round") && ops.contains(&"ReduceMean");
    match (masters.as_slice(), obscure) {
        ([], _) => Ok(Operand::Dynamic),
        ([tensor], None) if rounds => Ok(Operand::Constant(Constant {
            tensor,
            transposed,
            scale: None,
            zero: 0,
            rounded: true,
            quantized_by: None,
        })),
        (_, obscure) => {
            let first = graph.producer(name).map(|index| graph.node(index).describe());
            Ok(Operand::Obscured(obscure.or(first).unwrap_or_else(|| name.to_owned())))
        }
    }
}
