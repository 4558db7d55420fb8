//! [`Image`]: the output layer as int8 rows, which are scanned for the rows that can have the largest logits.
//!
//! A row `W` is `scale * code` but for what is missing, whose length is known; interval.wgsl tells what follows for logits,
//! and adds what a dot product rounds: sixteen chains of `n / 16` steps and their folding, each of which may round product
//! and sum, and the product of the images itself. Images are made by the host, whose arithmetic is known. What a device may
//! flush to zero (numbers of half precision below the normal ones, products that are next to nothing) counts as missing.

use std::sync::{Mutex, PoisonError};

use bitnet_core::DType;
use bitnet_model::{DenseTensor, ExecError};

use crate::memory::Buffer;

/// Columns to which rows are padded: a quad of words.
const GRANULE: usize = 16;
/// Rows are not kept this way if they have more columns: 32-bit sums must hold their products.
const MOST_COLS: usize = 1 << 16;
/// Rows of smaller numbers have no codes: scales must be normal numbers.
const SMALLEST: f32 = 1e-30;
/// The length of what is missing of a row that is not finite: it reaches every threshold, is computed in full, and noticed.
const BROKEN: f32 = 3e38;
/// Lengths are made a little larger, so that rounding them to single precision harms nobody.
const SAFE: f64 = 1.0001;

/// Rows of the image in one buffer.
#[derive(Debug)]
pub(crate) struct ImagePart {
    /// `[row][quads]`.
    pub(crate) codes: Buffer,
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// The image of the output layer.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) parts: Vec<ImagePart>,
    /// What is known of each row: scale, length of what is missing, length of the image, rounding for each unit of length of
    /// a hidden row.
    pub(crate) rows: Buffer,
    /// Quads of words of a row.
    pub(crate) quads: usize,
}

impl Image {
    /// Whether rows of so many columns can be kept this way.
    pub(crate) fn can_hold(cols: usize) -> bool {
        cols <= MOST_COLS
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.codes.buffer.size()).sum::<u64>() + self.rows.buffer.size()
    }
}

/// Quads of words of a row of so many columns.
pub(crate) fn quads_of(cols: usize) -> usize {
    cols.div_ceil(GRANULE)
}

/// Codes of some rows of a table and what is known of them, made with all cores.
///
/// # Errors
/// [`ExecError`] if the table cannot be read.
pub(crate) fn quantise(
    table: &DenseTensor,
    rows: std::ops::Range<usize>,
) -> Result<(Vec<i8>, Vec<[f32; 4]>), ExecError> {
    let width = quads_of(table.cols()) * GRANULE;
    let (mut codes, mut known) = (vec![0i8; rows.len() * width], vec![[0.0; 4]; rows.len()]);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = rows.len().div_ceil(threads).max(16);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        let parts = codes.chunks_mut(share * width).zip(known.chunks_mut(share));
        for (part, (codes, known)) in parts.enumerate() {
            let (first, failure) = (rows.start + part * share, &failure);
            scope.spawn(move || {
                if let Err(error) = quantise_rows(table, first, codes, known) {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok((codes, known)),
    }
}

fn quantise_rows(
    table: &DenseTensor,
    first: usize,
    codes: &mut [i8],
    known: &mut [[f32; 4]],
) -> Result<(), ExecError> {
    const TOGETHER: usize = 64;
    let (cols, width) = (table.cols(), codes.len() / known.len());
    let (mut bytes, mut row) = (Vec::new(), vec![0.0; cols]);
    let parts = codes.chunks_mut(TOGETHER * width).zip(known.chunks_mut(TOGETHER));
    for (part, (codes, known)) in parts.enumerate() {
        let first = first + part * TOGETHER;
        let stored = table.read_rows(first..first + known.len(), &mut bytes)?;
        let rows = stored.bytes.chunks_exact(cols * stored.dtype.size());
        for ((bytes, codes), known) in rows.zip(codes.chunks_exact_mut(width)).zip(known) {
            stored.dtype.decode(bytes, &mut row);
            *known = quantise_row(stored.dtype, &row, codes);
        }
    }
    Ok(())
}

/// Codes of a row; gives what is known of it.
fn quantise_row(dtype: DType, row: &[f32], codes: &mut [i8]) -> [f32; 4] {
    let rounding = 4.0 * (row.len() as f64 / 16.0 + 16.0) * f64::from(f32::EPSILON);
    // All infinite and no numbers have the same exponent, also where a maximum would hide them.
    if !row.iter().all(|x| x.is_finite()) {
        return [0.0, BROKEN, 0.0, (f64::from(BROKEN) * rounding) as f32];
    }
    let largest = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let (scale, inverse) = if largest < SMALLEST { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
    let least = if dtype == DType::F16 { 2f32.powi(-14) } else { f32::MIN_POSITIVE };
    let (mut missing, mut length) = (0.0f64, 0.0f64);
    for (&x, code) in row.iter().zip(codes) {
        let rounded = (x * inverse).round_ties_even().clamp(-127.0, 127.0);
        *code = rounded as i8;
        let image = f64::from(scale) * f64::from(rounded);
        let rest = (f64::from(x) - image).abs();
        let rest = if x.abs() < least { rest.max(image.abs()) } else { rest };
        missing += rest * rest;
        length += image * image;
    }
    let (missing, length) = (missing.sqrt() * SAFE + 1e-34, length.sqrt() * SAFE);
    [scale, missing as f32, length as f32, (rounding * (missing + length)) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::bytes::ByteView;
    use bitnet_model::conformance::Random;

    #[test]
    fn images_are_as_far_from_their_rows_as_they_say() {
        const COLS: usize = 70;
        let mut random = Random::new(11);
        let mut rows: Vec<f32> = (0..100 * COLS).map(|_| random.next_f32()).collect();
        rows[..COLS].fill(0.0);
        rows[COLS..2 * COLS].fill(1e-33);
        rows[2 * COLS] = f32::NAN;
        rows[3 * COLS..4 * COLS].iter_mut().for_each(|x| *x *= 1e-5);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let bytes = ByteView::from_vec(dtype.encode(&rows));
            let table = DenseTensor::new(100, COLS, dtype, bytes).unwrap();
            let (codes, known) = quantise(&table, 0..100).unwrap();
            let (mut buffer, mut row) = (Vec::new(), vec![0.0; COLS]);
            for (i, (codes, [scale, missing, length, rounding])) in codes.chunks(80).zip(known).enumerate() {
                if i == 2 {
                    assert!(missing == BROKEN && rounding.is_finite());
                    continue;
                }
                let stored = table.read_rows(i..i + 1, &mut buffer).unwrap();
                stored.dtype.decode(stored.bytes, &mut row);
                let of = |f: &dyn Fn(f64, f64) -> f64| {
                    let all =
                        row.iter().zip(codes).map(|(&x, &c)| f(x.into(), f64::from(scale) * f64::from(c)));
                    all.map(|x| x * x).sum::<f64>().sqrt()
                };
                assert!(f64::from(missing) >= of(&|x, image| x - image), "{dtype:?}, {i}");
                assert!(f64::from(length) >= of(&|_, image| image), "{dtype:?}, {i}");
                assert!(i == 3 || f64::from(missing) <= 0.01 * of(&|x, _| x) + 2e-32, "{dtype:?}, {i}");
                assert!(codes[COLS..].iter().all(|code| *code == 0));
            }
        }
    }
}
