//! Ternary weights as the kernels read them: row blocks of sixteen rows, groups of 128 columns. See `kernels/product.cuh`.

use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::args::RowBlock;

/// Rows of a row block.
pub(crate) const BLOCK_ROWS: usize = 16;
/// Rows of each of its halves.
const HALF: usize = 8;
/// Columns of a group.
pub(crate) const GROUP: usize = 128;
/// Words that a row block has in a group.
pub(crate) const TILE_WORDS: usize = BLOCK_ROWS * GROUP / 16;

/// A matrix to pack, with its name for errors.
#[derive(Debug, Clone)]
pub(crate) struct Source<'a> {
    pub(crate) name: String,
    pub(crate) matrix: &'a TernaryMatrix,
}

/// Eight rows of a row block: consecutive ones of a source.
#[derive(Debug, Clone, Copy)]
struct Half {
    source: usize,
    row: usize,
    valid: usize,
    out: usize,
}

impl Half {
    const NONE: Self = Self { source: 0, row: 0, valid: 0, out: 0 };
}

/// Which rows of which matrices stand where in a packed matrix.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    sources: Vec<Source<'a>>,
    blocks: Vec<([Half; 2], u32)>,
    cols: usize,
}

impl<'a> Plan<'a> {
    fn new(sources: Vec<Source<'a>>) -> Self {
        let cols = sources.first().map_or(0, |source| source.matrix.cols());
        Self { sources, blocks: Vec::new(), cols }
    }

    /// One matrix below the other, in order.
    pub(crate) fn natural(sources: Vec<Source<'a>>) -> Self {
        let mut plan = Self::new(sources);
        let mut out = 0;
        for source in 0..plan.sources.len() {
            plan.add_natural(source, out, 0);
            out += plan.sources[source].matrix.rows();
        }
        plan
    }

    fn add_natural(&mut self, source: usize, out: usize, kind: u32) {
        let rows = self.sources[source].matrix.rows();
        for row in (0..rows).step_by(BLOCK_ROWS) {
            let half = |row: usize| {
                let valid = rows.saturating_sub(row).min(HALF);
                if valid == 0 { Half::NONE } else { Half { source, row, valid, out: out + row } }
            };
            self.blocks.push(([half(row), half(row + HALF)], kind));
        }
    }

    /// Gate and up side by side: a row block has eight rows of each.
    pub(crate) fn gated(gate: Source<'a>, up: Source<'a>) -> Self {
        let rows = gate.matrix.rows();
        let mut plan = Self::new(vec![gate, up]);
        for row in (0..rows).step_by(HALF) {
            let half = |source| Half { source, row, valid: (rows - row).min(HALF), out: row };
            plan.blocks.push(([half(0), half(1)], 0));
        }
        plan
    }

    /// Queries and keys in pairs that are rotated together, eight in a row block; then values.
    pub(crate) fn rotary(qkv: [Source<'a>; 3], head_dim: usize) -> Self {
        let mut plan = Self::new(qkv.into());
        for source in 0..2 {
            for head in (0..plan.sources[source].matrix.rows()).step_by(head_dim) {
                for pair in (0..head_dim / 2).step_by(HALF) {
                    let valid = (head_dim / 2 - pair).min(HALF);
                    let half = |row| Half { source, row, valid, out: row };
                    let halves = [half(head + pair), half(head + head_dim / 2 + pair)];
                    plan.blocks.push((halves, source as u32));
                }
            }
        }
        plan.add_natural(2, 0, 2);
        plan
    }

    /// Row blocks.
    pub(crate) fn row_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Groups of columns.
    pub(crate) fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP)
    }

    /// Bytes of the packed matrix.
    pub(crate) fn bytes(&self) -> usize {
        self.row_blocks() * self.groups() * TILE_WORDS * 4
    }

    /// What the kernels must know of each row block.
    pub(crate) fn table(&self) -> Vec<RowBlock> {
        let entry = |(halves, kind): &([Half; 2], u32)| RowBlock {
            scale: halves.map(|half| self.sources[half.source].matrix.scale()),
            out: halves.map(|half| half.out as u32),
            valid: halves.map(|half| half.valid as u32),
            kind: *kind,
            pad: 0,
        };
        self.blocks.iter().map(entry).collect()
    }

    /// Packs row blocks `first..` to `out`, whole ones, with all threads.
    ///
    /// # Errors
    /// Damaged weights.
    pub(crate) fn pack(&self, first: usize, out: &mut [u32], threads: usize) -> Result<(), ExecError> {
        let block_words = self.groups() * TILE_WORDS;
        let count = out.len() / block_words;
        let share = count.div_ceil(threads.max(1)).max(1);
        if share >= count {
            return self.pack_blocks(first, out);
        }
        std::thread::scope(|scope| {
            let parts = out.chunks_mut(share * block_words).enumerate();
            let running: Vec<_> =
                parts.map(|(i, out)| scope.spawn(move || self.pack_blocks(first + i * share, out))).collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn pack_blocks(&self, first: usize, out: &mut [u32]) -> Result<(), ExecError> {
        let mut trits = vec![0i8; self.groups() * GROUP];
        let blocks = out.chunks_exact_mut(self.groups() * TILE_WORDS);
        for ((halves, _), out) in self.blocks[first..].iter().zip(blocks) {
            for (h, half) in halves.iter().enumerate() {
                for g in 0..half.valid {
                    let source = &self.sources[half.source];
                    let decoded = source.matrix.decode_row(half.row + g, &mut trits[..self.cols]);
                    decoded.map_err(|e| ExecError::Weights { tensor: source.name.clone(), source: e })?;
                    pack_row(&trits, h, g, out);
                }
            }
        }
        Ok(())
    }
}

/// Packs a row of whole groups as row `g` of half `h` of a row block.
fn pack_row(trits: &[i8], h: usize, g: usize, out: &mut [u32]) {
    for (group, out) in trits.as_chunks::<GROUP>().0.iter().zip(out.chunks_exact_mut(TILE_WORDS)) {
        for (piece, sixteen) in group.as_chunks::<16>().0.iter().enumerate() {
            let (t, word) = (piece / 2, piece % 2);
            let mut codes = 0;
            for (k, &trit) in sixteen.iter().enumerate() {
                codes |= u32::from((trit + 1).cast_unsigned()) << (8 * (k % 4) + 2 * (k / 4));
            }
            out[(4 * g + t) * 4 + 2 * h + word] = codes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::bytes::ByteView;
    use bitnet_quant::codec::pack_hf;
    use bitnet_quant::{RowOrder, TritCodec};

    fn matrix(rows: usize, cols: usize, seed: usize) -> TernaryMatrix {
        let trits: Vec<i8> = (0..rows * cols).map(|i| ((i * 7 + i / 3 + seed) % 3) as i8 - 1).collect();
        let bytes = ByteView::from_vec(pack_hf(&trits, rows, cols).unwrap());
        TernaryMatrix::new(rows, cols, 0.5, TritCodec::HfPacked, RowOrder::Natural, bytes).unwrap()
    }

    /// The trit of a column in row `g` of half `h` of a packed row block.
    fn trit(block: &[u32], h: usize, g: usize, col: usize) -> i8 {
        let (group, t, word, k) = (col / 128, col % 128 / 32, col % 32 / 16, col % 16);
        let word = block[group * TILE_WORDS + (4 * g + t) * 4 + 2 * h + word];
        (word >> (8 * (k % 4) + 2 * (k / 4)) & 3) as i8 - 1
    }

    #[test]
    fn every_weight_is_where_the_plan_says() {
        let (q, k, v) = (matrix(40, 200, 0), matrix(20, 200, 1), matrix(20, 200, 2));
        let source = |matrix| Source { name: String::new(), matrix };
        let plans = [
            Plan::natural(vec![source(&q), source(&k)]),
            Plan::gated(source(&k), source(&v)),
            Plan::rotary([source(&q), source(&k), source(&v)], 20),
        ];
        for plan in plans {
            let mut out = vec![0u32; plan.bytes() / 4];
            let mut other = out.clone();
            plan.pack(0, &mut out, 1).unwrap();
            plan.pack(0, &mut other, 3).unwrap();
            assert_eq!(out, other);
            let mut seen = vec![vec![false; 40]; plan.sources.len()];
            for ((halves, _), block) in plan.blocks.iter().zip(out.chunks_exact(plan.groups() * TILE_WORDS)) {
                for (h, half) in halves.iter().enumerate() {
                    for g in 0..half.valid {
                        let mut want = vec![0; 200];
                        plan.sources[half.source].matrix.decode_row(half.row + g, &mut want).unwrap();
                        let got: Vec<i8> = (0..200).map(|col| trit(block, h, g, col)).collect();
                        assert_eq!(got, want);
                        seen[half.source][half.row + g] = true;
                    }
                }
            }
            for (source, seen) in plan.sources.iter().zip(seen) {
                assert!(seen[..source.matrix.rows()].iter().all(|&seen| seen));
            }
        }
    }
}
