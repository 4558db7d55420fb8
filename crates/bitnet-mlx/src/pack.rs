//! Ternary matrices as codes for MLX's quantised product.
//!
//! Codes trit + 1 of two bits lie sixteen to a word, the first column in the lowest bits; rows are padded to whole groups, whose
//! codes meet zeros of the activations. Scale 1 and bias -1 make trits of them again: MLX wants both for each group, so
//! matrices of one shape share theirs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::MAX_COLUMNS;
use crate::error::MlxError;
use crate::sys::{Array, Codes, Dtype, Pages, Stream};

/// Codes in a word.
const PER_WORD: usize = 16;
/// The columns that may share a scale, the cheapest first.
const GROUPS: [usize; 3] = [128, 64, 32];

/// A ternary matrix, or several of the same width, one below the other.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) codes: Codes,
    /// The scale of the weights: one, or one for each row where the matrices have different ones.
    pub(crate) factors: Array,
    /// Bytes of words and factors; what matrices share is not counted.
    pub(crate) bytes: u64,
}

/// Columns with padding to whole groups.
pub(crate) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(GROUPS[2])
}

/// Columns of a group, which divides the padded columns.
fn group(columns: usize) -> usize {
    let columns = padded(columns);
    GROUPS.into_iter().find(|&group| columns.is_multiple_of(group)).unwrap_or(GROUPS[2])
}

/// What the matrices of one shape share: scales and biases.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    known: HashMap<(usize, usize), [Array; 2]>,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
}

impl Shared {
    fn of(&mut self, rows: usize, groups: usize) -> Result<[Array; 2], MlxError> {
        if let Some(known) = self.known.get(&(rows, groups)) {
            return Ok(known.clone());
        }
        let shape = [int(rows)?, int(groups)?];
        let constant = |value: f32| Array::from_f32(&vec![value; rows * groups], &shape);
        let made = [constant(1.0)?, constant(-1.0)?];
        self.bytes += made.iter().map(|array| array.bytes() as u64).sum::<u64>();
        self.known.insert((rows, groups), made.clone());
        Ok(made)
    }
}

/// A length as MLX takes it.
///
/// # Errors
/// [`MlxError::Unsupported`].
pub(crate) fn int(length: usize) -> Result<i32, MlxError> {
    i32::try_from(length).map_err(|_| MlxError::Unsupported(format!("a dimension of {length}")))
}

/// Packs matrices of the same width, one below the other, with all cores.
///
/// # Errors
/// [`ExecError::Weights`] if a tensor is damaged; too wide rows, no memory.
pub(crate) fn pack(
    stream: &Stream,
    shared: &mut Shared,
    matrices: &[(&str, &TernaryMatrix)],
) -> Result<Matrix, ExecError> {
    let columns = matrices.first().map_or(0, |(_, matrix)| matrix.cols());
    if columns > MAX_COLUMNS {
        let what = format!("rows of {columns} columns; products are exact up to {MAX_COLUMNS}");
        return Err(MlxError::Unsupported(what).into());
    }
    let rows: usize = matrices.iter().map(|(_, matrix)| matrix.rows()).sum();
    let words = padded(columns) / PER_WORD;
    let mut pages = Pages::zeroed(4 * rows * words)?;
    let mut out: &mut [u32] = bytemuck::cast_slice_mut(pages.bytes_mut());
    let mut factors = Vec::with_capacity(rows);
    for (name, matrix) in matrices {
        let (own, rest) = std::mem::take(&mut out).split_at_mut(matrix.rows() * words);
        pack_rows(name, matrix, words, own)?;
        factors.resize(factors.len() + matrix.rows(), matrix.scale());
        out = rest;
    }
    if factors.windows(2).all(|pair| pair[0] == pair[1]) {
        factors.truncate(1);
    }
    let group = group(columns);
    let [scales, biases] = shared.of(rows, padded(columns) / group)?;
    let all = Array::adopt(pages, Dtype::U32)?;
    let used = stream.part(&all, 0, 0..int(rows * words)?)?;
    let words = stream.reshape(&used, &[int(rows)?, int(words)?])?;
    let factors = Array::from_f32(&factors, &[int(factors.len())?])?;
    let bytes = (words.bytes() + factors.bytes()) as u64;
    Ok(Matrix { codes: Codes { words, scales, biases, group: int(group)? }, factors, bytes })
}

/// Packs all rows of a matrix.
fn pack_rows(name: &str, matrix: &TernaryMatrix, words: usize, out: &mut [u32]) -> Result<(), ExecError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = matrix.rows().div_ceil(threads).max(16);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for (part, out) in out.chunks_mut((share * words).max(1)).enumerate() {
            let failure = &failure;
            scope.spawn(move || {
                let mut trits = vec![0i8; matrix.cols()];
                for (row, out) in (part * share..).zip(out.chunks_exact_mut(words)) {
                    if let Err(source) = matrix.decode_row(row, &mut trits) {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(source);
                        return;
                    }
                    for (word, trits) in out.iter_mut().zip(trits.chunks(PER_WORD)) {
                        *word = pack_word(trits);
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(source) => Err(ExecError::Weights { tensor: name.to_owned(), source }),
        None => Ok(()),
    }
}

/// Up to sixteen trits as codes.
fn pack_word(trits: &[i8]) -> u32 {
    let code = |(i, &trit): (usize, &i8)| ((i32::from(trit) + 1) as u32) << (2 * i);
    trits.iter().enumerate().map(code).fold(0, |word, code| word | code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::MlxWhere;
    use bitnet_core::bytes::ByteView;
    use bitnet_model::conformance::Random;
    use bitnet_quant::codec::pack_hf;
    use bitnet_quant::{RowOrder, TritCodec};

    #[test]
    fn groups_divide_rows() {
        assert_eq!(pack_word(&[1, -1, 0]), 0b01_00_10);
        for (columns, want) in [(2560, (2560, 128)), (100, (128, 128)), (192, (192, 64)), (72, (96, 32))] {
            assert_eq!((padded(columns), group(columns)), want, "{columns}");
        }
    }

    /// Sums are exact at the largest magnitudes that activations can have.
    #[test]
    fn products_are_exact() {
        let stream = Stream::new(MlxWhere::Cpu).unwrap();
        let mut random = Random::new(3);
        for (rows, columns) in [(8, 100), (64, 256), (8, 20_480), (4, MAX_COLUMNS)] {
            let trits: Vec<i8> =
                (0..rows * columns).map(|i| if i < columns { 1 } else { random.next_trit() }).collect();
            let bytes = ByteView::from_vec(pack_hf(&trits, rows, columns).unwrap());
            let matrix =
                TernaryMatrix::new(rows, columns, 0.5, TritCodec::HfPacked, RowOrder::Natural, bytes)
                    .unwrap();
            let packed = pack(&stream, &mut Shared::default(), &[("m", &matrix)]).unwrap();
            let mut q = vec![0.0f32; padded(columns)];
            q[..columns].iter_mut().for_each(|q| *q = (random.next_u64() % 2) as f32 * 254.0 - 127.0);
            for all_large in [false, true] {
                if all_large {
                    q[..columns].fill(127.0);
                }
                let x = Array::from_f32(&q, &[1, padded(columns) as i32]).unwrap();
                let got = stream.ternary(&x, &packed.codes).unwrap();
                let want: Vec<f32> = trits
                    .chunks_exact(columns)
                    .map(|row| row.iter().zip(&q).map(|(&t, &q)| i64::from(t) * q as i64).sum::<i64>() as f32)
                    .collect();
                assert_eq!(got.f32s().unwrap(), want, "{rows} {columns}");
            }
        }
    }
}
