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
