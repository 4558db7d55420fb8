//! Protobuf messages being put together in memory: everything of a model but its tensor data.

use super::model::{OnnxAttribute, OnnxNode};

/// Bytes of a message.
#[derive(Debug, Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn int(&mut self, number: u32, value: i64) {
        self.varint(u64::from(number) << 3);
        self.varint(value as u64);
    }

    fn float(&mut self, number: u32, value: f32) {
        self.varint(u64::from(number) << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Begins a field of `len` bytes, which follow.
    pub(super) fn begin(&mut self, number: u32, len: u64) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(len);
    }

    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.begin(number, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    pub(super) fn message(&mut self, number: u32, message: &Encoder) {
        self.bytes(number, &message.0);
    }

    /// Adds a part that was put together elsewhere.
    pub(super) fn append(&mut self, part: &Encoder) {
        self.0.extend_from_slice(&part.0);
    }

    /// A message of `key` (field 1) and `value` (field 2).
    pub(super) fn pair(&mut self, number: u32, key: &str, value: &str) {
        let mut pair = Encoder::default();
        pair.text(1, key);
        pair.text(2, value);
        self.message(number, &pair);
    }
}

/// A `NodeProto`.
pub(super) fn node(node: &OnnxNode) -> Encoder {
    let mut out = Encoder::default();
    node.inputs.iter().for_each(|input| out.text(1, input));
    node.outputs.iter().for_each(|output| out.text(2, output));
    out.text(3, &node.name);
    out.text(4, &node.op_type);
    for (name, value) in &node.attributes {
        out.message(5, &attribute(name, value));
    }
    if !node.domain.is_empty() {
        out.text(7, &node.domain);
    }
    out
}

/// An `AttributeProto`; field 20 is the number of its type.
fn attribute(name: &str, value: &OnnxAttribute) -> Encoder {
    let mut out = Encoder::default();
    out.text(1, name);
    let kind = match value {
        OnnxAttribute::Float(value) => {
            out.float(2, *value);
            1
        }
        OnnxAttribute::Int(value) => {
            out.int(3, *value);
            2
        }
        OnnxAttribute::Text(value) => {
            out.text(4, value);
            3
        }
        OnnxAttribute::Floats(values) => {
            values.iter().for_each(|&value| out.float(7, value));
            6
        }
        OnnxAttribute::Ints(values) => {
            values.iter().for_each(|&value| out.int(8, value));
            7
        }
        OnnxAttribute::Other => 0,
    };
    out.int(20, kind);
    out
}
