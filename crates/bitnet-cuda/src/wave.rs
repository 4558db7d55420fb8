//! Products of one token, or on devices with tensor cores of up to [`WAVE_TOKENS`]: how `kernels/wave.cu` shares them among
//! blocks of threads.

use bytemuck::bytes_of;

use crate::CudaError;
use crate::args::{Product, WaveArgs};
use crate::forward::Pass;
use crate::gpu::Address;
use crate::layout::{GROUP, TILE_WORDS};

/// Most tokens of one product: the columns of a tensor core's factor.
pub(crate) const WAVE_TOKENS: usize = 8;
/// Columns that a thread has of a row at most.
const COLUMNS: usize = 32;
/// Bytes of static shared memory, rounded up.
const STATIC: usize = 1280;

/// A row that the product norms and quantises itself.
pub(crate) struct Row {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) len: usize,
}

/// How a product is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    /// Blocks of threads that share the row blocks.
    blocks: usize,
    /// Most tokens of a block of threads.
    tokens: usize,
    /// Warps that share the columns of a row block.
    sets: usize,
    /// Pairs of row block and group that are in shared memory: those of whole row blocks.
    staged: usize,
    /// Bytes of shared memory.
    shared: usize,
}

/// What a product has.
#[derive(Debug, Clone, Copy)]
struct Problem {
    row_blocks: usize,
    groups: usize,
    tokens: usize,
    /// Whether a row is normed on the way.
    fused: bool,
}

/// Warps that share a row block, of `warps`: such that the one with most to do has least.
fn best_sets(count: usize, groups: usize, warps: usize) -> usize {
    let powers = (0..=warps.ilog2()).map(|n| 1 << n);
    powers.min_by_key(|&sets| count.div_ceil(warps / sets) * groups.div_ceil(sets)).unwrap_or(1)
}

fn shares(problem: Problem, multiprocessors: usize, warps: usize, room: usize) -> Shares {
    let Problem { row_blocks, groups, tokens, fused } = problem;
    let mut blocks = row_blocks.min(multiprocessors);
    let mut share = tokens;
    loop {
        let count = row_blocks.div_ceil(blocks);
        // Of a row that is normed on the way each thread has two results at most.
        let few = !fused || count * 8 <= warps * 32;
        let sets = best_sets(count, groups, warps);
        let rest = share * groups * GROUP + count * sets * share * 64;
        let left = room.saturating_sub(STATIC + rest);
        let staged = (left / (4 * TILE_WORDS * groups)).min(count) * groups;
        let fits = rest + STATIC <= room && few && (staged > 0 || share == 1);
        if fits || (share == 1 && blocks == row_blocks) {
            return Shares { blocks, tokens: share, sets, staged, shared: rest + staged * 4 * TILE_WORDS };
        }
        if share > 1 {
            share = share.div_ceil(2);
        } else {
            blocks = (2 * blocks).min(row_blocks);
        }
    }
}

impl Pass<'_> {
    /// Whether a row of `len` numbers fits the registers of a block of threads.
    pub(crate) fn row_fits_wave(&self, len: usize) -> bool {
        len <= COLUMNS * self.wave_threads() as usize
    }

    fn wave_threads(&self) -> u32 {
        self.gpu.facts().row_threads
    }

    /// Multiplies a row that is normed and quantised on the way, or if there is none the quantised rows of all tokens.
    ///
    /// # Errors
    /// If the device refuses the launch.
    pub(crate) fn wave(&mut self, row: Option<&Row>, product: Product) -> Result<(), CudaError> {
        let threads = self.wave_threads();
        let facts = self.gpu.facts();
        let problem = Problem {
            row_blocks: product.row_blocks as usize,
            groups: product.groups as usize,
            tokens: self.sizes.rows,
            fused: row.is_some(),
        };
        let shares = shares(
            problem,
            facts.multiprocessors as usize,
            threads as usize / 32,
            facts.shared_bytes as usize,
        );
        let places = self.scratch.places;
        let args = WaveArgs {
            x: row.map_or(0, |row| row.x),
            weight: row.map_or(0, |row| row.weight),
            q: self.scratch.at(places.q8),
            scales: self.scratch.at(places.scales),
            sums: self.scratch.at(places.sums),
            tokens: self.sizes.rows as u32,
            len: row.map_or(0, |row| row.len as u32),
            eps: self.spec().rms_norm_eps,
            share: shares.tokens as u32,
            sets: shares.sets as u32,
            staged: shares.staged as u32,
            product,
        };
        let kernel = if row.is_some() { "wave_row" } else { "wave_rows" };
        let grid = [shares.blocks, self.sizes.rows.div_ceil(shares.tokens), 1];
        self.launch(kernel, grid, threads, shares.shared as u32, bytes_of(&args))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What matrices of the 2B shape get on a device with 132 multiprocessors and 8 warps a block.
    #[test]
    fn all_weights_of_the_2b_shape_lie_in_shared_memory() {
        for (row_blocks, groups) in [(240, 20), (160, 20), (864, 20), (160, 54)] {
            let problem = Problem { row_blocks, groups, tokens: 1, fused: true };
            let shares = shares(problem, 132, 8, 113 << 10);
            assert_eq!(shares.staged, row_blocks.div_ceil(132) * groups, "{shares:?}");
            assert!(shares.shared <= 113 << 10 && shares.blocks == 132, "{shares:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_shared_among_more() {
        let problem = Problem { row_blocks: 1792, groups: 224, tokens: 8, fused: false };
        let shares = shares(problem, 132, 8, 47 << 10);
        assert!(shares.tokens == 1 && shares.shared + STATIC <= 47 << 10, "{shares:?}");
    }

    #[test]
    fn warps_are_shared_evenly() {
        assert_eq!(best_sets(2, 20, 16), 8);
        assert_eq!(best_sets(7, 20, 16), 2);
        assert_eq!(best_sets(1, 1, 4), 1);
    }
}
