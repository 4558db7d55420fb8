//! Trits as single elements of a matrix: small integers, or masters, in rows or in columns.
//!
//! This is how graphs store weights: `[cols, rows]` where a product reads them from the right (ONNX `MatMul`), integers
//! of two, four or eight bits around a zero point (ONNX `DequantizeLinear`, `MatMulInteger`; `MatMulNBits` of ONNX
//! Runtime, whose rows are padded to whole blocks). Elements narrower than a byte follow each other without gaps, the
//! first in the low bits.

use bitnet_core::DType;

use crate::absmean;
use crate::{QuantError, Result};

/// What one element is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// A full-precision master, rounded to a trit while it is read.
    Master {
        /// Element type.
        dtype: DType,
        /// What a weight is multiplied by before rounding.
        inv: f32,
    },
    /// An integer: the trit and a zero point.
    Int {
        /// 2, 4 or 8.
        bits: u8,
        /// Whether the integer is signed, in two's complement.
        signed: bool,
        /// What stands for 0.
        zero: i32,
    },
}

/// A matrix of single elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elements {
    /// What an element is.
    pub element: Element,
    /// Whether columns of the matrix lie one after the other instead of rows: `[cols, rows]`.
    pub transposed: bool,
    /// Elements from the beginning of one stored row (column, if transposed) to the next.
    pub stride: usize,
}

impl Elements {
    /// Name for messages.
    pub(crate) const fn name(self) -> &'static str {
        match (self.element, self.transposed) {
            (Element::Master { .. }, false) => "dense",
            (Element::Master { .. }, true) => "dense, transposed",
            (Element::Int { bits: 2, .. }, _) => "2-bit integers",
            (Element::Int { bits: 4, .. }, _) => "4-bit integers",
            (Element::Int { .. }, false) => "int8",
            (Element::Int { .. }, true) => "int8, transposed",
        }
    }

    fn bits(self) -> u64 {
        match self.element {
            Element::Master { dtype, .. } => 8 * dtype.size() as u64,
            Element::Int { bits, .. } => u64::from(bits),
        }
    }

    /// Bytes that `[rows, cols]` take.
    pub(crate) fn byte_len(self, rows: usize, cols: usize) -> Result<u64> {
        let refuse = |rule| QuantError::UnsupportedShape { codec: self.name(), rows, cols, rule };
        if let Element::Int { bits, .. } = self.element
            && !matches!(bits, 2 | 4 | 8)
        {
            return Err(refuse("integers must have 2, 4 or 8 bits"));
        }
        let (lines, line) = if self.transposed { (cols, rows) } else { (rows, cols) };
        if line > self.stride {
            return Err(refuse("the stored rows are shorter than those of the matrix"));
        }
        let bits =
            (lines as u64).checked_mul(self.stride as u64).and_then(|count| count.checked_mul(self.bits()));
        bits.map(|bits| bits.div_ceil(8)).ok_or_else(|| refuse("too large"))
    }

    /// Reads row `row`; returns false if an integer stands for no trit.
    pub(crate) fn decode_row(self, data: &[u8], row: usize, out: &mut [i8]) -> bool {
        let (first, step) = if self.transposed { (row, self.stride) } else { (row * self.stride, 1) };
        match self.element {
            Element::Master { dtype, inv } => {
                masters(dtype, inv, data, first, step, out);
                true
            }
            Element::Int { bits: 8, signed, zero } => {
                let bytes = data[first..].iter().step_by(step);
                integers(bytes.map(|&byte| extend(byte, 8, signed) - zero), out)
            }
            Element::Int { bits, signed, zero } => {
                let per_byte = 8 / usize::from(bits);
                let codes = (0..out.len()).map(|i| {
                    let index = first + i * step;
                    let code = data[index / per_byte] >> (index % per_byte * usize::from(bits));
                    extend(code & ((1 << bits) - 1), bits, signed) - zero
                });
                integers(codes, out)
            }
        }
    }
}

/// The value of the low `bits` bits.
fn extend(code: u8, bits: u8, signed: bool) -> i32 {
    let shift = 8 - bits;
    if signed { i32::from(((code << shift) as i8) >> shift) } else { i32::from(code) }
}

fn integers(values: impl Iterator<Item = i32>, out: &mut [i8]) -> bool {
    let mut valid = true;
    for (o, value) in out.iter_mut().zip(values) {
        valid &= (-1..=1).contains(&value);
        *o = value as i8;
    }
    valid
}

fn masters(dtype: DType, inv: f32, data: &[u8], first: usize, step: usize, out: &mut [i8]) {
    const CHUNK: usize = 256;
    let size = dtype.size();
    let mut bytes = [0u8; CHUNK * 4];
    let mut values = [0.0f32; CHUNK];
    let mut index = first;
    for out in out.chunks_mut(CHUNK) {
        let bytes = &mut bytes[..out.len() * size];
        for element in bytes.chunks_exact_mut(size) {
            element.copy_from_slice(&data[index * size..][..size]);
            index += step;
        }
        let values = &mut values[..out.len()];
        dtype.decode(bytes, values);
        for (o, &v) in out.iter_mut().zip(values.iter()) {
            *o = absmean::trit(v, inv);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RowOrder, TernaryMatrix, TritCodec};
    use bitnet_core::bytes::ByteView;
    use proptest::prelude::*;

    fn read(elements: Elements, rows: usize, cols: usize, bytes: Vec<u8>) -> Result<Vec<i8>> {
        let codec = TritCodec::Elements(elements);
        TernaryMatrix::new(rows, cols, 1.0, codec, RowOrder::Natural, ByteView::from_vec(bytes))?.to_trits()
    }

    /// The integers of `values`, one after the other, low bits first.
    fn pack(bits: u8, values: &[i32]) -> Vec<u8> {
        let mut out = vec![0u8; (values.len() * usize::from(bits)).div_ceil(8)];
        for (i, &value) in values.iter().enumerate() {
            let at = i * usize::from(bits);
            out[at / 8] |= ((value as u8) & ((1u16 << bits) - 1) as u8) << (at % 8);
        }
        out
    }

    proptest! {
        #[test]
        fn integers_of_every_width_and_direction(
            rows in 1usize..9,
            cols in 1usize..9,
            padding in 0usize..3,
            seed in prop::collection::vec(-1i8..=1, 64),
            form in prop::sample::select(vec![(2u8, true, 0), (2, false, 1), (2, false, 2), (4, true, 0),
                (4, false, 8), (8, true, 0), (8, true, -7), (8, false, 128)]),
            transposed in any::<bool>(),
        ) {
            let (bits, signed, zero) = form;
            let trits = &seed[..rows * cols];
            let (lines, line) = if transposed { (cols, rows) } else { (rows, cols) };
            let stride = line + padding;
            let mut values = vec![zero; lines * stride];
            for r in 0..rows {
                for c in 0..cols {
                    let at = if transposed { c * stride + r } else { r * stride + c };
                    values[at] = i32::from(trits[r * cols + c]) + zero;
                }
            }
            let elements = Elements { element: Element::Int { bits, signed, zero }, transposed, stride };
            prop_assert_eq!(read(elements, rows, cols, pack(bits, &values)).unwrap(), trits);
        }

        #[test]
        fn masters_in_columns(rows in 1usize..5, cols in 1usize..700) {
            let value = |r: usize, c: usize| ((r * 7 + c * 3) % 5) as f32 * 0.5 - 1.0;
            let want: Vec<i8> =
                (0..rows * cols).map(|i| absmean::trit(value(i / cols, i % cols), 0.9)).collect();
            let stored: Vec<f32> = (0..rows * cols).map(|i| value(i % rows, i / rows)).collect();
            for dtype in [DType::F32, DType::BF16] {
                let element = Element::Master { dtype, inv: 0.9 };
                let elements = Elements { element, transposed: true, stride: rows };
                prop_assert_eq!(&read(elements, rows, cols, dtype.encode(&stored)).unwrap(), &want);
            }
        }
    }

    #[test]
    fn what_is_no_trit_is_refused() {
        let int = |bits, signed, zero| Elements {
            element: Element::Int { bits, signed, zero },
            transposed: false,
            stride: 4,
        };
        assert_eq!(read(int(8, true, 0), 1, 4, vec![2, 0, 0, 0]), Err(QuantError::InvalidCode { row: 0 }));
        assert_eq!(read(int(2, false, 1), 2, 4, vec![0, 3]), Err(QuantError::InvalidCode { row: 1 }));
        assert!(read(int(3, false, 1), 2, 4, vec![0; 3]).is_err());
        assert!(matches!(read(int(8, true, 0), 1, 5, vec![0; 4]), Err(QuantError::UnsupportedShape { .. })));
        assert!(matches!(read(int(8, true, 0), 2, 4, vec![0; 7]), Err(QuantError::WrongLength { .. })));
    }
}
