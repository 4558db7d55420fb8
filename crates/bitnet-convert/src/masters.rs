//! bf16 masters made of trits and a scale, such that absmean gives both back.
//!
//! Writing `t * scale` would not do: absmean of that is `scale` times the share of non-zeros, which is the commonest
//! mistake of converters. So ones are written larger, `scale * n / ones`, as two neighbouring bf16 numbers in the right
//! proportion, and what is missing to the exact mean goes to a zero, far below the threshold of rounding. A reader that
//! looks for already ternary tensors finds more than three values and takes the mean, too.

use half::bf16;

use bitnet_quant::TernaryMatrix;

use crate::error::{ConvertError, Result};
use crate::stream::gather;

/// The least mean that absmean knows.
const FLOOR: f32 = 1e-5;

/// How the masters of one matrix are made.
#[derive(Debug)]
pub(crate) struct Masters {
    /// Bits of the smaller magnitude of ones.
    low: u16,
    /// Bits of the larger one.
    high: u16,
    /// Ones that get the larger magnitude, spread evenly.
    highs: u64,
    /// All ones.
    ones: u64,
    /// Bits of the magnitude that the first zeros get.
    rest: u16,
    /// Zeros that get it.
    rests: u64,
    /// Ones before each row.
    before: Vec<u64>,
}

impl Masters {
    /// Counts the ones of a matrix and decides how its masters are made.
    ///
    /// # Errors
    /// [`ConvertError::Unsupported`] if the scale is below what absmean can give.
    pub(crate) fn plan(name: &str, matrix: &TernaryMatrix, threads: usize) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let count = |range: std::ops::Range<usize>| {
            let mut trits = vec![0i8; cols];
            range
                .map(|row| {
                    matrix.decode_row(row, &mut trits).map_err(ConvertError::quant(name))?;
                    Ok(trits.iter().filter(|&&t| t != 0).count() as u64)
                })
                .collect::<Result<Vec<u64>>>()
        };
        let counts = gather(rows, matrix.data().len(), threads, &count)?.concat();
        let mut ones = 0;
        let before = counts
            .iter()
            .map(|count| {
                let before = ones;
                ones += count;
                before
            })
            .collect();
        if ones > 0 && matrix.scale() < FLOOR {
            return Err(ConvertError::Unsupported {
                target: crate::Target::SafetensorsBf16.name(),
                what: format!("tensor {name} has the scale {}, below what absmean gives", matrix.scale()),
                remedy: "write packed safetensors or GGUF",
            });
        }
        Ok(Self::solve(matrix.scale(), (rows * cols) as u64, ones, before))
    }

    /// Finds magnitudes whose sum is `scale * all`.
    fn solve(scale: f32, all: u64, ones: u64, before: Vec<u64>) -> Self {
        let mut plan = Self { low: 0, high: 0, highs: 0, ones, rest: 0, rests: 0, before };
        if ones == 0 {
            return plan;
        }
        let sum = f64::from(scale) * all as f64;
        let value = |bits: u16| f64::from(bf16::from_bits(bits).to_f32());
        // Truncated: a positive bf16 is the upper half of a positive f32.
        plan.low = ((((sum / ones as f64) as f32).to_bits()) >> 16) as u16;
        let mut missing = sum - ones as f64 * value(plan.low);
        if missing <= 0.0 && ones < all {
            // Exactly a bf16 number. Some zero must become something else, or the tensor would look ternary.
            plan.low -= 1;
            missing = sum - ones as f64 * value(plan.low);
        }
        plan.high = plan.low + 1;
        let gap = value(plan.high) - value(plan.low);
        // What is left over goes to zeros; where there are none, the nearest will do.
        let highs = if ones < all { (missing / gap).floor() } else { (missing / gap).round() };
        plan.highs = (highs.max(0.0) as u64).min(ones);
        missing -= plan.highs as f64 * gap;
        if missing <= 0.0 && plan.highs > 0 && ones < all {
            plan.highs -= 1;
            missing += gap;
        }
        if ones < all && missing > 0.0 {
            // Half the scale would round to a one.
            let least = (missing / (0.25 * f64::from(scale))).ceil().max(1.0) as u64;
            plan.rests = least.min(all - ones);
            plan.rest = bf16::from_f64(missing / plan.rests as f64).to_bits();
        }
        plan
    }

    /// Writes the masters of row `row`, whose trits are given, as little-endian bf16.
    ///
    /// # Panics
    /// If `out` does not hold two bytes a trit.
    pub(crate) fn row(&self, row: usize, trits: &[i8], out: &mut [u8]) {
        assert_eq!(out.len(), 2 * trits.len(), "two bytes a trit");
        const SIGN: u16 = 0x8000;
        let before = self.before[row];
        let mut zeros = row as u64 * trits.len() as u64 - before;
        // The ones that have the larger magnitude are those where this passes the number of ones.
        let mut dealt = if self.ones == 0 { 0 } else { before * self.highs % self.ones };
        for (out, &trit) in out.chunks_exact_mut(2).zip(trits) {
            let bits = if trit == 0 {
                zeros += 1;
                if zeros <= self.rests { self.rest } else { 0 }
            } else {
                dealt += self.highs;
                let magnitude = if dealt >= self.ones {
                    dealt -= self.ones;
                    self.high
                } else {
                    self.low
                };
                if trit < 0 { magnitude | SIGN } else { magnitude }
            };
            out.copy_from_slice(&bits.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use bitnet_core::DType;
    use bitnet_core::bytes::ByteView;
    use bitnet_quant::codec::pack_hf;
    use bitnet_quant::{RowOrder, TritCodec, absmean};

    use super::*;

    /// Masters of trits, and what absmean makes of them.
    fn back(trits: &[i8], cols: usize, scale: f32) -> (f32, Vec<i8>) {
        let rows = trits.len() / cols;
        let data = ByteView::from_vec(pack_hf(trits, rows, cols).unwrap());
        let matrix =
            TernaryMatrix::new(rows, cols, scale, TritCodec::HfPacked, RowOrder::Natural, data).unwrap();
        let plan = Masters::plan("t", &matrix, 2).unwrap();
        let mut bytes = vec![0u8; 2 * trits.len()];
        for (row, (trits, out)) in trits.chunks(cols).zip(bytes.chunks_mut(2 * cols)).enumerate() {
            plan.row(row, trits, out);
        }
        let m = absmean::measure(DType::BF16, &bytes).unwrap();
        let mut values = vec![0.0; trits.len()];
        DType::BF16.decode(&bytes, &mut values);
        (m.scale, values.iter().map(|&v| absmean::trit(v, m.inv)).collect())
    }

    fn random(count: usize, ones_of_16: u64, seed: u64) -> Vec<i8> {
        let mut s = seed;
        let next = |s: &mut u64| {
            *s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *s >> 33
        };
        (0..count)
            .map(|_| match next(&mut s) % 16 < ones_of_16 {
                true => (next(&mut s) % 2) as i8 * 2 - 1,
                false => 0,
            })
            .collect()
    }

    #[test]
    fn absmean_gives_trits_and_scale_back() {
        let single = |at: usize| (0..4096).map(|i| i8::from(i == at)).collect::<Vec<i8>>();
        let mut cases: Vec<Vec<i8>> = (1..=16).map(|ones| random(4096, ones, ones)).collect();
        cases.extend([single(0), single(4095), vec![1; 4096], vec![-1; 4096]]);
        for (i, trits) in cases.iter().enumerate() {
            for scale in [1.0, 1.171_875, 0.333_333_34, 1.5e-4, 3.1e4, 0.022_134_5] {
                let (found, back) = back(trits, 64, scale);
                assert_eq!(&back, trits, "case {i}, scale {scale}");
                let ones = trits.iter().filter(|&&t| t != 0).count();
                let tolerance = match ones {
                    4096 => 6e-7,
                    0..=200 => 5e-5,
                    _ => 2e-7,
                };
                assert!((found / scale - 1.0).abs() < tolerance, "case {i}: {scale} became {found}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_tiny_scales_are_refused() {
        let (_, trits) = back(&[0; 256], 64, 2.0);
        assert_eq!(trits, [0; 256]);
        let data = ByteView::from_vec(pack_hf(&[1; 256], 4, 64).unwrap());
        let matrix = TernaryMatrix::new(4, 64, 1e-6, TritCodec::HfPacked, RowOrder::Natural, data).unwrap();
        assert!(matches!(Masters::plan("t", &matrix, 1), Err(ConvertError::Unsupported { .. })));
    }
}
