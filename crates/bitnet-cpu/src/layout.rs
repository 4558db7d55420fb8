//! Ternary weights as the kernels stream them.
//!
//! A *strip* is sixteen output rows. Along the columns it is a sequence of *groups* of sixteen, and one group of one
//! strip is a 64-byte *tile*, 2 bits a weight:
//!
//! * byte `4 * r + b` of a tile belongs to row `r` of the strip;
//! * its bits `2i+1..2i` hold the code `t + 1` of column `16 * group + 4 * i + b`.
//!
//! So the 32-bit lane `r` of a vector register belongs to one output row; masking two bits gives, in each lane, the
//! codes of four consecutive columns, which one dot-product instruction multiplies with four broadcast activations.
//! No horizontal sum is ever needed, the same bytes suit registers of 16, 32 and 64 bytes (NEON, AVX2, AVX-512), and a
//! thread that owns a range of strips reads memory in one sequential stream.
//!
//! Rows are padded to whole strips and columns to whole groups with the code 1 (trit 0).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::{Team, ThreadPool};
use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::shared::Shared;

/// Output rows of a strip.
pub const STRIP_ROWS: usize = 16;
/// Columns of a group.
pub const GROUP_COLS: usize = 16;
/// Bytes of a tile: one group of one strip.
pub const TILE_BYTES: usize = STRIP_ROWS * GROUP_COLS / 4;

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
    arena: Arc<AlignedBuf<u8>>,
    start: usize,
    groups: usize,
    parts: Vec<Part>,
}

/// Lays out matrices in one allocation and packs them.
#[derive(Debug, Default)]
pub struct Packer<'a> {
    entries: Vec<Entry<'a>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<'a> {
    name: String,
    start: usize,
    groups: usize,
    parts: Vec<(Part, &'a TernaryMatrix)>,
}

impl<'a> Packer<'a> {
    /// Adds matrices with the same number of columns that become one [`Strips`]. `name` is for messages.
    pub fn add(&mut self, name: String, matrices: &[&'a TernaryMatrix]) {
        let groups = matrices.first().map_or(0, |m| m.cols().div_ceil(GROUP_COLS));
        let mut parts = Vec::with_capacity(matrices.len());
        let mut end = 0;
        for m in matrices {
            let start = end;
            end += m.rows().div_ceil(STRIP_ROWS);
            parts.push((Part { strips: start..end, scale: m.scale() }, *m));
        }
        self.entries.push(Entry { name, start: self.bytes, groups, parts });
        self.bytes += end * groups * TILE_BYTES;
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
        let mut arena = AlignedBuf::zeroed(self.bytes)?;
        let data = Shared::new(&mut arena);
        let total = self.entries.len() as u64;
        for (i, entry) in self.entries.iter().enumerate() {
            progress(i as u64, total);
            let failure = Mutex::new(None);
            pool.run(|team| {
                if let Err(source) = entry.pack_share(data, team) {
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
            parts: e.parts.into_iter().map(|(part, _)| part).collect(),
        };
        Ok(self.entries.into_iter().map(strips).collect())
    }
}

impl Entry<'_> {
    /// Packs one thread's share of the strips of each matrix.
    fn pack_share(&self, data: Shared<'_, u8>, team: &Team<'_>) -> Result<(), bitnet_quant::QuantError> {
        let bytes = self.groups * TILE_BYTES;
        for (part, m) in &self.parts {
            for i in team.share(part.strips.len()) {
                let start = self.start + (part.strips.start + i) * bytes;
                // SAFETY: strips are disjoint, and each is packed by one thread.
                pack_strip(m, i, unsafe { data.get_mut(start..start + bytes) })?;
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
        self.groups * GROUP_COLS
    }

    /// The matrices.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of a range of strips.
    pub fn range(&self, strips: Range<usize>) -> &[u8] {
        let bytes = self.strip_bytes();
        &self.arena[self.start + strips.start * bytes..self.start + strips.end * bytes]
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        self.strips() * self.strip_bytes()
    }
}

/// Packs rows `16 * strip ..` of `m` into `out`, `[groups][64]` bytes.
fn pack_strip(m: &TernaryMatrix, strip: usize, out: &mut [u8]) -> Result<(), bitnet_quant::QuantError> {
    const ZERO_TRITS: u8 = 0b01_01_01_01;
    let cols = m.cols();
    let mut row = vec![0i8; cols.next_multiple_of(GROUP_COLS)];
    out.fill(ZERO_TRITS);
    for r in 0..STRIP_ROWS.min(m.rows() - strip * STRIP_ROWS) {
        m.decode_row(strip * STRIP_ROWS + r, &mut row[..cols])?;
        let (groups, _) = row.as_chunks::<GROUP_COLS>();
        for (tile, group) in out.chunks_exact_mut(TILE_BYTES).zip(groups) {
            let mut word = [0u8; 4];
            for b in 0..4 {
                let code = |i: usize| (group[4 * i + b] + 1) as u8;
                word[b] = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
            }
            tile[4 * r..4 * r + 4].copy_from_slice(&word);
        }
    }
    Ok(())
}
