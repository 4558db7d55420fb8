//! Protobuf as it lies in a file: the fields of a message, without copies.
//!
//! A message is a range of the file; its fields are walked over in place. Nothing here recurses: a reader asks for the
//! messages inside a message where it knows them to be. Source: the protobuf encoding guide (wire types 0, 1, 2 and 5).

use crate::{FormatError, Result};

/// Name and size of the file that messages are in, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileFacts<'a> {
    pub(super) origin: &'a str,
    pub(super) len: u64,
}

/// A message: a range of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    /// Where it begins in the file.
    at: u64,
    /// What it is, for errors.
    what: &'static str,
    file: FileFacts<'a>,
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    value: Value<'a>,
    message: Message<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// Bytes and where they begin in the file.
    Bytes(&'a [u8], u64),
}

impl<'a> Message<'a> {
    /// The outermost message, which is the whole file.
    pub(super) fn whole(bytes: &'a [u8], what: &'static str, file: FileFacts<'a>) -> Self {
        Self { bytes, at: 0, what, file }
    }

    /// Where the message begins in the file.
    pub(super) fn start(&self) -> u64 {
        self.at
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The fields in the order of the file.
    pub(super) fn fields(&self) -> Fields<'a> {
        Fields { message: *self, at: 0 }
    }

    /// How often a field occurs, `limit + 1` if it is more often than `limit`.
    pub(super) fn count(&self, number: u32, limit: usize) -> Result<usize> {
        let mut count = 0;
        for field in self.fields() {
            count += usize::from(field?.number == number);
            if count > limit {
                break;
            }
        }
        Ok(count)
    }

    /// The error for something that is wrong in this message.
    pub(super) fn malformed(&self, problem: impl Into<String>) -> FormatError {
        let field = format!("{} at byte {}", self.what, self.at);
        FormatError::malformed(self.file.origin, field, problem)
    }
}

/// Walks over the fields of a message; ends after the first error.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    message: Message<'a>,
    at: usize,
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 {
            return Err(self.message.malformed(format!("{} is not the number of a field", key >> 3)));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed()?),
            2 => {
                let len = self.varint()?;
                let start = self.message.at + self.at as u64;
                Value::Bytes(self.take(len)?, start)
            }
            5 => Value::Fixed32(self.fixed()?),
            other => {
                let problem = format!("field {number} has the wire type {other}, which ONNX does not use");
                return Err(self.message.malformed(problem));
            }
        };
        Ok(Field { number, value, message: self.message })
    }

    fn varint(&mut self) -> Result<u64> {
        let mut at = self.at;
        let value = varint(self.message.bytes, &mut at);
        match value {
            Some(value) => {
                self.at = at;
                Ok(value)
            }
            None if at >= self.message.bytes.len() => Err(self.beyond_end(at as u64 + 1)),
            None => Err(self.message.malformed("a number of more than 64 bits")),
        }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let end = (self.at as u64).saturating_add(len);
        let bytes = usize::try_from(end).ok().and_then(|end| self.message.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.beyond_end(end))?;
        self.at = end as usize;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("as many bytes as were taken"))
    }

    /// The error for a field that ends at `end` of the message.
    fn beyond_end(&self, end: u64) -> FormatError {
        let Message { at, what, file, .. } = self.message;
        let end_in_file = at.saturating_add(end);
        if end_in_file > file.len {
            return FormatError::beyond_end(
                file.origin,
                format!("{what} at byte {at}"),
                end_in_file,
                file.len,
            );
        }
        self.message.malformed(format!("a field reaches {end} bytes far, beyond the message it is in"))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.bytes.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.at = self.message.bytes.len();
        }
        Some(field)
    }
}

/// Reads a varint at `at` and moves behind it. On failure `at` is where reading stopped.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        if shift == 63 && byte > 1 {
            return None;
        }
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

impl<'a> Field<'a> {
    fn wrong(&self, wanted: &str) -> FormatError {
        self.message.malformed(format!("field {} is not {wanted}", self.number))
    }

    /// The field as a message of its own.
    pub(super) fn message(&self, what: &'static str) -> Result<Message<'a>> {
        match self.value {
            Value::Bytes(bytes, at) => Ok(Message { bytes, at, what, file: self.message.file }),
            _ => Err(self.wrong("a message")),
        }
    }

    /// The field as text.
    pub(super) fn text(&self) -> Result<&'a str> {
        match self.value {
            Value::Bytes(bytes, _) => std::str::from_utf8(bytes).map_err(|_| self.wrong("UTF-8 text")),
            _ => Err(self.wrong("text")),
        }
    }

    /// The field as a whole number.
    pub(super) fn int(&self) -> Result<i64> {
        match self.value {
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.wrong("a whole number")),
        }
    }

    /// The field as a 32-bit float.
    pub(super) fn float(&self) -> Result<f32> {
        match self.value {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(self.wrong("a float")),
        }
    }

    /// How many whole numbers the field holds; a field of a repeated number holds one or, packed, several.
    pub(super) fn int_count(&self) -> Result<u64> {
        match self.value {
            Value::Varint(_) => Ok(1),
            Value::Bytes(bytes, _) => Ok(bytes.iter().filter(|&&byte| byte < 0x80).count() as u64),
            _ => Err(self.wrong("a list of whole numbers")),
        }
    }

    /// Gives the whole numbers that the field holds to `each`.
    pub(super) fn each_int(&self, each: &mut dyn FnMut(u64)) -> Result<()> {
        match self.value {
            Value::Varint(value) => each(value),
            Value::Bytes(bytes, _) => {
                let mut at = 0;
                while at < bytes.len() {
                    each(varint(bytes, &mut at).ok_or_else(|| self.wrong("a list of whole numbers"))?);
                }
            }
            _ => return Err(self.wrong("a list of whole numbers")),
        }
        Ok(())
    }

    /// The little-endian bytes of the floats (of 4 or 8 bytes) that the field holds, and where they begin in the file
    /// if they are more than one number.
    pub(super) fn float_bytes(&self, size: usize) -> Result<(FloatBytes<'a>, Option<u64>)> {
        match self.value {
            Value::Fixed32(bytes) if size == 4 => Ok((FloatBytes::One4(bytes), None)),
            Value::Fixed64(bytes) if size == 8 => Ok((FloatBytes::One8(bytes), None)),
            Value::Bytes(bytes, at) if bytes.len().is_multiple_of(size) => {
                Ok((FloatBytes::Many(bytes), Some(at)))
            }
            _ => Err(self.wrong("a list of floats")),
        }
    }
}

/// Bytes of one float or of several.
#[derive(Debug, Clone, Copy)]
pub(super) enum FloatBytes<'a> {
    One4([u8; 4]),
    One8([u8; 8]),
    Many(&'a [u8]),
}

impl FloatBytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            FloatBytes::One4(bytes) => bytes,
            FloatBytes::One8(bytes) => bytes,
            FloatBytes::Many(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8]) -> Result<Vec<u32>> {
        let file = FileFacts { origin: "m", len: bytes.len() as u64 };
        Message::whole(bytes, "the model", file).fields().map(|field| Ok(field?.number)).collect()
    }

    #[test]
    fn fields_of_each_wire_type() {
        let bytes =
            [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f, 0x21, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(numbers(&bytes).unwrap(), [1, 2, 3, 4]);
        let file = FileFacts { origin: "m", len: bytes.len() as u64 };
        let fields: Vec<Field<'_>> =
            Message::whole(&bytes, "the model", file).fields().map(Result::unwrap).collect();
        assert_eq!((fields[0].int().unwrap(), fields[1].text().unwrap()), (150, "hi"));
        assert_eq!(fields[2].float().unwrap(), 1.0);
        assert_eq!(fields[1].message("x").unwrap().start(), 5);
        assert!(fields[0].text().is_err() && fields[1].int().is_err() && fields[3].float().is_err());
    }

    #[test]
    fn damage_is_named() {
        for (bytes, part) in [
            (&[0x0a, 5, 1][..], "4 bytes are missing"),
            (&[0x08], "bytes are missing"),
            (&[0x00, 1], "0 is not the number"),
            (&[0x0b], "wire type 3"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "more than 64 bits"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "corrupt"),
        ] {
            let message = numbers(bytes).unwrap_err().to_string();
            assert!(message.starts_with("m: ") && message.contains(part), "{message}");
        }
    }
}
