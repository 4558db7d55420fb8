//! Fields of protobuf messages, one after another, out of bytes that may be anything.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    /// Integers and flags.
    Varint(u64),
    /// Four bytes, such as a float.
    Fixed32([u8; 4]),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field and its number; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, &'static str> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field number is too large")?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.array()?),
            2 => {
                let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let (value, rest) =
                    self.0.split_at_checked(len).ok_or("a field reaches beyond its message")?;
                self.0 = rest;
                Wire::Bytes(value)
            }
            5 => Wire::Fixed32(self.array()?),
            _ => return Err("a field is of no known type"),
        };
        Ok(Some((number, value)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (value, rest) = self.0.split_first_chunk().ok_or("a field reaches beyond its message")?;
        self.0 = rest;
        Ok(*value)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for (place, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(value);
            }
        }
        Err("a number does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_and_their_ends() {
        let mut fields = Fields(b"\x08\xac\x02\x15\x00\x00\x80\x3f\x1a\x02ab\x21\x01\0\0\0\0\0\0\0");
        assert_eq!(fields.next(), Ok(Some((1, Wire::Varint(300)))));
        assert_eq!(fields.next(), Ok(Some((2, Wire::Fixed32([0, 0, 0x80, 0x3f])))));
        assert_eq!(fields.next(), Ok(Some((3, Wire::Bytes(b"ab")))));
        assert_eq!(fields.next(), Ok(Some((4, Wire::Fixed64([1, 0, 0, 0, 0, 0, 0, 0])))));
        assert_eq!(fields.next(), Ok(None));
        for bytes in [
            &b"\x08"[..],
            b"\x08\xff\xff",
            b"\x15\0",
            b"\x1a\x05ab",
            b"\x0b",
            b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert!(Fields(bytes).next().is_err(), "{}", bytes.escape_ascii());
        }
    }
}
