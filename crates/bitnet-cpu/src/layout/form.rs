//! [`Form`]: how many bits a trit takes in memory.
//!
//! All forms keep four columns of a row in the four bytes of a 32-bit word, several such *quads* in one word:
//!
//! * [`Form::TwoBit`]: four quads of a row, two bits a trit, the first quad in the lowest bits;
//! * [`Form::FiveTrits`]: five quads of a row, five base-3 digits a byte, the first quad in the lowest digit (1.6 bits a
//!   trit);
//! * [`Form::FourRows`]: the same quad of four rows, two bits a trit. One product of whole bytes adds up all four rows,
//!   another of the lower six bits three of them, and so on: the differences are the rows, for a mask less. It needs
//!   blocks of 64 rows, and is worth it where weights come from caches.
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
    /// Two bits a trit, four rows a byte; for single layers ([`crate::BitLinear`]).
    FourRows,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Form::TwoBit, Form::FiveTrits, Form::FourRows];

    /// Quads in a word, which is digits in a byte.
    pub const fn digits(self) -> usize {
        match self {
            Form::TwoBit | Form::FourRows => 4,
            Form::FiveTrits => 5,
        }
    }

    /// Strips whose rows lie in the same words: they are only used together.
    pub const fn block_strips(self) -> usize {
        match self {
            Form::TwoBit | Form::FiveTrits => 1,
            Form::FourRows => 4,
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
            Form::FourRows => "2-bit, four rows",
        }
    }

    /// What a digit counts in a byte: powers of four or of three.
    const fn radix(self) -> u32 {
        match self {
            Form::TwoBit | Form::FourRows => 4,
            Form::FiveTrits => 3,
        }
    }

    /// A word of trits 0.
    pub(crate) const fn zero_word(self) -> u32 {
        match self {
            Form::TwoBit | Form::FourRows => 0x5555_5555,
            Form::FiveTrits => 0x7979_7979,
        }
    }

    /// Packs one row of trits, `[groups * group_cols]`, as row `row` of the tiles of a block of strips,
    /// `[block_strips * groups][16]` words. Words of [`Form::FourRows`] hold other rows as well, which stay.
    pub(crate) fn pack_row(self, trits: &[i8], row: usize, tiles: &mut [[u32; STRIP_ROWS]]) {
        match self {
            Form::TwoBit => pack::<4>(self, trits, row, tiles),
            Form::FiveTrits => pack::<5>(self, trits, row, tiles),
            Form::FourRows => pack_beside_others(trits, row, tiles),
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

/// Two bits of each byte; the row's strip says which.
fn pack_beside_others(trits: &[i8], row: usize, tiles: &mut [[u32; STRIP_ROWS]]) {
    let (quads, _) = trits.as_chunks::<QUAD>();
    let (lane, shift) = (row % STRIP_ROWS, row / STRIP_ROWS * 2);
    for (tile, quad) in tiles.iter_mut().zip(quads) {
        let codes = u32::from_le_bytes(quad.map(|t| (t + 1) as u8));
        let others = u32::from_le(tile[lane]) & !(0x0303_0303 << shift);
        tile[lane] = (others | codes << shift).to_le();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_rows_lie_in_the_digits_of_a_byte() {
        let (form, quads) = (Form::FourRows, 8);
        let trit = |row: usize, col: usize| ((row * 5 + col * 7) % 11 % 3) as i8 - 1;
        let mut tiles = vec![[form.zero_word().to_le(); STRIP_ROWS]; quads];
        let rows = [3, 19, 35, 50];
        for row in rows {
            let trits: Vec<i8> = (0..quads * QUAD).map(|col| trit(row, col)).collect();
            form.pack_row(&trits, row, &mut tiles);
        }
        for row in 0..64 {
            for (k, tile) in tiles.iter().enumerate() {
                let found = form.digit(u32::from_le(tile[row % STRIP_ROWS]), row / STRIP_ROWS);
                let want = |b| if rows.contains(&row) { trit(row, QUAD * k + b) + 1 } else { 1 };
                assert_eq!(found.map(|c| c as i8), [want(0), want(1), want(2), want(3)], "row {row}");
            }
        }
    }

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
