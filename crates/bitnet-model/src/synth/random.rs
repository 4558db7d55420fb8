//! Random weights as a function of seed, tensor, row and column: no state, so rows can be made in any order on any
//! thread and every file format gets the same ones.

/// Trits of one random byte: five digits to the base of three. 243 of 256 values would be uniform; the 13 others repeat
/// some, which changes no statistic that matters here.
const FIVE_TRITS: [[i8; 5]; 256] = {
    let mut table = [[0i8; 5]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte * 243 / 256;
        let mut digit = 0;
        while digit < 5 {
            table[byte][digit] = (rest % 3) as i8 - 1;
            rest /= 3;
            digit += 1;
        }
        byte += 1;
    }
    table
};

/// Finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection whose output passes for random.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Odd constant of the golden ratio, the step of SplitMix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The random numbers of one tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of tensor number `tensor`.
    pub(super) fn new(seed: u64, tensor: u64) -> Self {
        Self(mix(mix(seed ^ GOLDEN).wrapping_add(tensor.wrapping_mul(GOLDEN))))
    }

    /// The words of a row, in order.
    fn words(self, row: usize) -> impl Iterator<Item = u64> {
        let mut state = mix(self.0.wrapping_add((row as u64).wrapping_mul(GOLDEN)));
        std::iter::repeat_with(move || {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        })
    }

    /// The trits of a row, a third of them zero.
    pub(super) fn trits(self, row: usize, out: &mut [i8]) {
        for (part, word) in out.chunks_mut(40).zip(self.words(row)) {
            for (five, byte) in part.chunks_mut(5).zip(word.to_le_bytes()) {
                five.copy_from_slice(&FIVE_TRITS[usize::from(byte)][..five.len()]);
            }
        }
    }

    /// A row of roughly normal numbers of deviation 0.018, as embeddings have. They are multiples of 2^-11 below 1/16,
    /// which bf16 and f16 hold exactly.
    pub(super) fn normal(self, row: usize, out: &mut [f32]) {
        for (pair, word) in out.chunks_mut(2).zip(self.words(row)) {
            for (value, half) in pair.iter_mut().zip([word as u32, (word >> 32) as u32]) {
                let sum: u32 = half.to_le_bytes().iter().map(|b| u32::from(b & 63)).sum();
                *value = (sum as f32 - 126.0) / 2048.0;
            }
        }
    }

    /// A row of uniform numbers between -1 and 1.
    pub(super) fn uniform(self, row: usize, out: &mut [f32]) {
        for (part, word) in out.chunks_mut(8).zip(self.words(row)) {
            for (value, byte) in part.iter_mut().zip(word.to_le_bytes()) {
                *value = (f32::from(byte) - 127.5) / 127.5;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trits_are_balanced_and_rows_differ() {
        let stream = Stream::new(7, 3);
        let mut counts = [0usize; 3];
        let mut rows = Vec::new();
        for row in 0..64 {
            let mut trits = vec![9i8; 1001];
            stream.trits(row, &mut trits);
            trits.iter().for_each(|&t| counts[(t + 1) as usize] += 1);
            rows.push(trits);
        }
        let total: usize = counts.iter().sum();
        assert!(counts.iter().all(|&c| (c as f64 / total as f64 - 1.0 / 3.0).abs() < 0.02), "{counts:?}");
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 64);
        let mut other = vec![0i8; 1001];
        Stream::new(8, 3).trits(0, &mut other);
        assert!(!rows.contains(&other));
    }

    #[test]
    fn normal_numbers_are_exact_in_half_precision() {
        use bitnet_core::DType;
        let mut row = vec![0.0; 4096];
        Stream::new(1, 1).normal(5, &mut row);
        let deviation = (row.iter().map(|v| v * v).sum::<f32>() / 4096.0).sqrt();
        assert!((0.016..0.020).contains(&deviation), "{deviation}");
        for dtype in [DType::F16, DType::BF16] {
            let mut back = vec![0.0; row.len()];
            dtype.decode(&dtype.encode(&row), &mut back);
            assert_eq!(back, row);
        }
    }
}
