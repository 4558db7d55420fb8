//! Ternary weights as the kernels stream them.
//!
//! A *strip* is sixteen output rows. Along the columns it is a sequence of *groups*, of sixteen columns with two bits a
//! trit or of twenty with five trits a byte (see [`Form`]), and one group of one strip is a 64-byte *tile*:
//!
//! * byte `4 * r + b` of a tile belongs to row `r` of the strip;
//! * its digit `i` is the code `t + 1` of column `group_cols * group + 4 * i + b`.
//!
//! So the 32-bit lane `r` of a vector register belongs to one output row; taking digit `i` of all bytes gives, in each
//! lane, the codes of four consecutive columns, which one dot-product instruction multiplies with four broadcast
//! activations. No horizontal sum is ever needed, and the same bytes suit registers of 16, 32 and 64 bytes (NEON, AVX2,
//! AVX-512). A thread owns a range of strips and reads four of them side by side: on server processors four streams
//! reach a higher bandwidth than one (Emerald Rapids: 13.9 against 12.3 GB/s on one thread, with prefetches in both).
//!
//! In [`Form::FourRows`] four strips lie together, and their tiles hold four columns of 64 rows: byte `4 * r + b` of tile
//! `k` has the codes of column `4 * k + b`, digit `i` that of row `16 * i + r`.
//!
//! Rows are padded to whole strips and columns to whole groups with the code 1 (trit 0).

pub(crate) mod choice;
mod form;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::{Team, ThreadPool};
use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::shared::Shared;

pub use form::Form;
pub(crate) use form::QUAD;

/// Output rows of a strip.
pub const STRIP_ROWS: usize = 16;
/// Bytes of a tile: one group of one strip.
pub const TILE_BYTES: usize = STRIP_ROWS * QUAD;

/// One matrix inside a [`Strips`].
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its strips.
    pub strips: Range<usize>,
    /// Its weight scale.
    pub scale: f32,
}

/// One or more ternary matrices with the same columns, one after the other.
///
/// All matrices of a model share one allocation: on huge pages, many separate ones would waste much of their last page.
#[derive(Debug)]
pub struct Strips {
    arena: Arc<AlignedBuf<u32>>,
    /// First tile in the arena.
    start: usize,
    groups: usize,
    form: Form,
    parts: Vec<Part>,
}

/// Lays out matrices in one allocation and packs them.
#[derive(Debug)]
pub struct Packer<'a> {
    form: Form,
    entries: Vec<Entry<'a>>,
    tiles: usize,
}

#[derive(Debug)]
struct Entry<'a> {
    name: String,
    start: usize,
    groups: usize,
    parts: Vec<(Part, &'a TernaryMatrix)>,
}

impl<'a> Packer<'a> {
    /// Nothing yet, to be packed in `form`.
    pub fn new(form: Form) -> Self {
        Self { form, entries: Vec::new(), tiles: 0 }
    }

    /// Adds matrices with the same number of columns that become one [`Strips`]. `name` is for messages.
    pub fn add(&mut self, name: String, matrices: &[&'a TernaryMatrix]) {
        let groups = matrices.first().map_or(0, |m| m.cols().div_ceil(self.form.group_cols()));
        let mut parts = Vec::with_capacity(matrices.len());
        let mut end = 0;
        for m in matrices {
            let start = end;
            end += m.rows().div_ceil(STRIP_ROWS).next_multiple_of(self.form.block_strips());
            parts.push((Part { strips: start..end, scale: m.scale() }, *m));
        }
        self.entries.push(Entry { name, start: self.tiles, groups, parts });
        self.tiles += end * groups;
    }

    /// Packs all matrices with all threads of `pool`, one entry after the other, and gives the pages of their files
    /// back. `progress` hears how many of how many entries are done.
    ///
    /// # Errors
    /// If a matrix is damaged or the memory is not there.
    pub fn pack(
        self,
        pool: &mut ThreadPool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Strips>, ExecError> {
        let mut arena = AlignedBuf::zeroed(self.tiles * STRIP_ROWS)?;
        let (form, data) = (self.form, Shared::new(&mut arena));
        let total = self.entries.len() as u64;
        for (i, entry) in self.entries.iter().enumerate() {
            progress(i as u64, total);
            let failure = Mutex::new(None);
            pool.run(|team| {
                if let Err(source) = entry.pack_share(form, data, team) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
                }
            });
            if let Some(source) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(ExecError::Weights { tensor: entry.name.clone(), source });
            }
            for (_, m) in &entry.parts {
                m.data().release();
            }
        }
        progress(total, total);
        let arena = Arc::new(arena);
        let strips = |e: Entry<'_>| Strips {
            arena: Arc::clone(&arena),
            start: e.start,
            groups: e.groups,
            form,
            parts: e.parts.into_iter().map(|(part, _)| part).collect(),
        };
        Ok(self.entries.into_iter().map(strips).collect())
    }
}

impl Entry<'_> {
    /// Packs one thread's share of the strips of each matrix.
    fn pack_share(
        &self,
        form: Form,
        data: Shared<'_, u32>,
        team: &Team<'_>,
    ) -> Result<(), bitnet_quant::QuantError> {
        let strips = form.block_strips();
        let strip = self.groups * STRIP_ROWS;
        let mut row = vec![0i8; self.groups * form.group_cols()];
        for (part, m) in &self.parts {
            for i in team.share(part.strips.len() / strips) {
                let start = self.start * STRIP_ROWS + (part.strips.start + i * strips) * strip;
                // SAFETY: blocks are disjoint, and each is packed by one thread.
                pack_block(form, m, i, &mut row, unsafe { data.get_mut(start..start + strips * strip) })?;
            }
        }
        Ok(())
    }
}

impl Strips {
    /// Bytes of one strip.
    pub fn strip_bytes(&self) -> usize {
        self.groups * TILE_BYTES
    }

    /// Strips of all parts.
    pub fn strips(&self) -> usize {
        self.parts.last().map_or(0, |p| p.strips.end)
    }

    /// Columns, padded to whole groups: the length of an activation row.
    pub fn padded_cols(&self) -> usize {
        self.groups * self.form.group_cols()
    }

    /// How trits are kept.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The matrices.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of a range of strips.
    pub fn range(&self, strips: Range<usize>) -> &[u8] {
        let words = self.groups * STRIP_ROWS;
        let start = self.start * STRIP_ROWS;
        bytemuck::cast_slice(&self.arena[start + strips.start * words..start + strips.end * words])
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        self.strips() * self.strip_bytes()
    }
}

/// Packs the rows of block `block` of `m` into `out`, `[block_strips * groups][16]` words. `row` is scratch for one padded
/// row.
fn pack_block(
    form: Form,
    m: &TernaryMatrix,
    block: usize,
    row: &mut [i8],
    out: &mut [u32],
) -> Result<(), bitnet_quant::QuantError> {
    let (tiles, _) = out.as_chunks_mut::<STRIP_ROWS>();
    let height = STRIP_ROWS * form.block_strips();
    let (cols, rows) = (m.cols(), height.min(m.rows() - block * height));
    if rows < STRIP_ROWS || form == Form::FourRows {
        tiles.as_flattened_mut().fill(form.zero_word().to_le());
    }
    row[cols..].fill(0);
    for r in 0..rows {
        m.decode_row(block * height + r, &mut row[..cols])?;
        form.pack_row(row, r, tiles);
    }
    Ok(())
}
