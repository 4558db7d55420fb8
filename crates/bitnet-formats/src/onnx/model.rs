//! [`OnnxFile`]: what an ONNX model says, as plain data. Tensor data stays where it lies.

use std::collections::BTreeMap;

use crate::tensor::{StoredTensor, TensorSet};

/// An ONNX model.
#[derive(Debug, Clone)]
pub struct OnnxFile {
    /// Version of the file format.
    pub ir_version: i64,
    /// Program that wrote it.
    pub producer: String,
    /// Operator sets by domain, the empty domain being ONNX's own.
    pub opsets: Vec<(String, i64)>,
    /// `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// Initialisers and the outputs of `Constant` nodes, by the names under which nodes use them.
    pub tensors: TensorSet,
    /// All nodes but `Constant`, in the order of the file, which is one in which they can be computed.
    pub nodes: Vec<OnnxNode>,
    /// Names of the graph's inputs that are not initialisers.
    pub inputs: Vec<String>,
    /// Names of the graph's outputs.
    pub outputs: Vec<String>,
}

/// A node of the graph: an operator with what it reads and writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OnnxNode {
    /// Its name; may be empty.
    pub name: String,
    /// The operator.
    pub op_type: String,
    /// Operator set; empty for ONNX's own.
    pub domain: String,
    /// Names of what it reads; empty for an optional input that is left out.
    pub inputs: Vec<String>,
    /// Names of what it writes.
    pub outputs: Vec<String>,
    /// Its attributes by name.
    pub attributes: Vec<(String, OnnxAttribute)>,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxAttribute {
    /// One float.
    Float(f32),
    /// One whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// Several floats.
    Floats(Vec<f32>),
    /// Several whole numbers.
    Ints(Vec<i64>),
    /// Something that is not read: a graph, a tensor, lists of these.
    Other,
}

impl OnnxNode {
    /// A node of ONNX's own operator set that is named after its first output.
    pub fn new(op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            name: outputs.first().copied().unwrap_or_default().to_owned(),
            op_type: op_type.to_owned(),
            domain: String::new(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            attributes: Vec::new(),
        }
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: OnnxAttribute) -> Self {
        self.attributes.push((name.to_owned(), value));
        self
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&OnnxAttribute> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A whole-number attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(OnnxAttribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(OnnxAttribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// An input that is there and not left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The first output; empty if there is none.
    pub fn output(&self) -> &str {
        self.outputs.first().map(String::as_str).unwrap_or_default()
    }

    /// What to call the node in a message: its operator and its name, or its output if it has none.
    pub fn describe(&self) -> String {
        let name = if self.name.is_empty() { self.output() } else { &self.name };
        let domain = if self.domain.is_empty() { String::new() } else { format!("{}.", plain(&self.domain)) };
        format!("node {} ({domain}{})", crate::error::quoted(name), plain(&self.op_type))
    }
}

/// The name of an operator or domain: as it is, unless it is none.
fn plain(name: &str) -> String {
    let is_plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { name.to_owned() } else { crate::error::quoted(name) }
}

impl OnnxFile {
    /// A tensor of the model.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Version of ONNX's own operator set; 0 if the file names none.
    pub fn opset(&self) -> i64 {
        let own = self.opsets.iter().find(|(domain, _)| domain.is_empty() || domain == "ai.onnx");
        own.map_or(0, |(_, version)| *version)
    }
}
