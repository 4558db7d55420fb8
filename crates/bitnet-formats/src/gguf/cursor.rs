//! Reading the head of a GGUF file from front to back, with every length checked against the bytes that are left.

use super::value::{ARRAY_ID, GgufArray, GgufValue};
use crate::{FormatError, Result};

/// Longest string, and most elements of an array, that are read: far more than any vocabulary has.
const MAX_STRING_BYTES: u64 = 1 << 30;
const MAX_ELEMENTS: u64 = 1 << 24;

/// A place in the bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    origin: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], origin: &'a str) -> Self {
        Self { bytes, at: 0, origin }
    }

    /// Bytes before this place.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// Bytes after it.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    pub(super) fn malformed(&self, field: &str, problem: String) -> FormatError {
        FormatError::malformed(self.origin, field, problem)
    }

    /// The error for a field whose `count` bytes are not there.
    pub(super) fn beyond_end(&self, field: &str, count: u64) -> FormatError {
        let needed = self.position().saturating_add(count);
        FormatError::beyond_end(self.origin, field, needed, self.bytes.len() as u64)
    }

    fn take(&mut self, count: u64, field: &str) -> Result<&'a [u8]> {
        if count > self.left() {
            return Err(self.beyond_end(field, count));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, field)?;
        Ok(bytes.try_into().expect("as many bytes as were taken"))
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Bytes of a string of at most `limit` bytes.
    fn string_bytes(&mut self, limit: u64, field: &str) -> Result<&'a [u8]> {
        let length = self.u64(field)?;
        if length > limit {
            return Err(
                self.malformed(field, format!("a string of {length} bytes; at most {limit} make sense"))
            );
        }
        self.take(length, field)
    }

    /// A string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: u64, field: &str) -> Result<&'a str> {
        let bytes = self.string_bytes(limit, field)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            self.malformed(
                field,
                format!("the string is not UTF-8 (byte {:#04x} at its position {at})", bytes[at]),
            )
        })
    }

    /// A value of the type with this number.
    pub(super) fn value(&mut self, type_id: u32, field: &str) -> Result<GgufValue> {
        Ok(match type_id {
            0 => GgufValue::U8(u8::from_le_bytes(self.array(field)?)),
            1 => GgufValue::I8(i8::from_le_bytes(self.array(field)?)),
            2 => GgufValue::U16(u16::from_le_bytes(self.array(field)?)),
            3 => GgufValue::I16(i16::from_le_bytes(self.array(field)?)),
            4 => GgufValue::U32(self.u32(field)?),
            5 => GgufValue::I32(i32::from_le_bytes(self.array(field)?)),
            6 => GgufValue::F32(f32::from_le_bytes(self.array(field)?)),
            7 => {
                let [byte] = self.array(field)?;
                GgufValue::Bool(self.boolean(byte, field)?)
            }
            8 => GgufValue::String(self.string(MAX_STRING_BYTES, field)?.to_owned()),
            ARRAY_ID => GgufValue::Array(self.elements(field)?),
            10 => GgufValue::U64(self.u64(field)?),
            11 => GgufValue::I64(i64::from_le_bytes(self.array(field)?)),
            12 => GgufValue::F64(f64::from_le_bytes(self.array(field)?)),
            _ => return Err(self.malformed(field, format!("value type {type_id} is not one of 0 to 12"))),
        })
    }

    fn boolean(&self, byte: u8, field: &str) -> Result<bool> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed(field, format!("a bool of {byte}; it must be 0 or 1"))),
        }
    }

    fn elements(&mut self, field: &str) -> Result<GgufArray> {
        let type_id = self.u32(field)?;
        let count = self.u64(field)?;
        if type_id == ARRAY_ID {
            return Err(FormatError::Unsupported {
                origin: self.origin.to_owned(),
                what: format!("{field}: an array of arrays"),
                remedy: "convert the model again without it",
            });
        }
        if count > MAX_ELEMENTS {
            return Err(self.malformed(
                field,
                format!("an array of {count} elements; at most {MAX_ELEMENTS} make sense"),
            ));
        }
        Ok(match type_id {
            0 => GgufArray::U8(self.numbers(count, field, u8::from_le_bytes)?),
            1 => GgufArray::I8(self.numbers(count, field, i8::from_le_bytes)?),
            2 => GgufArray::U16(self.numbers(count, field, u16::from_le_bytes)?),
            3 => GgufArray::I16(self.numbers(count, field, i16::from_le_bytes)?),
            4 => GgufArray::U32(self.numbers(count, field, u32::from_le_bytes)?),
            5 => GgufArray::I32(self.numbers(count, field, i32::from_le_bytes)?),
            6 => GgufArray::F32(self.numbers(count, field, f32::from_le_bytes)?),
            7 => {
                let bytes = self.take(count, field)?;
                let values: Result<Vec<bool>> = bytes.iter().map(|&byte| self.boolean(byte, field)).collect();
                GgufArray::Bool(values?)
            }
            8 => GgufArray::Strings(self.strings(count, field)?),
            10 => GgufArray::U64(self.numbers(count, field, u64::from_le_bytes)?),
            11 => GgufArray::I64(self.numbers(count, field, i64::from_le_bytes)?),
            12 => GgufArray::F64(self.numbers(count, field, f64::from_le_bytes)?),
            _ => return Err(self.malformed(field, format!("element type {type_id} is not one of 0 to 12"))),
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        field: &str,
        decode: fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        // The count is bounded, so the product does not overflow.
        let bytes = self.take(count * N as u64, field)?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(chunks.iter().map(|&chunk| decode(chunk)).collect())
    }

    /// Walks over the strings first, so that memory is taken only for what is there.
    fn strings(&mut self, count: u64, field: &str) -> Result<Vec<String>> {
        if count * 8 > self.left() {
            return Err(self.beyond_end(field, count * 8));
        }
        let mut walk = self.clone();
        for _ in 0..count {
            walk.string_bytes(MAX_STRING_BYTES, field)?;
        }
        let mut strings = Vec::with_capacity(count as usize);
        for index in 0..count {
            let text = self.string(MAX_STRING_BYTES, field).map_err(|error| match error {
                FormatError::Malformed { origin, field, problem } => {
                    FormatError::Malformed { origin, field: format!("{field}[{index}]"), problem }
                }
                other => other,
            })?;
            strings.push(text.to_owned());
        }
        Ok(strings)
    }
}
