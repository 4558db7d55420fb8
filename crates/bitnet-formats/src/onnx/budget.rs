//! [`Budget`]: the memory that reading a file may take.

use super::wire::Field;
use crate::{FormatError, Result};

/// What is allowed beside twice the file: less than the 16 MiB promised, to leave room for what is not charged.
const ALLOWANCE: usize = 12 << 20;

/// Memory that may still be taken. Everything that grows with a file is charged before it is allocated.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    left: usize,
    origin: &'a str,
}

impl<'a> Budget<'a> {
    /// The budget for a file of `len` bytes.
    pub(super) fn of(origin: &'a str, len: usize) -> Self {
        Self { left: len.saturating_mul(2).saturating_add(ALLOWANCE), origin }
    }

    /// Takes `bytes` out.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(FormatError::Unsupported {
                origin: self.origin.to_owned(),
                what: "a model that needs more than twice the memory of its file".to_owned(),
                remedy: "store large tensors as raw_data, not as lists of numbers",
            }),
        }
    }

    /// An empty list with room for `count` elements.
    pub(super) fn list<T>(&mut self, count: usize) -> Result<Vec<T>> {
        self.charge(count.saturating_mul(size_of::<T>()))?;
        Ok(Vec::with_capacity(count))
    }

    /// Adds to a list that grows as it likes: doubling holds up to three times the elements.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, element: T) -> Result<()> {
        self.charge(3 * size_of::<T>())?;
        list.push(element);
        Ok(())
    }

    /// The text of a field, copied.
    pub(super) fn text(&mut self, field: &Field<'_>) -> Result<String> {
        let text = field.text()?;
        self.charge(text.len())?;
        Ok(text.to_owned())
    }
}
