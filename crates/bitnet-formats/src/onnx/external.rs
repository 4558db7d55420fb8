//! Tensor data in files beside the model.

use std::collections::HashMap;

use bitnet_core::bytes::ByteView;

use super::wire::Message;
use crate::error::quoted;
use crate::{FormatError, Result};

/// More files than any model is spread over.
const MAX_FILES: usize = 4096;
/// Longest path that is looked for.
const MAX_PATH_BYTES: usize = 1024;

/// The files beside the model, each opened once.
pub(super) struct External<'a> {
    open: &'a mut dyn FnMut(&str) -> Result<ByteView>,
    files: HashMap<String, ByteView>,
}

/// `external_data` of a tensor.
#[derive(Debug, Default)]
pub(super) struct Place<'a> {
    location: Option<&'a str>,
    offset: u64,
    length: Option<u64>,
}

impl<'a> Place<'a> {
    /// Takes one key and value of `external_data` in; others (`checksum`) do not matter.
    pub(super) fn add(&mut self, entry: Message<'a>) -> Result<()> {
        let (mut key, mut value) = ("", "");
        for field in entry.fields() {
            let field = field?;
            match field.number {
                1 => key = field.text()?,
                2 => value = field.text()?,
                _ => {}
            }
        }
        let number = || {
            value.parse::<u64>().map_err(|_| {
                entry.malformed(format!("{key} of external data is {}, not a whole number", quoted(value)))
            })
        };
        match key {
            "location" => self.location = Some(value),
            "offset" => self.offset = number()?,
            "length" => self.length = Some(number()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> External<'a> {
    pub(super) fn new(open: &'a mut dyn FnMut(&str) -> Result<ByteView>) -> Self {
        Self { open, files: HashMap::new() }
    }

    /// The `expected` bytes of tensor `name` (quoted).
    pub(super) fn data(
        &mut self,
        place: &Place<'_>,
        name: &str,
        expected: u64,
        origin: &str,
    ) -> Result<ByteView> {
        let malformed = |problem: String| FormatError::malformed(origin, format!("tensor {name}"), problem);
        let location = place
            .location
            .ok_or_else(|| malformed("its data is external, but no location is given".into()))?;
        check_location(location)
            .map_err(|problem| malformed(format!("its data is in {}: {problem}", quoted(location))))?;
        if let Some(length) = place.length
            && length != expected
        {
            return Err(malformed(format!(
                "its type and shape take {expected} bytes, but its length is {length}"
            )));
        }
        if !self.files.contains_key(location) {
            if self.files.len() >= MAX_FILES {
                return Err(malformed(format!("the model is spread over more than {MAX_FILES} files")));
            }
            let file = (self.open)(location)?;
            self.files.insert(location.to_owned(), file);
        }
        let file = &self.files[location];
        let end = place.offset.saturating_add(expected);
        if end > file.len() as u64 {
            let what = format!("tensor {name} of {origin}");
            return Err(FormatError::beyond_end(location, what, end, file.len() as u64));
        }
        Ok(file.slice(place.offset, end, location)?)
    }
}

/// Lets through paths below the model's folder only, on every system.
fn check_location(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        Err("the path is empty or too long")
    } else if path.contains(['\\', ':']) || path.chars().any(char::is_control) {
        Err("the path holds a backslash, a colon or control characters")
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("the path leads out of the model's folder, and a model may only name files in it")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check_location;

    #[test]
    fn paths_stay_inside() {
        for good in ["model.onnx.data", "weights/part-1", "..data", "a b"] {
            check_location(good).unwrap();
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./x", "C:x", "a\\b", "a\0", "dir/"] {
            assert!(check_location(bad).is_err(), "{bad:?}");
        }
    }
}
