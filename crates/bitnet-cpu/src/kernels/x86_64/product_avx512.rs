//! Ternary products by `vpdpbusd`, sixteen rows a register.
//!
//! **One row** (decoding) is limited by memory. Four strips run side by side, so that the processor follows four streams,
//! and digits are taken out of a tile with as little work as possible: what a digit counts times its code is multiplied
//! as it is (two bits in place count 1, 4, 16 or 64 times the code, at most 128, a valid unsigned byte), each digit has
//! its own sums, and these are divided at the end, exactly.
//!
//! **Several rows** (prefill, batches) are limited by the multiplier. A section of the columns of four strips is unpacked
//! at a time, and multiplied with blocks of six rows: 24 registers of sums, ten loads for 24 products; sums are kept in
//! memory between sections. In an isolated loop this reaches 97 % of the peak of `vpdpbusd` (Emerald Rapids, 315 of
//! 322 GMAC/s; two strips times twelve rows 94 %). With many rows sections of 1280 columns were 12 % faster than whole
//! strips, whose codes press on the L2 cache, and than small ones, which load and store sums more often. With few rows
//! codes are used so seldom that they should not leave L1. Up to eight rows of two-bit weights need no memory for codes at
//! all: eight rows times two strips leave registers for them, and decoding eight sequences together was 1.5 times as
//! fast as with codes in memory (with five trits a byte slower).
//!
//! A table look-up instead of products (`vpermw` over the 27 sums of three activations) reaches 147 GMAC/s in an isolated
//! loop, less than half: Intel cores have one port that permutes and two that multiply.

use std::arch::x86_64::*;

use super::four_rows_avx512::product_of_four_rows;
use super::{CODES_OF_MULTIPLES, INVERSE_3, INVERSE_9, INVERSE_27, INVERSE_81};
use crate::kernels::{Product, ROW_BLOCK, UNPACK_STRIPS};
use crate::layout::{Form, TILE_BYTES};

/// Rows of two-bit weights up to which codes are not kept in memory.
const DIRECT_ROWS: usize = 8;
/// Rows that are few.
const FEW_ROWS: usize = 24;
/// Quads of columns in a section for few rows: 20 KiB of codes for four strips.
const FEW_ROWS_QUADS: usize = 80;
/// Quads of columns in a section for many rows: 80 KiB of codes for four strips.
const MANY_ROWS_QUADS: usize = 320;

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    // SAFETY: promised by the caller.
    unsafe {
        match p.form {
            Form::TwoBit => product_of::<TwoBit>(p, codes),
            Form::FiveTrits => product_of::<FiveTrits>(p, codes),
            Form::FourRows => product_of_four_rows(p, codes),
        }
    }
}

/// Ternary product, with VBMI.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx2,fma")]
pub(super) unsafe fn product_vbmi(p: &Product<'_>, codes: &mut [u8]) {
    // SAFETY: promised by the caller.
    unsafe {
        match p.form {
            Form::TwoBit => product_of::<TwoBit>(p, codes),
            Form::FiveTrits => product_of::<FiveTritsVbmi>(p, codes),
            Form::FourRows => product_of_four_rows(p, codes),
        }
    }
}

/// How a form is taken apart in registers. Methods are inlined into functions that have the target features.
///
/// # Safety
/// The processor has AVX-512 F, BW, VNNI, and VBMI for [`FiveTritsVbmi`].
pub(super) trait Digits: Copy {
    /// Digits of a byte.
    const COUNT: usize;
    /// Rows up to which codes are not kept in memory at all.
    const DIRECT_ROWS: usize;
    /// Sums that each strip needs with one row.
    type Sums: Copy;

    unsafe fn new() -> Self;
    unsafe fn zero() -> Self::Sums;
    /// Adds the products of one tile with `COUNT` quads of the row.
    unsafe fn add(self, sums: &mut Self::Sums, tile: __m512i, quads: *const i32);
    /// The sums of all digits.
    unsafe fn total(sums: Self::Sums) -> __m512i;
    /// The codes of each digit, the first `COUNT` of them.
    unsafe fn codes(self, tile: __m512i) -> [__m512i; 5];
}

#[inline(always)]
pub(super) unsafe fn quad(p: *const i32) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { _mm512_set1_epi32(p.read_unaligned()) }
}

/// Two bits a trit.
#[derive(Clone, Copy)]
pub(super) struct TwoBit {
    masks: [__m512i; 4],
}

impl Digits for TwoBit {
    const COUNT: usize = 4;
    const DIRECT_ROWS: usize = DIRECT_ROWS;
    type Sums = [__m512i; 4];

    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: see the trait.
        unsafe {
            let mask = |m: u8| _mm512_set1_epi8(m.cast_signed());
            Self { masks: [mask(3), mask(12), mask(48), mask(192)] }
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see the trait.
        unsafe { [_mm512_setzero_si512(); 4] }
    }

    #[inline(always)]
    unsafe fn add(self, sums: &mut Self::Sums, tile: __m512i, quads: *const i32) {
        for i in 0..4 {
            // SAFETY: see the trait; there are four quads.
            unsafe {
                let code = _mm512_and_si512(tile, self.masks[i]);
                sums[i] = _mm512_dpbusd_epi32(sums[i], code, quad(quads.add(i)));
            }
        }
    }

    #[inline(always)]
    unsafe fn total(s: Self::Sums) -> __m512i {
        // SAFETY: see the trait.
        unsafe {
            let low = _mm512_add_epi32(s[0], _mm512_srai_epi32::<2>(s[1]));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(s[2]), _mm512_srai_epi32::<6>(s[3]));
            _mm512_add_epi32(low, high)
        }
    }

    #[inline(always)]
    unsafe fn codes(self, tile: __m512i) -> [__m512i; 5] {
        let mask = self.masks[0];
        // SAFETY: see the trait.
        unsafe {
            [
                _mm512_and_si512(tile, mask),
                _mm512_and_si512(_mm512_srli_epi16::<2>(tile), mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(tile), mask),
                _mm512_and_si512(_mm512_srli_epi16::<6>(tile), mask),
                mask,
            ]
        }
    }
}

/// Five trits a byte with the instructions of AVX-512 BW: the largest digit is found by comparing, as the minimum of
/// the byte and the byte less one or two times 81 (what goes below 0 wraps round to something larger), and so on down.
#[derive(Clone, Copy)]
struct FiveTrits;

impl FiveTrits {
    /// `[t0, 3 t1, 9 t2, 27 t3, 81 t4]`.
    #[inline(always)]
    unsafe fn parts(tile: __m512i) -> [__m512i; 5] {
        // SAFETY: see the trait.
        unsafe {
            let mut rest = tile;
            let mut parts = [tile; 5];
            for (i, unit) in [(4, 81u8), (3, 27), (2, 9), (1, 3)] {
                let once = _mm512_sub_epi8(rest, _mm512_set1_epi8(unit as i8));
                let twice = _mm512_sub_epi8(rest, _mm512_set1_epi8((2 * unit) as i8));
                let less = _mm512_min_epu8(_mm512_min_epu8(rest, once), twice);
                parts[i] = _mm512_sub_epi8(rest, less);
                rest = less;
            }
            parts[0] = rest;
            parts
        }
    }
}

impl Digits for FiveTrits {
    const COUNT: usize = 5;
    // Unpacking takes too many registers beside the sums.
    const DIRECT_ROWS: usize = 1;
    type Sums = [__m512i; 5];

    #[inline(always)]
    unsafe fn new() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see the trait.
        unsafe { [_mm512_setzero_si512(); 5] }
    }

    #[inline(always)]
    unsafe fn add(self, sums: &mut Self::Sums, tile: __m512i, quads: *const i32) {
        // SAFETY: see the trait; there are five quads.
        unsafe {
            let parts = Self::parts(tile);
            for i in 0..5 {
                sums[i] = _mm512_dpbusd_epi32(sums[i], parts[i], quad(quads.add(i)));
            }
        }
    }

    #[inline(always)]
    unsafe fn total(s: Self::Sums) -> __m512i {
        // SAFETY: see the trait.
        unsafe {
            let mut sum = s[0];
            for (s, inverse) in s[1..].iter().zip([INVERSE_3, INVERSE_9, INVERSE_27, INVERSE_81]) {
                sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(*s, _mm512_set1_epi32(inverse)));
            }
            sum
        }
    }

    #[inline(always)]
    unsafe fn codes(self, tile: __m512i) -> [__m512i; 5] {
        // SAFETY: see the trait.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(CODES_OF_MULTIPLES.as_ptr().cast()));
            let mut codes = Self::parts(tile);
            for i in 1..4 {
                codes[i] = _mm512_shuffle_epi8(table, codes[i]);
            }
            // 81 and 162 end in the bits 01 and 10.
            codes[4] = _mm512_and_si512(codes[4], _mm512_set1_epi8(3));
            codes
        }
    }
}

/// Five trits a byte with VBMI: what is left after the largest digit is looked up in a table of 81 bytes that hold the
/// other four as bit pairs.
#[derive(Clone, Copy)]
pub(super) struct FiveTritsVbmi {
    pairs: TwoBit,
    table: [__m512i; 2],
}

impl FiveTritsVbmi {
    /// The table: bit pairs of the lower four digits.
    const PAIRS: [u8; 128] = {
        let mut table = [0; 128];
        let mut i = 0;
        while i < 81 {
            table[i] = ((i % 3) | ((i / 3 % 3) << 2) | ((i / 9 % 3) << 4) | ((i / 27) << 6)) as u8;
            i += 1;
        }
        table
    };

    /// The lower four digits as bit pairs, and 81 times the highest.
    #[inline(always)]
    unsafe fn split(self, tile: __m512i) -> (__m512i, __m512i) {
        // SAFETY: see the trait.
        unsafe {
            let once = _mm512_sub_epi8(tile, _mm512_set1_epi8(81));
            let twice = _mm512_sub_epi8(tile, _mm512_set1_epi8(162u8 as i8));
            let rest = _mm512_min_epu8(_mm512_min_epu8(tile, once), twice);
            let pairs = _mm512_permutex2var_epi8(self.table[0], rest, self.table[1]);
            (pairs, _mm512_sub_epi8(tile, rest))
        }
    }
}

impl Digits for FiveTritsVbmi {
    const COUNT: usize = 5;
    // Unpacking takes too many registers beside the sums.
    const DIRECT_ROWS: usize = 1;
    type Sums = ([__m512i; 4], __m512i);

    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: see the trait; the table has two registers.
        unsafe {
            let half = |i: usize| _mm512_loadu_si512(Self::PAIRS.as_ptr().add(64 * i).cast());
            Self { pairs: TwoBit::new(), table: [half(0), half(1)] }
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see the trait.
        unsafe { (TwoBit::zero(), _mm512_setzero_si512()) }
    }

    #[inline(always)]
    unsafe fn add(self, sums: &mut Self::Sums, tile: __m512i, quads: *const i32) {
        // SAFETY: see the trait; there are five quads.
        unsafe {
            let (pairs, high) = self.split(tile);
            self.pairs.add(&mut sums.0, pairs, quads);
            sums.1 = _mm512_dpbusd_epi32(sums.1, high, quad(quads.add(4)));
        }
    }

    #[inline(always)]
    unsafe fn total(s: Self::Sums) -> __m512i {
        // SAFETY: see the trait.
        unsafe {
            let high = _mm512_mullo_epi32(s.1, _mm512_set1_epi32(INVERSE_81));
            _mm512_add_epi32(TwoBit::total(s.0), high)
        }
    }

    #[inline(always)]
    unsafe fn codes(self, tile: __m512i) -> [__m512i; 5] {
        // SAFETY: see the trait.
        unsafe {
            let (pairs, high) = self.split(tile);
            let mut codes = self.pairs.codes(pairs);
            // 81 and 162 end in the bits 01 and 10.
            codes[4] = _mm512_and_si512(high, self.pairs.masks[0]);
            codes
        }
    }
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn product_of<D: Digits>(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    let strips = p.strip_count();
    let mut strip = 0;
    // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
    unsafe {
        let digits = D::new();
        while strip < strips {
            if (2..=D::DIRECT_ROWS).contains(&p.rows()) && strips - strip >= 2 {
                direct::<D, 2>(p, digits, strip);
                strip += 2;
                continue;
            }
            let together = if strips - strip >= UNPACK_STRIPS { UNPACK_STRIPS } else { 1 };
            match (p.rows(), together) {
                (1, 1) => one_row::<D, 1>(p, digits, strip),
                (1, _) => one_row::<D, UNPACK_STRIPS>(p, digits, strip),
                (_, 1) => several_rows::<D, 1>(p, digits, strip, codes),
                _ => several_rows::<D, UNPACK_STRIPS>(p, digits, strip, codes),
            }
            strip += together;
        }
    }
}

/// `S` strips with the only row.
///
/// # Safety
/// The strips are inside `p`, whose outputs exist and belong to this thread.
#[inline(always)]
unsafe fn one_row<D: Digits, const S: usize>(p: &Product<'_>, digits: D, strip: usize) {
    // SAFETY: pointers stay inside the strips and the activation row; outputs are promised by the caller.
    unsafe {
        let mut sums = [D::zero(); S];
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        let q = p.q.as_ptr().cast::<i32>();
        for g in 0..p.groups() {
            for s in 0..S {
                let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                // The same tile of the strips that come next; past the end a prefetch does nothing.
                _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(S * p.strip_bytes).cast());
                digits.add(&mut sums[s], _mm512_loadu_si512(tile.cast()), q.add(D::COUNT * g));
            }
        }
        for s in 0..S {
            store(p, strip + s, 0, D::total(sums[s]));
        }
    }
}

/// `S` strips with `M` rows, all there are: codes go from registers into the products.
///
/// # Safety
/// As [`one_row`].
#[inline(always)]
unsafe fn direct_rows<D: Digits, const S: usize, const M: usize>(p: &Product<'_>, digits: D, strip: usize) {
    // Rows beyond the first block begin in the second.
    let first = p.row_start(0).cast::<i32>();
    let second = p.row_start((M - 1) / ROW_BLOCK * ROW_BLOCK).cast::<i32>();
    // SAFETY: pointers stay inside the strips and the blocks of rows; outputs are promised by the caller.
    unsafe {
        let mut acc = [[_mm512_setzero_si512(); S]; M];
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        for g in 0..p.groups() {
            let mut codes = [[_mm512_setzero_si512(); 5]; S];
            for s in 0..S {
                let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(2 * S * p.strip_bytes).cast());
                codes[s] = digits.codes(_mm512_loadu_si512(tile.cast()));
            }
            for i in 0..D::COUNT {
                let at = (D::COUNT * g + i) * ROW_BLOCK;
                for m in 0..M {
                    let block = if m < ROW_BLOCK { first } else { second };
                    let a = quad(block.add(at + m % ROW_BLOCK));
                    for s in 0..S {
                        acc[m][s] = _mm512_dpbusd_epi32(acc[m][s], codes[s][i], a);
                    }
                }
            }
        }
        for m in 0..M {
            for s in 0..S {
                store(p, strip + s, m, acc[m][s]);
            }
        }
    }
}

/// [`direct_rows`] for the number of rows there are.
///
/// # Safety
/// As [`one_row`]; there are two to [`DIRECT_ROWS`] rows.
#[inline(always)]
unsafe fn direct<D: Digits, const S: usize>(p: &Product<'_>, digits: D, strip: usize) {
    // SAFETY: promised by the caller.
    unsafe {
        match p.rows() {
            2 => direct_rows::<D, S, 2>(p, digits, strip),
            3 => direct_rows::<D, S, 3>(p, digits, strip),
            4 => direct_rows::<D, S, 4>(p, digits, strip),
            5 => direct_rows::<D, S, 5>(p, digits, strip),
            6 => direct_rows::<D, S, 6>(p, digits, strip),
            7 => direct_rows::<D, S, 7>(p, digits, strip),
            _ => direct_rows::<D, S, DIRECT_ROWS>(p, digits, strip),
        }
    }
}

/// `S` strips with all rows, of which there are several.
///
/// # Safety
/// As [`one_row`]; `codes` has room as [`crate::kernels::code_bytes`] says.
#[inline(always)]
unsafe fn several_rows<D: Digits, const S: usize>(
    p: &Product<'_>,
    digits: D,
    strip: usize,
    codes: &mut [u8],
) {
    let step = section_quads(p) / D::COUNT;
    let (codes, sums) = codes.split_at_mut(UNPACK_STRIPS * TILE_BYTES * p.quads());
    let mut start = 0;
    while start < p.groups() {
        let end = p.groups().min(start + step);
        let section = Section {
            codes: codes.as_ptr(),
            quads: start * D::COUNT..end * D::COUNT,
            last: end == p.groups(),
            sums: sums.as_mut_ptr().cast(),
        };
        // SAFETY: promised by the caller; `codes` is `[quads][S][64]`.
        unsafe {
            let base = p.strips.as_ptr().add(strip * p.strip_bytes);
            for g in start..end {
                for s in 0..S {
                    let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                    _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(S * p.strip_bytes).cast());
                    let unpacked = digits.codes(_mm512_loadu_si512(tile.cast()));
                    for (i, code) in unpacked.iter().take(D::COUNT).enumerate() {
                        let at = ((D::COUNT * (g - start) + i) * S + s) * TILE_BYTES;
                        _mm512_storeu_si512(codes.as_mut_ptr().add(at).cast(), *code);
                    }
                }
            }
            multiply_section::<S>(p, &section, strip);
        }
        start = end;
    }
}

/// Quads of columns in a section.
pub(super) fn section_quads(p: &Product<'_>) -> usize {
    if p.rows() <= FEW_ROWS { FEW_ROWS_QUADS } else { MANY_ROWS_QUADS }
}

/// Some columns of a few strips, unpacked.
pub(super) struct Section {
    /// `[quads][S][64]` codes.
    pub(super) codes: *const u8,
    pub(super) quads: std::ops::Range<usize>,
    /// Whether these are the last columns.
    pub(super) last: bool,
    /// `[rows][S][16]` sums of earlier columns, where there are some.
    pub(super) sums: *mut i32,
}

/// A section of `S` strips with all rows.
///
/// # Safety
/// As [`several_rows`].
#[inline(always)]
pub(super) unsafe fn multiply_section<const S: usize>(p: &Product<'_>, section: &Section, strip: usize) {
    let mut row = 0;
    while row < p.rows() {
        // SAFETY: promised by the caller.
        unsafe {
            match p.rows() - row {
                1 => row_block::<S, 1>(p, section, strip, row),
                2 => row_block::<S, 2>(p, section, strip, row),
                3 => row_block::<S, 3>(p, section, strip, row),
                4 => row_block::<S, 4>(p, section, strip, row),
                5 => row_block::<S, 5>(p, section, strip, row),
                _ => row_block::<S, ROW_BLOCK>(p, section, strip, row),
            }
        }
        row += ROW_BLOCK;
    }
}

/// `S` strips of codes with `M` rows from `row` on, which is the first of a block.
///
/// # Safety
/// As [`several_rows`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn row_block<const S: usize, const M: usize>(
    p: &Product<'_>,
    section: &Section,
    strip: usize,
    row: usize,
) {
    let sums = section.sums.wrapping_add(row * S * 16);
    let mut acc = [[_mm512_setzero_si512(); S]; M];
    let mut code = section.codes;
    let mut q = p.row_start(row).cast::<i32>().wrapping_add(section.quads.start * ROW_BLOCK);
    // SAFETY: pointers stay inside the codes, the block of rows and its sums; outputs are promised by the caller.
    unsafe {
        if section.quads.start > 0 {
            for m in 0..M {
                for s in 0..S {
                    acc[m][s] = _mm512_loadu_si512(sums.add((m * S + s) * 16).cast());
                }
            }
        }
        for _ in section.quads.clone() {
            let mut v = [_mm512_setzero_si512(); S];
            for s in 0..S {
                v[s] = _mm512_loadu_si512(code.add(s * TILE_BYTES).cast());
            }
            for m in 0..M {
                let a = quad(q.add(m));
                for s in 0..S {
                    acc[m][s] = _mm512_dpbusd_epi32(acc[m][s], v[s], a);
                }
            }
            code = code.add(S * TILE_BYTES);
            q = q.wrapping_add(ROW_BLOCK);
        }
        for m in 0..M {
            for s in 0..S {
                if section.last {
                    store(p, strip + s, row + m, acc[m][s]);
                } else {
                    _mm512_storeu_si512(sums.add((m * S + s) * 16).cast(), acc[m][s]);
                }
            }
        }
    }
}

/// Scales the sums of one strip and row and writes them.
///
/// # Safety
/// The outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) unsafe fn store(p: &Product<'_>, strip: usize, row: usize, sums: __m512i) {
    let exact = _mm512_sub_epi32(sums, _mm512_set1_epi32(p.row_sums[row]));
    let mut y = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(p.factors[row]));
    // SAFETY: promised by the caller.
    unsafe {
        let out = p.out.add(row * p.stride + strip * 16);
        if p.accumulate {
            y = _mm512_add_ps(_mm512_loadu_ps(out), y);
        }
        _mm512_storeu_ps(out, y);
    }
}
