//! The byte-level alphabet of GPT-2: every byte has one printable character, so that a vocabulary of byte strings can
//! be written as text. Printable ASCII and most of Latin-1 stand for themselves, the other 68 bytes for the
//! characters from U+0100 on, in order.

/// The bytes that stand for themselves.
const fn is_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Character of each byte.
const CHARS: [char; 256] = {
    let mut table = ['\0'; 256];
    let mut next = 0x100_u32;
    let mut byte = 0;
    while byte < 256 {
        let code = if is_itself(byte as u8) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        table[byte] = match char::from_u32(code) {
            Some(character) => character,
            None => '\0',
        };
        byte += 1;
    }
    table
};

/// Byte of each character from U+0100 on.
const SHIFTED: [u8; 68] = {
    let mut table = [0; 68];
    let mut byte = 0;
    while byte < 256 {
        if !is_itself(byte as u8) {
            table[CHARS[byte] as usize - 0x100] = byte as u8;
        }
        byte += 1;
    }
    table
};

/// The byte that a character of the alphabet stands for.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|&byte| is_itself(byte)),
        code => SHIFTED.get((code - 0x100) as usize).copied(),
    }
}

/// Appends the bytes that `spelling` stands for. Returns `false`, with `out` as it was, if a character of it is not
/// in the alphabet.
pub(super) fn decode(spelling: &str, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    for character in spelling.chars() {
        let Some(byte) = byte_of(character) else {
            out.truncate(before);
            return false;
        };
        out.push(byte);
    }
    true
}

/// Whether `spelling` consists of characters of the alphabet only.
pub(super) fn is_spelled(spelling: &str) -> bool {
    spelling.chars().all(|character| byte_of(character).is_some())
}

/// Appends the spelling of `bytes`.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&byte| CHARS[usize::from(byte)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        let mut spelling = String::new();
        encode(&all, &mut spelling);
        assert_eq!(spelling.chars().collect::<std::collections::HashSet<_>>().len(), 256);
        let mut back = Vec::new();
        assert!(decode(&spelling, &mut back));
        assert_eq!(back, all);
    }

    #[test]
    fn known_spellings() {
        let mut spelling = String::new();
        encode(" \n\t\u{a0}é".as_bytes(), &mut spelling);
        assert_eq!(spelling, "ĠĊĉÂłÃ©");
    }

    #[test]
    fn foreign_characters_are_refused_and_leave_nothing() {
        let mut out = vec![7];
        assert!(!decode("ab c", &mut out));
        assert!(!decode("ab\u{144}", &mut out));
        assert!(!decode("日", &mut out));
        assert_eq!(out, [7]);
    }
}
