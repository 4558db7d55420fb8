//! Writing an ONNX model while its tensors are being computed.
//!
//! Everything but the tensor data is small and known from the plan, so all lengths, which protobuf puts in front, are
//! known before the first tensor: the file is written from front to back. Data goes into the model file or, because
//! protobuf ends at 2 GiB, into a second file beside it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::encode::{self, Encoder};
use super::model::OnnxNode;
use super::tensor::TYPES;
use crate::error::quoted;
use crate::output::{Slot, TensorWriter};
use crate::tensor::{StoredType, TensorPlan};
use crate::{FormatError, Result};

/// Largest model file: what protobuf libraries read, less a reserve.
const MAX_FILE_BYTES: u64 = (2 << 30) - (1 << 16);
/// Where tensors begin in the file beside the model: on pages.
const DATA_ALIGNMENT: u64 = 4096;
/// Name of the slots between tensors; no tensor may be called so.
const GLUE: &str = "";

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnnxDim {
    /// A fixed size.
    Fixed(u64),
    /// A size that differs from run to run, by name.
    Named(String),
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxValueInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub stored: StoredType,
    /// Its shape.
    pub dims: Vec<OnnxDim>,
}

/// Everything of a model but the tensor data.
#[derive(Debug, Clone, Default)]
pub struct OnnxPlan {
    /// Name of the graph.
    pub name: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets by domain.
    pub opsets: Vec<(String, i64)>,
    /// `metadata_props`.
    pub metadata: Vec<(String, String)>,
    /// The nodes, each after those whose outputs it reads.
    pub nodes: Vec<OnnxNode>,
    /// Inputs of the graph.
    pub inputs: Vec<OnnxValueInfo>,
    /// Outputs of the graph.
    pub outputs: Vec<OnnxValueInfo>,
    /// The initialisers, in the order in which they will be written.
    pub tensors: Vec<TensorPlan>,
    /// Tensors of this many bytes and more go into the file beside the model (`NAME.data`); `None` for none.
    pub external_from: Option<u64>,
}

/// An ONNX model under construction, filled tensor by tensor in the order of its plan.
///
/// It grows under temporary names; [`finish`](Self::finish) renames the data file, if there is one, then the model.
#[derive(Debug)]
pub struct OnnxWriter {
    model: TensorWriter,
    data: Option<TensorWriter>,
    /// What stands before each tensor in the model file, and whether its data is elsewhere; then the end of the file.
    pieces: std::vec::IntoIter<Piece>,
    tail: Vec<u8>,
    current_external: bool,
}

#[derive(Debug)]
struct Piece {
    glue: Vec<u8>,
    external: bool,
}

/// Starts an ONNX model.
///
/// # Errors
/// [`FormatError::BadPlan`] for names that occur twice, types that ONNX does not have and models that are too large;
/// [`FormatError::Io`] if a file cannot be created.
pub fn create_onnx(path: &Path, plan: &OnnxPlan) -> Result<OnnxWriter> {
    let lens = check(path, plan)?;
    let data_path = data_path(path)?;
    let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut data_slots = Vec::new();
    let mut data_len = 0u64;
    let mut pieces = Vec::with_capacity(plan.tensors.len());
    let mut graph_len = 0;
    let start = graph_start(plan);
    graph_len += start.len();
    for (tensor, &len) in plan.tensors.iter().zip(&lens) {
        let external = plan.external_from.is_some_and(|from| len >= from && len > 0);
        let mut proto = tensor_head(tensor);
        if external {
            data_len = data_len.next_multiple_of(DATA_ALIGNMENT);
            external_fields(&mut proto, &location, data_len, len);
            data_slots.push(Slot { name: tensor.name.clone(), at: data_len, len });
            data_len += len;
        } else {
            proto.begin(9, len);
        }
        let inside = if external { 0 } else { len };
        let mut glue = Encoder::default();
        glue.begin(5, proto.len() + inside);
        glue.append(&proto);
        graph_len += glue.len() + inside;
        pieces.push((Piece { glue: glue.into_bytes(), external }, inside));
    }
    let end = graph_end(plan);
    graph_len += end.len();
    let mut head = model_head(plan);
    head.begin(7, graph_len);
    head.append(&start);
    let mut tail = end;
    tail.append(&model_tail(plan));
    let (slots, size) = model_slots(plan, &pieces, head.len(), tail.len());
    if size > MAX_FILE_BYTES {
        let problem =
            format!("it would have {size} bytes, but {MAX_FILE_BYTES} are possible; store data beside it");
        return Err(FormatError::BadPlan { path: path.to_owned(), field: "the model".to_owned(), problem });
    }
    let data = match data_slots.is_empty() {
        true => None,
        false => Some(TensorWriter::create(&data_path, &[], data_slots, data_len)?),
    };
    let model = TensorWriter::create(path, &head.into_bytes(), slots, size)?;
    let pieces: Vec<Piece> = pieces.into_iter().map(|(piece, _)| piece).collect();
    Ok(OnnxWriter {
        model,
        data,
        pieces: pieces.into_iter(),
        tail: tail.into_bytes(),
        current_external: false,
    })
}

impl OnnxWriter {
    /// Writes a whole tensor, the next in the plan.
    ///
    /// # Errors
    /// As [`TensorWriter::write_tensor`].
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name)?;
        self.append(bytes)
    }

    /// Starts the next tensor of the plan; its bytes follow through [`append`](Self::append).
    ///
    /// # Errors
    /// As [`TensorWriter::begin`].
    pub fn begin(&mut self, name: &str) -> Result<()> {
        let Some(piece) = self.pieces.next() else { return self.model.begin(name) };
        self.model.write_tensor(GLUE, &piece.glue)?;
        self.current_external = piece.external;
        match &mut self.data {
            Some(data) if piece.external => {
                self.model.begin(name)?;
                data.begin(name)
            }
            _ => self.model.begin(name),
        }
    }

    /// Adds bytes to the tensor begun last.
    ///
    /// # Errors
    /// As [`TensorWriter::append`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.data {
            Some(data) if self.current_external => data.append(bytes),
            _ => self.model.append(bytes),
        }
    }

    /// Makes the files durable and gives them their names.
    ///
    /// # Errors
    /// As [`TensorWriter::finish`]. Then there is no model; a data file that is whole may have been put in place.
    pub fn finish(mut self) -> Result<()> {
        if self.pieces.len() > 0 {
            // It knows which tensor is missing; the data file is dropped.
            return self.model.finish();
        }
        self.model.write_tensor(GLUE, &self.tail)?;
        if let Some(data) = self.data.take() {
            data.finish()?;
        }
        self.model.finish()
    }
}

/// The file beside the model that holds its data: `model.onnx.data`.
fn data_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file");
        return Err(FormatError::Io { action: "create", path: path.to_owned(), source });
    };
    let mut name = name.to_owned();
    name.push(".data");
    Ok(path.with_file_name(name))
}

/// Checks names and types and returns the byte counts.
fn check(path: &Path, plan: &OnnxPlan) -> Result<Vec<u64>> {
    let mut names = HashSet::new();
    let lens = plan.tensors.iter().map(|tensor| {
        let bad = |problem: String| FormatError::BadPlan {
            path: path.to_owned(),
            field: format!("tensor {}", quoted(&tensor.name)),
            problem,
        };
        if tensor.name.is_empty() || !names.insert(tensor.name.as_str()) {
            return Err(bad("the name is empty or occurs twice in the plan".to_owned()));
        }
        if type_number(tensor.stored).is_none() {
            return Err(bad(format!("ONNX has no type {}", tensor.stored)));
        }
        let len = tensor.stored.byte_len(&tensor.shape);
        len.ok_or_else(|| bad(format!("shape {:?} is too large", tensor.shape)))
    });
    lens.collect()
}

fn type_number(stored: StoredType) -> Option<i64> {
    TYPES.iter().find(|(_, known)| *known == stored).map(|(number, _)| *number)
}

/// A `TensorProto` without its data.
fn tensor_head(tensor: &TensorPlan) -> Encoder {
    let mut out = Encoder::default();
    tensor.shape.iter().for_each(|&dim| out.int(1, dim as i64));
    out.int(2, type_number(tensor.stored).unwrap_or(0));
    out.text(8, &tensor.name);
    out
}

fn external_fields(tensor: &mut Encoder, location: &str, offset: u64, len: u64) {
    tensor.pair(13, "location", location);
    tensor.pair(13, "offset", &offset.to_string());
    tensor.pair(13, "length", &len.to_string());
    tensor.int(14, 1);
}

fn model_head(plan: &OnnxPlan) -> Encoder {
    let mut out = Encoder::default();
    out.int(1, plan.ir_version);
    out.text(2, "bitnet-rust");
    out.text(3, env!("CARGO_PKG_VERSION"));
    out
}

fn model_tail(plan: &OnnxPlan) -> Encoder {
    let mut out = Encoder::default();
    for (domain, version) in &plan.opsets {
        let mut opset = Encoder::default();
        opset.text(1, domain);
        opset.int(2, *version);
        out.message(8, &opset);
    }
    for (key, value) in &plan.metadata {
        out.pair(14, key, value);
    }
    out
}

fn graph_start(plan: &OnnxPlan) -> Encoder {
    let mut out = Encoder::default();
    for node in &plan.nodes {
        out.message(1, &encode::node(node));
    }
    out.text(2, &plan.name);
    out
}

fn graph_end(plan: &OnnxPlan) -> Encoder {
    let mut out = Encoder::default();
    plan.inputs.iter().for_each(|value| out.message(11, &value_info(value)));
    plan.outputs.iter().for_each(|value| out.message(12, &value_info(value)));
    out
}

/// A `ValueInfoProto` with a tensor type.
fn value_info(value: &OnnxValueInfo) -> Encoder {
    let mut shape = Encoder::default();
    for dim in &value.dims {
        let mut out = Encoder::default();
        match dim {
            OnnxDim::Fixed(size) => out.int(1, *size as i64),
            OnnxDim::Named(name) => out.text(2, name),
        }
        shape.message(1, &out);
    }
    let mut tensor = Encoder::default();
    tensor.int(1, type_number(value.stored).unwrap_or(0));
    tensor.message(2, &shape);
    let mut kind = Encoder::default();
    kind.message(1, &tensor);
    let mut out = Encoder::default();
    out.text(1, &value.name);
    out.message(2, &kind);
    out
}

/// The slots of the model file: before each tensor what protobuf puts there, at the end what follows the tensors.
fn model_slots(plan: &OnnxPlan, pieces: &[(Piece, u64)], head: u64, tail: u64) -> (Vec<Slot>, u64) {
    let mut slots = Vec::with_capacity(2 * pieces.len() + 1);
    let mut at = head;
    let mut slot = |name: &str, len: u64| {
        slots.push(Slot { name: name.to_owned(), at, len });
        at += len;
    };
    for (tensor, (piece, inside)) in plan.tensors.iter().zip(pieces) {
        slot(GLUE, piece.glue.len() as u64);
        slot(&tensor.name, *inside);
    }
    slot(GLUE, tail);
    (slots, at)
}
