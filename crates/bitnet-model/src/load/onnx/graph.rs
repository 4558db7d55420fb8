//! [`Graph`]: who writes and who reads each value.

use std::collections::HashMap;

use bitnet_formats::{OnnxFile, OnnxNode, StoredTensor};

use crate::load::error::{LoadError, Result};

/// The graph of a model, indexed by the names of values.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) file: &'a OnnxFile,
    pub(super) origin: &'a str,
    producers: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(file: &'a OnnxFile, origin: &'a str) -> Self {
        let mut producers = HashMap::new();
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in file.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                producers.insert(output.as_str(), index);
            }
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                consumers.entry(input.as_str()).or_default().push(index);
            }
        }
        Self { file, origin, producers, consumers }
    }

    pub(super) fn node(&self, index: usize) -> &'a OnnxNode {
        &self.file.nodes[index]
    }

    /// The tensor of a value that is an initialiser or a constant.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a StoredTensor> {
        self.file.tensor(name)
    }

    /// The tensor of a value, behind casts that do not change its numbers for a model.
    pub(super) fn plain_tensor(&self, name: &str) -> Option<&'a StoredTensor> {
        const MAX_CHAIN: usize = 4;
        let mut name = name;
        for _ in 0..MAX_CHAIN {
            if let Some(tensor) = self.tensor(name) {
                return Some(tensor);
            }
            let node = self.node(self.producer(name)?);
            name = matches!(node.op_type.as_str(), "Cast" | "Identity").then(|| node.input(0)).flatten()?;
        }
        None
    }

    /// Index of the node that writes a value.
    pub(super) fn producer(&self, name: &str) -> Option<usize> {
        self.producers.get(name).copied()
    }

    /// Indexes of the nodes that read a value.
    pub(super) fn consumers(&self, name: &str) -> &[usize] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The error for something in the graph that cannot be used.
    pub(super) fn unsupported(&self, what: impl Into<String>, remedy: &'static str) -> LoadError {
        LoadError::Unsupported { file: self.origin.to_owned(), what: what.into(), remedy }
    }

    /// The number of a constant that holds one or several equal ones.
    ///
    /// # Errors
    /// If they differ; the message has the least and the largest.
    pub(super) fn one_number(&self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        let Some(dtype) = tensor.stored.dense() else { return Ok(None) };
        let bytes = tensor.data.as_slice();
        let (mut least, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut buffer = [0.0; 1024];
        for part in bytes.chunks(1024 * dtype.size()) {
            let values = &mut buffer[..part.len() / dtype.size()];
            dtype.decode(part, values);
            for &value in values.iter() {
                if !value.is_finite() {
                    let (file, tensor) = (self.origin.to_owned(), tensor.name.clone());
                    return Err(LoadError::NotFinite { file, tensor, value });
                }
                (least, largest) = (least.min(value), largest.max(value));
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        if least != largest {
            let what = format!("tensor {:?} with scales from {least} to {largest}", tensor.name);
            return Err(self.unsupported(what, "one scale for a whole projection is"));
        }
        Ok(Some(least))
    }

    /// The number of a constant with a single element, if it is one.
    pub(super) fn scalar(&self, name: &str) -> Result<Option<f32>> {
        match self.tensor(name) {
            Some(tensor) if tensor.elements() == Some(1) => self.one_number(name),
            _ => Ok(None),
        }
    }

    /// Whether a value is a constant of zeros (of either sign) only.
    pub(super) fn is_zero(&self, name: &str) -> bool {
        let Some(tensor) = self.tensor(name) else { return false };
        match tensor.stored.dense() {
            Some(_) => matches!(self.one_number(name), Ok(Some(number)) if number == 0.0),
            None => tensor.data.as_slice().iter().all(|&byte| byte == 0),
        }
    }

    /// The whole number of a zero point: one or several equal elements.
    ///
    /// # Errors
    /// If they differ or are of a type that zero points do not have.
    pub(super) fn zero_point(&self, name: &str) -> Result<i32> {
        use bitnet_formats::StoredType as T;
        let refuse =
            |what: String| self.unsupported(what, "one integer zero point for a whole projection is");
        let Some(tensor) = self.tensor(name) else {
            return Err(refuse(format!("a zero point that is computed ({name:?})")));
        };
        let count = tensor.elements().unwrap_or(0) as usize;
        let (bits, signed) = match tensor.stored {
            T::I8 => (8, true),
            T::U8 => (8, false),
            T::I4 => (4, true),
            T::U4 => (4, false),
            T::I2 => (2, true),
            T::U2 => (2, false),
            T::I32 => (32, true),
            // Some programs give it as a float.
            _ => {
                let number = self.one_number(name)?.filter(|number| number.fract() == 0.0);
                let number =
                    number.ok_or_else(|| refuse(format!("zero point {name:?} of type {}", tensor.stored)))?;
                return Ok(number.clamp(-1e6, 1e6) as i32);
            }
        };
        let bytes = tensor.data.as_slice();
        let mut values = (0..count).map(|index| integer(bytes, index, bits, signed));
        let first = values.next().ok_or_else(|| refuse(format!("the empty zero point {name:?}")))?;
        match values.find(|&value| value != first) {
            None => Ok(first),
            Some(other) => Err(refuse(format!("zero point {name:?} with the values {first} and {other}"))),
        }
    }
}

/// Element `index` of integers of 2, 4, 8 or 32 bits, one after the other, the first in the low bits.
pub(super) fn integer(bytes: &[u8], index: usize, bits: usize, signed: bool) -> i32 {
    if bits == 32 {
        let (words, _) = bytes.as_chunks::<4>();
        return words.get(index).map_or(0, |&word| i32::from_le_bytes(word));
    }
    let per_byte = 8 / bits;
    let byte = bytes.get(index / per_byte).copied().unwrap_or(0);
    let code = (byte >> (index % per_byte * bits)) << (8 - bits);
    if signed { i32::from(code as i8 >> (8 - bits)) } else { i32::from(code >> (8 - bits)) }
}
