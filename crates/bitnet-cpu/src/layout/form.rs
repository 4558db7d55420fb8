//! [`Form`]: how many bits a trit takes in memory.
//!
//! Both forms keep four columns of a row in the four bytes of a 32-bit word, several such *quads* in one word:
//!
//! * [`Form::TwoBit`]: four quads, two bits a trit, the first quad in the lowest bits;
//! * [`Form::FiveTrits`]: five quads, five base-3 digits a byte, the first quad in the lowest digit (1.6 bits a trit).
//!
//! A digit is the code `t + 1`. Two bits are unpacked by shifts and masks; base-3 digits cost more instructions and
//! save a fifth of the memory traffic, so which form is faster depends on the machine (see [`super::choice`]).

use super::STRIP_ROWS;

/// Columns of a quad.
pub(crate) const QUAD: usize = 4;

/// How trits are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Two bits a trit.
    #[default]
    TwoBit,
    /// Five trits a byte.
    FiveTrits,
}

impl Form {
    /// Quads in a word, which is digits in a byte.
    pub const fn digits(self) -> usize {
        match self {
            Form::TwoBit => 4,
            Form::FiveTrits => 5,
        }
    }

    /// Columns of a group: what one tile holds of each row.
    pub const fn group_cols(self) -> usize {
        QUAD * self.digits()
    }

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Form::TwoBit => "2-bit",
            Form::FiveTrits => "1.6-bit",
        }
    }

    /// What a digit counts in a byte: powers of four or of three.
    const fn radix(self) -> u32 {
        match self {
            Form::TwoBit => 4,
            Form::FiveTrits => 3,
        }
    }

    /// A word of trits 0.
    pub(crate) const fn zero_word(self) -> u32 {
        match self {
            Form::TwoBit => 0x5555_5555,
            Form::FiveTrits => 0x7979_7979,
        }
    }

    /// Packs one row of trits, `[groups * group_cols]`, as row `row` of the tiles of a strip, `[groups][16]` words.
    pub(crate) fn pack_row(self, trits: &[i8], row: usize, tiles: &mut [[u32; STRIP_ROWS]]) {
        match self {
            Form::TwoBit => pack::<4>(self, trits, row, tiles),
            Form::FiveTrits => pack::<5>(self, trits, row, tiles),
        }
    }

    /// The codes of digit `i` of four bytes.
    #[cfg(test)]
    pub(crate) fn digit(self, word: u32, i: usize) -> [u8; QUAD] {
        let radix = self.radix();
        word.to_le_bytes().map(|b| (u32::from(b) / radix.pow(i as u32) % radix) as u8)
    }
}

/// Digits of bytes do not carry over into the next byte, so whole words are added.
fn pack<const DIGITS: usize>(form: Form, trits: &[i8], row: usize, tiles: &mut [[u32; STRIP_ROWS]]) {
    let (quads, _) = trits.as_chunks::<QUAD>();
    let (groups, _) = quads.as_chunks::<DIGITS>();
    for (tile, group) in tiles.iter_mut().zip(groups) {
        let mut word = 0u32;
        for quad in group.iter().rev() {
            let codes = u32::from_le_bytes(quad.map(|t| (t + 1) as u8));
            word = word * form.radix() + codes;
        }
        tile[row] = word.to_le();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_packed_digit_by_digit() {
        for form in [Form::TwoBit, Form::FiveTrits] {
            let groups = 3;
            let trits: Vec<i8> =
                (0..groups * form.group_cols()).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect();
            let mut tiles = vec![[form.zero_word().to_le(); STRIP_ROWS]; groups];
            form.pack_row(&trits, 5, &mut tiles);
            for (g, group) in trits.chunks(form.group_cols()).enumerate() {
                for (i, quad) in group.chunks(QUAD).enumerate() {
                    let codes: Vec<i8> =
                        form.digit(u32::from_le(tiles[g][5]), i).iter().map(|&c| c as i8 - 1).collect();
                    assert_eq!(codes, quad, "{} group {g} digit {i}", form.name());
                    assert_eq!(form.digit(u32::from_le(tiles[g][4]), i), [1; 4], "other rows keep trit 0");
                }
            }
        }
    }

    #[test]
    fn the_largest_digits_fit() {
        for form in [Form::TwoBit, Form::FiveTrits] {
            let mut tiles = vec![[0; STRIP_ROWS]; 1];
            form.pack_row(&vec![1; form.group_cols()], 0, &mut tiles);
            for i in 0..form.digits() {
                assert_eq!(form.digit(u32::from_le(tiles[0][0]), i), [2; 4]);
            }
        }
    }
}
