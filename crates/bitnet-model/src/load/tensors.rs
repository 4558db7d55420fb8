//! [`Tensors`]: the tensors of a model by name, each checked for type and shape as it is taken.

use std::cell::RefCell;
use std::collections::HashSet;

use bitnet_core::DenseType;
use bitnet_formats::{StoredTensor, TensorSet};

use super::error::{LoadError, Result, ShapeText};
use super::naming::Naming;
use crate::DenseTensor;

/// The tensors of a model. It remembers which were asked for, so that leftovers can be told.
#[derive(Debug)]
pub(super) struct Tensors<'a> {
    set: &'a TensorSet,
    place: String,
    taken: RefCell<HashSet<&'a str>>,
}

impl<'a> Tensors<'a> {
    /// All tensors of `set`; `place` names file or folder in messages.
    pub(super) fn new(set: &'a TensorSet, place: &str) -> Self {
        Self { set, place: place.to_owned(), taken: RefCell::default() }
    }

    /// File or folder, for messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether there is a tensor of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.set.get(name).is_some()
    }

    /// Whether the model has sub-norms, told by its first layer.
    pub(super) fn has_sub_norms(&self, naming: &Naming) -> bool {
        let parts = [naming.parts.attn_sub_norm, naming.parts.ffn_sub_norm];
        parts.iter().any(|part| self.contains(&naming.weight(0, part)))
    }

    /// Whether every projection has a norm of its own, told by the first layer.
    pub(super) fn has_projection_norms(&self, naming: &Naming) -> bool {
        naming.parts.projection_norms.iter().any(|part| self.contains(&naming.weight(0, part)))
    }

    /// A tensor, if there is one of this name.
    pub(super) fn find(&self, name: &str) -> Option<&'a StoredTensor> {
        let tensor = self.set.get(name)?;
        self.taken.borrow_mut().insert(&tensor.name);
        Some(tensor)
    }

    /// A tensor that must be there.
    pub(super) fn require(&self, name: &str) -> Result<&'a StoredTensor> {
        self.find(name).ok_or_else(|| LoadError::MissingTensor {
            file: self.place.clone(),
            tensor: name.to_owned(),
            remedy: "the file is incomplete or its configuration belongs to another model",
        })
    }

    /// The tensors that nothing asked for.
    pub(super) fn leftovers(&self) -> impl Iterator<Item = &'a StoredTensor> {
        let taken = self.taken.borrow().clone();
        self.set.iter().filter(move |tensor| !taken.contains(tensor.name.as_str()))
    }

    /// A norm `[len]` of any dense type.
    pub(super) fn norm(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.require(name)?;
        check_shape(tensor, &[len])?;
        floats(tensor, float_type(tensor)?)
    }

    /// A dense matrix `[rows, cols]` of any dense type.
    pub(super) fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<DenseTensor> {
        let tensor = self.require(name)?;
        check_shape(tensor, &[rows, cols])?;
        let dtype = float_type(tensor)?;
        DenseTensor::new(rows, cols, dtype, tensor.data.clone())
            .ok_or_else(|| wrong_shape(tensor, &[rows, cols]))
    }

    /// A single float of any float type, of shape `[]` or `[1]`, if it is there.
    pub(super) fn scalar(&self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        if tensor.shape.iter().any(|&n| n != 1) {
            return Err(wrong_shape(tensor, &[1]));
        }
        Ok(floats(tensor, float_type(tensor)?)?.first().copied())
    }
}

/// How the values of a dense tensor are stored.
///
/// # Errors
/// [`LoadError::Unsupported`] naming tensor and type for all others.
pub(super) fn float_type(tensor: &StoredTensor) -> Result<DenseType> {
    let remedy =
        "f32, f16, bf16 and, in GGUF files, q4_0 to q8_0 and q2_K to q6_K are supported for this tensor";
    tensor.stored.dense_type().ok_or_else(|| unsupported_type(tensor, remedy))
}

/// The error for a tensor whose type cannot be used.
pub(super) fn unsupported_type(tensor: &StoredTensor, remedy: &'static str) -> LoadError {
    LoadError::Unsupported {
        file: tensor.origin.to_string(),
        what: format!("tensor {} of type {}", tensor.name, tensor.stored),
        remedy,
    }
}

/// Checks a shape, outermost dimension first.
pub(super) fn check_shape(tensor: &StoredTensor, expected: &[usize]) -> Result<()> {
    if has_shape(tensor, expected) { Ok(()) } else { Err(wrong_shape(tensor, expected)) }
}

/// Whether a tensor has a shape.
pub(super) fn has_shape(tensor: &StoredTensor, expected: &[usize]) -> bool {
    tensor.shape.len() == expected.len() && tensor.shape.iter().zip(expected).all(|(&a, &b)| a == b as u64)
}

/// The error for a tensor of the wrong shape.
pub(super) fn wrong_shape(tensor: &StoredTensor, expected: &[usize]) -> LoadError {
    LoadError::TensorShape {
        file: tensor.origin.to_string(),
        tensor: tensor.name.clone(),
        found: ShapeText(tensor.shape.clone()),
        expected: ShapeText(expected.iter().map(|&n| n as u64).collect()),
    }
}

/// Decodes a small tensor and refuses infinities and NaN.
fn floats(tensor: &StoredTensor, dtype: DenseType) -> Result<Vec<f32>> {
    let bytes = tensor.data.as_slice();
    let mut values = vec![0.0; dtype.values_in(bytes.len()).unwrap_or(0)];
    dtype.decode(bytes, &mut values);
    match values.iter().find(|v| !v.is_finite()) {
        None => Ok(values),
        Some(&value) => {
            Err(LoadError::NotFinite { file: tensor.origin.to_string(), tensor: tensor.name.clone(), value })
        }
    }
}
