//! Reading a `ModelProto`: graph, nodes and attributes.
//!
//! Field numbers are those of `onnx.proto`. Lists are counted before memory is taken for them, and all memory is charged
//! to a [`Budget`], so that a small file cannot make a large model. Graphs inside of nodes (`If`, `Loop`) are not
//! entered, so nothing recurses.

use std::collections::{BTreeMap, HashSet};

use bitnet_core::bytes::ByteView;

use super::budget::Budget;
use super::external::External;
use super::model::{OnnxAttribute, OnnxFile, OnnxNode};
use super::tensor::{self, Scalars};
use super::wire::{Field, FileFacts, Message};
use crate::tensor::{StoredTensor, TensorSet};
use crate::{Container, FormatError, Result, detect};

/// More nodes or tensors than any model has.
const MAX_LIST: usize = 1 << 20;

/// Reads an ONNX model; `origin` is its name for messages. Data of other files is looked for through `open`, which is
/// called once a file with its name relative to the model's folder (parts separated by `/`, never leading out of it).
///
/// # Errors
/// [`FormatError`] if the file is of another kind, cut short, contradicts itself or needs more memory than twice its size;
/// those of `open`.
#[expect(clippy::needless_pass_by_value, reason = "the file is handed over: its tensors hold on to it")]
pub fn read_onnx(
    view: ByteView,
    origin: &str,
    open: &mut dyn FnMut(&str) -> Result<ByteView>,
) -> Result<OnnxFile> {
    let bytes = view.as_slice();
    detect::expect(Container::Onnx, "ONNX", bytes, origin)?;
    let facts = FileFacts { origin, len: view.len() as u64 };
    let source = tensor::Source { view: &view, origin: origin.into() };
    let mut reader = Reader { source, budget: Budget::of(origin, view.len()), external: External::new(open) };
    reader.model(Message::whole(bytes, "the model", facts))
}

struct Reader<'a> {
    source: tensor::Source<'a>,
    budget: Budget<'a>,
    external: External<'a>,
}

impl Reader<'_> {
    fn model(&mut self, message: Message<'_>) -> Result<OnnxFile> {
        let mut file = OnnxFile {
            ir_version: 0,
            producer: String::new(),
            opsets: Vec::new(),
            metadata: BTreeMap::new(),
            tensors: TensorSet::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut graph = None;
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => file.ir_version = field.int()?,
                2 => file.producer = self.budget.text(&field)?,
                7 => graph = Some(field.message("the graph")?),
                8 => {
                    let opset = self.opset(field.message("an operator set")?)?;
                    self.budget.push(&mut file.opsets, opset)?;
                }
                14 => {
                    let (key, value) = self.pair(field.message("a metadata entry")?)?;
                    self.budget.charge(256)?;
                    file.metadata.insert(key, value);
                }
                _ => {}
            }
        }
        let Some(graph) = graph else { return Err(message.malformed("it has no graph")) };
        self.graph(graph, &mut file)?;
        Ok(file)
    }

    fn opset(&mut self, message: Message<'_>) -> Result<(String, i64)> {
        let (mut domain, mut version) = (String::new(), 0);
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => domain = self.budget.text(&field)?,
                2 => version = field.int()?,
                _ => {}
            }
        }
        Ok((domain, version))
    }

    fn pair(&mut self, message: Message<'_>) -> Result<(String, String)> {
        let (mut key, mut value) = (String::new(), String::new());
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => key = self.budget.text(&field)?,
                2 => value = self.budget.text(&field)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn graph(&mut self, graph: Message<'_>, file: &mut OnnxFile) -> Result<()> {
        file.nodes = self.budget.list(graph.count(1, MAX_LIST)?)?;
        file.inputs = self.budget.list(graph.count(11, MAX_LIST)?)?;
        file.outputs = self.budget.list(graph.count(12, MAX_LIST)?)?;
        for field in graph.fields() {
            let field = field?;
            match field.number {
                1 => {
                    let node = field.message("a node")?;
                    self.node(node, file)?;
                }
                5 => {
                    let tensor = self.tensor(field.message("an initialiser")?)?;
                    self.insert(&mut file.tensors, tensor)?;
                }
                11 => {
                    let name = self.value_name(field.message("an input")?)?;
                    file.inputs.push(name);
                }
                12 => {
                    let name = self.value_name(field.message("an output")?)?;
                    file.outputs.push(name);
                }
                15 => return Err(self.unsupported("a sparse initialiser")),
                _ => {}
            }
        }
        // Before version 4 of the format every initialiser is an input as well.
        let tensors = &file.tensors;
        file.inputs.retain(|name| tensors.get(name).is_none());
        self.check_outputs(file)
    }

    /// A value that two nodes write would make the graph mean nothing.
    fn check_outputs(&mut self, file: &OnnxFile) -> Result<()> {
        let count: usize = file.nodes.iter().map(|node| node.outputs.len()).sum();
        self.budget.charge(count * 64)?;
        let mut seen = HashSet::with_capacity(count);
        for node in &file.nodes {
            for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                if !seen.insert(output.as_str()) || file.tensors.get(output).is_some() {
                    let problem = "its output is the output of another node or an initialiser, too";
                    return Err(FormatError::malformed(&self.source.origin, node.describe(), problem));
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, set: &mut TensorSet, tensor: StoredTensor) -> Result<()> {
        // The tensor itself, its name once more and its place in the map, each possibly twice while lists grow.
        self.budget.charge(768 + tensor.name.len())?;
        set.insert(tensor)
    }

    fn tensor(&mut self, message: Message<'_>) -> Result<StoredTensor> {
        tensor::read(message, &self.source, &mut self.budget, &mut self.external)
    }

    fn value_name(&mut self, message: Message<'_>) -> Result<String> {
        for field in message.fields() {
            let field = field?;
            if field.number == 1 {
                return self.budget.text(&field);
            }
        }
        Ok(String::new())
    }

    fn node(&mut self, message: Message<'_>, file: &mut OnnxFile) -> Result<()> {
        let mut node = OnnxNode {
            inputs: self.budget.list(message.count(1, MAX_LIST)?)?,
            outputs: self.budget.list(message.count(2, MAX_LIST)?)?,
            attributes: self.budget.list(message.count(5, MAX_LIST)?)?,
            ..OnnxNode::default()
        };
        let mut constant = None;
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => node.inputs.push(self.budget.text(&field)?),
                2 => node.outputs.push(self.budget.text(&field)?),
                3 => node.name = self.budget.text(&field)?,
                4 => node.op_type = self.budget.text(&field)?,
                5 => {
                    let (name, value, tensor) = self.attribute(field.message("an attribute")?)?;
                    constant = tensor.or(constant);
                    node.attributes.push((name, value));
                }
                7 => node.domain = self.budget.text(&field)?,
                _ => {}
            }
        }
        if node.op_type != "Constant" {
            file.nodes.push(node);
            return Ok(());
        }
        let mut tensor = match constant {
            Some(message) => self.tensor(message)?,
            None => self.scalar_constant(&node)?,
        };
        self.budget.charge(node.output().len())?;
        node.output().clone_into(&mut tensor.name);
        self.insert(&mut file.tensors, tensor)
    }

    /// The tensor of a `Constant` node that gives numbers instead of one.
    fn scalar_constant(&mut self, node: &OnnxNode) -> Result<StoredTensor> {
        let (scalars, shape) = match node.attributes.first().map(|(_, value)| value) {
            Some(OnnxAttribute::Float(value)) => (Scalars::Floats(std::slice::from_ref(value)), None),
            Some(OnnxAttribute::Int(value)) => (Scalars::Ints(std::slice::from_ref(value)), None),
            Some(OnnxAttribute::Floats(values)) => (Scalars::Floats(values), Some(values.len())),
            Some(OnnxAttribute::Ints(values)) => (Scalars::Ints(values), Some(values.len())),
            _ => return Err(self.unsupported(&format!("the value of {}", node.describe()))),
        };
        self.budget.charge(scalars.byte_len())?;
        Ok(scalars.tensor(shape, &self.source.origin))
    }

    /// Name and value of an attribute; the message of its tensor, if it holds one.
    fn attribute<'m>(
        &mut self,
        message: Message<'m>,
    ) -> Result<(String, OnnxAttribute, Option<Message<'m>>)> {
        let (mut name, mut value, mut tensor) = (String::new(), OnnxAttribute::Other, None);
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => name = self.budget.text(&field)?,
                2 => value = OnnxAttribute::Float(field.float()?),
                3 => value = OnnxAttribute::Int(field.int()?),
                // Bytes that are no text belong to operators that no model of this engine has.
                4 => value = self.budget.text(&field).map_or(OnnxAttribute::Other, OnnxAttribute::Text),
                5 => tensor = Some(field.message("a tensor")?),
                7 => self.floats(&mut value, &field)?,
                8 => self.ints(&mut value, &field)?,
                _ => {}
            }
        }
        Ok((name, value, tensor))
    }

    fn floats(&mut self, value: &mut OnnxAttribute, field: &Field<'_>) -> Result<()> {
        let (bytes, _) = field.float_bytes(4)?;
        if !matches!(value, OnnxAttribute::Floats(_)) {
            *value = OnnxAttribute::Floats(Vec::new());
        }
        let OnnxAttribute::Floats(list) = value else { return Ok(()) };
        for bytes in bytes.as_slice().as_chunks::<4>().0 {
            self.budget.push(list, f32::from_le_bytes(*bytes))?;
        }
        Ok(())
    }

    fn ints(&mut self, value: &mut OnnxAttribute, field: &Field<'_>) -> Result<()> {
        if !matches!(value, OnnxAttribute::Ints(_)) {
            *value = OnnxAttribute::Ints(Vec::new());
        }
        let OnnxAttribute::Ints(list) = value else { return Ok(()) };
        // Three times eight bytes each, because lists double while both copies are there.
        self.budget.charge(24 * field.int_count()? as usize)?;
        field.each_int(&mut |int| list.push(int as i64))
    }

    fn unsupported(&self, what: &str) -> FormatError {
        FormatError::Unsupported {
            origin: self.source.origin.to_string(),
            what: what.to_owned(),
            remedy: "export the model again with plain initialisers",
        }
    }
}
