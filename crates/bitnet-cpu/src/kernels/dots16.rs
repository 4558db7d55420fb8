//! [`Dots16`]: dot products of bytes in sixteen 32-bit lanes, in the registers of an instruction set.

use super::lanes16::Lanes16;

/// Sixteen integer sums. A *tile* is 64 bytes, four for each lane; all sums are exact.
///
/// # Safety
/// As [`Lanes16`]; pointers must be valid for 64 bytes, at any alignment.
pub(crate) trait Dots16: Lanes16 {
    /// Sixteen 32-bit integers.
    type Ints: Copy;
    /// A tile of keys or values.
    type Tile: Copy;
    /// Whether sixteen accumulators of sixteen lanes fit the registers; else about four do.
    const WIDE: bool;
    /// Queries of attention that run side by side, at most: what is loaded or widened serves as many multiplications,
    /// and the accumulators, one or two for each query, stay in registers.
    const QUERIES: usize = if Self::WIDE { 8 } else { 4 };
    /// What [`Self::dot_keys`] adds to each key: 128 if it takes them as they are stored.
    const KEY_OFFSET: i32;

    /// The same number in every lane.
    unsafe fn ints(x: i32) -> Self::Ints;
    /// Keys, of which each byte is the key plus 128.
    unsafe fn load_keys(p: *const u8) -> Self::Tile;
    /// Values, signed bytes.
    unsafe fn load_values(p: *const u8) -> Self::Tile;
    /// In lane `l`: `acc + sum over b of (key[4 l + b] + KEY_OFFSET) * q[b]`, where `q` are four signed bytes in
    /// `-127..=127`, the first the lowest, and so are the keys.
    unsafe fn dot_keys(acc: Self::Ints, keys: Self::Tile, q: i32) -> Self::Ints;
    /// In lane `l`: `acc + sum over b of value[4 l + b] * w[b]`, where `w` are four unsigned bytes, the first the lowest.
    unsafe fn dot_values(acc: Self::Ints, values: Self::Tile, w: i32) -> Self::Ints;
    /// The integers as floats, rounded to nearest.
    unsafe fn floats(ints: Self::Ints) -> Self;
}

/// Plain Rust.
impl Dots16 for [f32; 16] {
    type Ints = [i32; 16];
    type Tile = [[i8; 4]; 16];
    const WIDE: bool = false;
    const KEY_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn ints(x: i32) -> [i32; 16] {
        [x; 16]
    }

    #[inline(always)]
    unsafe fn load_keys(p: *const u8) -> Self::Tile {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[[u8; 4]; 16]>().read_unaligned() }.map(|k| k.map(|k| (k ^ 0x80) as i8))
    }

    #[inline(always)]
    unsafe fn load_values(p: *const u8) -> Self::Tile {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self::Tile>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot_keys(acc: [i32; 16], keys: Self::Tile, q: i32) -> [i32; 16] {
        let q = q.to_le_bytes().map(|q| i32::from(q as i8));
        std::array::from_fn(|l| acc[l] + (0..4).map(|b| i32::from(keys[l][b]) * q[b]).sum::<i32>())
    }

    #[inline(always)]
    unsafe fn dot_values(acc: [i32; 16], values: Self::Tile, w: i32) -> [i32; 16] {
        let w = w.to_le_bytes().map(i32::from);
        std::array::from_fn(|l| acc[l] + (0..4).map(|b| i32::from(values[l][b]) * w[b]).sum::<i32>())
    }

    #[inline(always)]
    unsafe fn floats(ints: [i32; 16]) -> Self {
        ints.map(|i| i as f32)
    }
}

/// Compares an implementation with plain Rust, at the limits and in between.
///
/// # Safety
/// As [`Dots16`].
#[cfg(test)]
pub(crate) unsafe fn check<V: Dots16>() {
    let mut random = bitnet_model::conformance::Random::new(9);
    for round in 0..2000 {
        // Keys and queries stay within -127..=127; values may be anything.
        let mut byte = |lowest: i8| match round % 5 {
            0 => lowest,
            1 => 127,
            2 => [lowest, 127][random.next_u64() as usize % 2],
            _ => (random.next_u64() as i8).max(lowest),
        };
        let stored: [u8; 64] = std::array::from_fn(|_| byte(-127) as u8 ^ 0x80);
        let q = i32::from_le_bytes(std::array::from_fn(|_| byte(-127) as u8));
        let values: [i8; 64] = std::array::from_fn(|_| byte(-128));
        let w = if round < 10 { -1 } else { random.next_u64() as i32 };
        let start = random.next_u64() as i32 >> 8;
        let offset = V::KEY_OFFSET * q.to_le_bytes().iter().map(|&q| i32::from(q as i8)).sum::<i32>();
        // SAFETY: 64 bytes each; the rest is promised by the caller.
        unsafe {
            let plain = |start: i32, tile, w, dot: unsafe fn([i32; 16], _, i32) -> [i32; 16]| {
                <[f32; 16]>::floats(dot(<[f32; 16]>::ints(start), tile, w)).map(f32::to_bits)
            };
            let keys = V::dot_keys(V::ints(start - offset), V::load_keys(stored.as_ptr()), q);
            let want = plain(start, <[f32; 16]>::load_keys(stored.as_ptr()), q, <[f32; 16]>::dot_keys);
            assert_eq!(V::floats(keys).to_array().map(f32::to_bits), want, "keys, round {round}");
            let tile = V::load_values(values.as_ptr().cast());
            let weighted = V::dot_values(V::ints(start), tile, w);
            let tile = <[f32; 16]>::load_values(values.as_ptr().cast());
            let want = plain(start, tile, w, <[f32; 16]>::dot_values);
            assert_eq!(V::floats(weighted).to_array().map(f32::to_bits), want, "values, round {round}");
        }
    }
}
