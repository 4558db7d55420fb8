//! Kernel sets: the same operations in code for different instruction sets.
//!
//! A [`KernelSet`] is a value, a table of functions, chosen once at run time. `scalar` runs anywhere. Ternary products
//! are written by hand for each set, `scalar`, `x86_64::{avx2, avx512}`, `aarch64::{neon, dotprod, i8mm}`; float operations
//! are written once, in `generic`, and compiled for each instruction set.
//!
//! `BITNET_KERNELS` or [`crate::CpuOptions::kernels`] force a set, for tests and for finding faults.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
pub(crate) mod attention;
#[cfg(feature = "conformance")]
pub mod checks;
mod dots16;
pub(crate) mod generic;
pub(crate) mod int8;
mod lanes16;
pub(crate) mod prefetch;
mod rows;
pub(crate) mod scalar;
pub(crate) mod self_test;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

use bitnet_core::DType;
use bitnet_model::{Activation, KvType};

pub(crate) use generic::Quantized;
pub(crate) use rows::{ROW_BLOCK, RowLayout, TILE_COLS, TILE_ROWS};

use self::attention::{Attend, AttendScratch};

use crate::layout::{Form, QUAD, STRIP_ROWS, TILE_BYTES};

/// Strips whose codes are unpacked together for several rows.
pub(crate) const UNPACK_STRIPS: usize = 4;

/// Bytes of scratch that [`KernelSet::product`] needs for several `rows` of `padded_cols`: unpacked codes, then sums of
/// 32 bits.
pub(crate) fn code_bytes(rows: usize, padded_cols: usize) -> usize {
    let cols = padded_cols.next_multiple_of(TILE_COLS);
    UNPACK_STRIPS * STRIP_ROWS * (cols + size_of::<i32>() * rows.next_multiple_of(2 * TILE_ROWS))
}

/// A product of consecutive strips with quantised rows:
/// `out[t * stride + 16 * strip + lane] (+)= (sum_k code * q - row_sum[t]) * factor[t]`.
pub(crate) struct Product<'a> {
    /// How trits are kept in the strips.
    pub(crate) form: Form,
    /// Whole strips, one after the other.
    pub(crate) strips: &'a [u8],
    /// Bytes of a strip: `64 * groups`.
    pub(crate) strip_bytes: usize,
    /// Rows of `group_cols * groups` activations.
    pub(crate) q: &'a [i8],
    /// How they lie there, as [`KernelSet::row_layout`] says.
    pub(crate) layout: RowLayout,
    /// Sum of each row.
    pub(crate) row_sums: &'a [i32],
    /// `weight scale / activation scale` of each row.
    pub(crate) factors: &'a [f32],
    /// First output of the first row.
    pub(crate) out: *mut f32,
    /// Floats from one output row to the next.
    pub(crate) stride: usize,
    /// Whether to add to the outputs instead of setting them.
    pub(crate) accumulate: bool,
}

impl Product<'_> {
    fn rows(&self) -> usize {
        self.row_sums.len()
    }

    fn groups(&self) -> usize {
        self.strip_bytes / TILE_BYTES
    }

    /// Quads of columns, padding included.
    fn quads(&self) -> usize {
        self.groups() * self.form.digits()
    }

    /// Quads from four columns of a row to its next four, where rows do not lie in tiles.
    fn row_block(&self) -> usize {
        if self.layout == RowLayout::Single { 1 } else { ROW_BLOCK }
    }

    /// The first four columns of a row; the next four are [`Product::row_block`] quads further.
    ///
    /// # Panics
    /// If there is no such row.
    fn row_start(&self, row: usize) -> *const i8 {
        let (block, cols) = (self.row_block(), self.quads() * QUAD);
        self.q[row / block * block * cols + row % block * QUAD..].as_ptr()
    }

    fn strip_count(&self) -> usize {
        self.strips.len() / self.strip_bytes
    }

    /// Checks, once a call, what the inner loops rely on.
    fn check(&self, codes: &[u8]) {
        assert!(self.strip_bytes > 0 && self.strip_bytes.is_multiple_of(TILE_BYTES));
        assert!(self.strips.len().is_multiple_of(self.strip_bytes));
        assert_eq!(self.q.len(), self.layout.len(self.rows(), self.quads() * QUAD));
        assert_eq!(self.factors.len(), self.rows());
        assert_eq!(self.layout == RowLayout::Single, self.rows() == 1);
        assert!(self.strip_count().is_multiple_of(self.form.block_strips()));
        assert!(self.form != Form::FourRows || self.layout != RowLayout::Tiles);
        assert!(self.rows() == 1 || codes.len() >= code_bytes(self.rows(), self.quads() * QUAD));
    }

    /// Writes the sums of one strip and row.
    ///
    /// # Safety
    /// The outputs exist and belong to this thread.
    #[inline(always)]
    unsafe fn store(&self, strip: usize, row: usize, sums: &[i32; 16]) {
        // SAFETY: promised by the caller.
        let out = unsafe { &mut *self.out.add(row * self.stride + strip * 16).cast::<[f32; 16]>() };
        let (row_sum, factor) = (self.row_sums[row], self.factors[row]);
        for l in 0..16 {
            let y = (sums[l] - row_sum) as f32 * factor;
            out[l] = if self.accumulate { out[l] + y } else { y };
        }
    }
}

type ProductFn = unsafe fn(&Product<'_>, &mut [u8]);
type NormQuantizeFn = unsafe fn(&[f32], Option<&[f32]>, f32, &mut [f32], &mut [i8]) -> Quantized;
type NormFn = unsafe fn(&[f32], &[f32], f32, &mut [f32]);
type ActivateFn = unsafe fn(Activation, &mut [f32], &[f32]);
type AttendFn = unsafe fn(&Attend<'_, '_>, &mut AttendScratch, &mut [f32]);
type MergeStatesFn = unsafe fn(&mut [f32], &[f32]);
type EncodeKvFn = unsafe fn(KvType, &[f32], &mut [u8]) -> f32;
type Int8RowFn = unsafe fn(DType, &[u8], &mut [f32], &mut [i8]) -> int8::Int8Row;
type Int8HiddenFn = unsafe fn(&[f32], &mut [f32], &mut [i8]) -> int8::Hidden;
type Int8SumsFn = unsafe fn(&int8::Panel<'_>, &mut int8::Sums);
type Int8IntervalsFn =
    unsafe fn(&int8::PartSums, &int8::PanelBounds, &int8::Hidden, f32, &mut int8::Intervals) -> u32;
type DenseFn = unsafe fn(DType, &[u8], &[f32], &mut [f32]);

/// A table of kernels for one instruction set. All functions are safe to call where [`KernelSet::is_available`] is true;
/// `product` also needs outputs that exist and belong to the calling thread.
pub struct KernelSet {
    /// Its name: `scalar`, `avx2`, `avx512vnni`, `avx512vbmi`, `amx-int8`, `neon`, `neon-dotprod`, `neon-i8mm`.
    pub name: &'static str,
    /// What it asks of the processor.
    pub requires: &'static str,
    available: fn() -> bool,
    /// Whether [`Form::FiveTrits`] may be faster than [`Form::TwoBit`], so that it is worth a measurement.
    pub(crate) measure_forms: bool,
    /// Whether [`Form::FourRows`] is faster than [`Form::TwoBit`] for one row, where weights come from caches.
    pub(crate) four_rows: bool,
    /// Number of rows from which on a product reads them in [`RowLayout::Tiles`].
    pub(crate) tiles_from: usize,
    /// How the output layer reads several hidden rows, where columns allow it.
    pub(crate) hidden_layout: int8::PartLayout,
    /// Ternary product. For several rows it needs [`code_bytes`] of scratch.
    pub(crate) product: ProductFn,
    /// Norm, if there is one, and int8 quantisation of a row.
    pub(crate) norm_quantize: NormQuantizeFn,
    /// RMS norm.
    pub(crate) rms_norm: NormFn,
    /// `gate = act(gate) * up`.
    pub(crate) activate: ActivateFn,
    /// Attention of some queries of one key/value head over one range of positions.
    pub(crate) attend: AttendFn,
    /// Merges the states of two ranges.
    pub(crate) merge_states: MergeStatesFn,
    /// Encodes a row of keys or values for the cache.
    pub(crate) encode_kv: EncodeKvFn,
    /// Dot products of consecutive dense rows with one vector.
    pub(crate) dense: DenseFn,
    /// Quantises a stored row of the output layer to int8, with bounds of the error.
    pub(crate) int8_row: Int8RowFn,
    /// Quantises a hidden row for the int8 output layer.
    pub(crate) int8_hidden: Int8HiddenFn,
    /// Exact sums of a panel of int8 rows with the parts of some hidden rows.
    pub(crate) int8_sums: Int8SumsFn,
    /// Intervals of a panel's logits from these sums.
    pub(crate) int8_intervals: Int8IntervalsFn,
}

impl KernelSet {
    /// Whether this processor can run it.
    pub fn is_available(&self) -> bool {
        (self.available)()
    }

    /// How a product reads so many rows, where weights are not in [`Form::FourRows`].
    pub(crate) fn row_layout(&self, rows: usize) -> RowLayout {
        match rows {
            1 => RowLayout::Single,
            _ if rows >= self.tiles_from => RowLayout::Tiles,
            _ => RowLayout::Quads,
        }
    }

    /// How a product with weights in `form` reads so many rows.
    pub(crate) fn row_layout_of(&self, form: Form, rows: usize) -> RowLayout {
        match self.row_layout(rows) {
            RowLayout::Tiles if form == Form::FourRows => RowLayout::Quads,
            layout => layout,
        }
    }
}

impl std::fmt::Debug for KernelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KernelSet({})", self.name)
    }
}

/// All sets of this architecture, the fastest first.
pub(crate) static ALL: &[KernelSet] = &[
    #[cfg(target_arch = "x86_64")]
    x86_64::AMX,
    #[cfg(target_arch = "x86_64")]
    x86_64::AVX512_VBMI,
    #[cfg(target_arch = "x86_64")]
    x86_64::AVX512,
    #[cfg(target_arch = "x86_64")]
    x86_64::AVX2,
    #[cfg(target_arch = "aarch64")]
    aarch64::I8MM,
    #[cfg(target_arch = "aarch64")]
    aarch64::DOTPROD,
    #[cfg(target_arch = "aarch64")]
    aarch64::NEON,
    scalar::SCALAR,
];

/// A kernel set, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSetInfo {
    /// Name, as `--kernels` takes it.
    pub name: &'static str,
    /// Whether this processor can run it.
    pub available: bool,
    /// What it asks of the processor.
    pub requires: &'static str,
}

/// The kernel sets of this architecture, the fastest first. The first available one is the default.
pub fn kernel_sets() -> Vec<KernelSetInfo> {
    ALL.iter()
        .map(|k| KernelSetInfo { name: k.name, available: k.is_available(), requires: k.requires })
        .collect()
}

/// The set of that name, or the fastest available one.
///
/// # Errors
/// A sentence that says which sets there are, if `name` is unknown or not available.
pub(crate) fn choose(name: Option<&str>) -> Result<&'static KernelSet, String> {
    let Some(name) = name.filter(|n| !n.eq_ignore_ascii_case("auto")) else {
        return Ok(ALL.iter().find(|k| k.is_available()).unwrap_or(&ALL[ALL.len() - 1]));
    };
    let found = ALL.iter().find(|k| k.name.eq_ignore_ascii_case(name));
    match found {
        Some(set) if set.is_available() => Ok(set),
        Some(set) => Err(format!("kernel set {name} needs {}, which this processor lacks", set.requires)),
        None => {
            let names: Vec<&str> = ALL.iter().map(|k| k.name).collect();
            Err(format!("there is no kernel set {name:?}; choose one of auto, {}", names.join(", ")))
        }
    }
}
