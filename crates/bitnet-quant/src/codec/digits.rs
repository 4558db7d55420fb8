//! Five trits in a byte: the number `V = sum(digit * 3^(4-n))`, 0 to 242, is stored as `ceil(V * 256 / 243)`, so that
//! digits can be had by multiplications. 13 bytes stand for nothing.

/// What stands in [`TRITS`] for bytes that no five trits are stored as.
const INVALID: i8 = 2;

/// The five trits of each byte, the most significant first.
static TRITS: [[i8; 5]; 256] = table();

const fn table() -> [[i8; 5]; 256] {
    let mut table = [[INVALID; 5]; 256];
    let mut number = 0;
    while number < 243 {
        let (mut rest, mut place) = (number, 5);
        let entry = &mut table[byte_of(number)];
        while place > 0 {
            place -= 1;
            entry[place] = (rest % 3) as i8 - 1;
            rest /= 3;
        }
        number += 1;
    }
    table
}

const fn byte_of(number: usize) -> usize {
    (number * 256).div_ceil(243)
}

/// The trits of a byte, the most significant digit first; all are 2 if it stands for nothing.
#[inline]
pub(super) fn unpack(byte: u8) -> [i8; 5] {
    TRITS[usize::from(byte)]
}

/// Whether [`unpack`] found trits.
#[inline]
pub(super) fn is_valid(trits: [i8; 5]) -> bool {
    trits[0] != INVALID
}

/// The byte of five trits, the most significant first.
pub(super) fn pack(trits: [i8; 5]) -> u8 {
    byte_of(trits.iter().fold(0, |number, &t| 3 * number + (t + 1) as usize)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_byte() {
        let mut valid = 0;
        for byte in 0..=255u8 {
            let trits = unpack(byte);
            if is_valid(trits) {
                valid += 1;
                assert_eq!(pack(trits), byte);
                // The digits as ggml finds them.
                for (n, t) in trits.into_iter().enumerate() {
                    let digit = (u16::from(byte.wrapping_mul(3u8.pow(n as u32))) * 3) >> 8;
                    assert_eq!(i16::from(t) + 1, digit as i16, "{byte} {n}");
                }
            }
        }
        assert_eq!(valid, 243);
    }
}
