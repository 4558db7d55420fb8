//! The metadata of a GGUF file, asked for by key and type.

use std::collections::HashMap;
use std::sync::Arc;

use super::value::{GgufArray, GgufValue};
use crate::error::quoted;
use crate::{FormatError, Result};

/// Metadata pairs by key, in the order of the file.
///
/// The typed getters return `Ok(None)` for a key that is not there and an error for a value of another type.
#[derive(Debug, Clone)]
pub struct GgufMetadata {
    pairs: Vec<(String, GgufValue)>,
    places: HashMap<String, usize>,
    origin: Arc<str>,
}

impl GgufMetadata {
    pub(super) fn new(origin: &str) -> Self {
        Self { pairs: Vec::new(), places: HashMap::new(), origin: origin.into() }
    }

    pub(super) fn insert(&mut self, key: &str, value: GgufValue) -> Result<()> {
        if self.places.insert(key.to_owned(), self.pairs.len()).is_some() {
            let field = format!("metadata {}", quoted(key));
            return Err(FormatError::malformed(&self.origin, field, "the key occurs twice"));
        }
        self.pairs.push((key.to_owned(), value));
        Ok(())
    }

    /// Name of the file, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, of whatever type.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.places.get(key).map(|&place| &self.pairs[place].1)
    }

    /// A string.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            GgufValue::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A number that is not negative, of any integer type.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", |value| value.as_i128().and_then(|v| u64::try_from(v).ok()))
    }

    /// A float of either width.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", |value| match value {
            GgufValue::F32(v) => Some(f64::from(*v)),
            GgufValue::F64(v) => Some(*v),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| match value {
            GgufValue::Bool(v) => Some(*v),
            _ => None,
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of string", |value| match value {
            GgufValue::Array(GgufArray::Strings(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |value| match value {
            GgufValue::Array(GgufArray::F32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of i32.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn i32s(&self, key: &str) -> Result<Option<&[i32]>> {
        self.typed(key, "an array of i32", |value| match value {
            GgufValue::Array(GgufArray::I32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        pick: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match pick(value) {
            Some(picked) => Ok(Some(picked)),
            None => Err(FormatError::WrongType {
                origin: self.origin.to_string(),
                key: quoted(key),
                found: describe(value),
                wanted,
            }),
        }
    }
}

/// Type of a value, and the value itself if it is short.
fn describe(value: &GgufValue) -> String {
    let name = value.type_name();
    match value {
        GgufValue::String(text) => format!("{name} {}", quoted(text)),
        GgufValue::Array(array) => format!("{name} with {} elements", array.len()),
        GgufValue::F32(v) => format!("{name} {v}"),
        GgufValue::F64(v) => format!("{name} {v}"),
        GgufValue::Bool(v) => format!("{name} {v}"),
        _ => format!("{name} {}", value.as_i128().unwrap_or_default()),
    }
}
