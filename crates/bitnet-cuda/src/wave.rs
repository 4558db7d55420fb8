//! Products of one token: how `kernels/wave.cu` shares them among blocks of threads.

use bytemuck::bytes_of;

use crate::CudaError;
use crate::args::{Product, WaveArgs};
use crate::forward::Pass;
use crate::gpu::Address;
use crate::layout::{GROUP, TILE_WORDS};

/// Columns that a thread has of a row at most.
const COLUMNS: usize = 32;
/// Bytes of static shared memory, rounded up.
const STATIC: usize = 1280;

/// A row that the product norms and quantises itself.
pub(crate) struct Row {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) len: usize,
    /// Whether no two blocks of threads of the product shall share a multiprocessor. Behind a kernel that leaves some
    /// multiprocessors empty they would, and so would those of the next products, whose blocks begin while those of the one
    /// before are still there: steps of an H200 took 850 us or 960, by what else was on its way.
    pub(crate) alone: bool,
}

/// How a product is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    /// Blocks of threads that share the row blocks.
    blocks: usize,
    /// Warps that share the columns of two row blocks.
    sets: usize,
    /// Pairs of row block and group that are in shared memory: those of whole row blocks.
    staged: usize,
    /// Bytes of shared memory.
    shared: usize,
}

/// Warps that share two row blocks, of `warps`: such that the one with most to do has least.
fn best_sets(count: usize, groups: usize, warps: usize) -> usize {
    let powers = (0..=warps.ilog2()).map(|n| 1 << n);
    powers.min_by_key(|&sets| count.div_ceil(2).div_ceil(warps / sets) * groups.div_ceil(sets)).unwrap_or(1)
}

fn shares(row_blocks: usize, groups: usize, multiprocessors: usize, warps: usize, room: usize) -> Shares {
    let mut blocks = row_blocks.min(multiprocessors);
    loop {
        let count = row_blocks.div_ceil(blocks);
        let sets = best_sets(count, groups, warps);
        let rest = groups * GROUP + count * sets * 64;
        // Each thread has two results at most.
        if rest + STATIC <= room && count * 8 <= warps * 32 || blocks == row_blocks {
            let left = room.saturating_sub(STATIC + rest);
            let staged = (left / (4 * TILE_WORDS * groups)).min(count) * groups;
            return Shares { blocks, sets, staged, shared: rest + staged * 4 * TILE_WORDS };
        }
        blocks = (2 * blocks).min(row_blocks);
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

    /// Multiplies a row that is normed and quantised on the way.
    ///
    /// # Errors
    /// If the device refuses the launch.
    pub(crate) fn wave(&mut self, row: &Row, product: Product) -> Result<(), CudaError> {
        let threads = self.wave_threads();
        let facts = self.gpu.facts();
        let (row_blocks, groups) = (product.row_blocks as usize, product.groups as usize);
        let (multiprocessors, room) = (facts.multiprocessors as usize, facts.shared_bytes as usize);
        let shares = shares(row_blocks, groups, multiprocessors, threads as usize / 32, room);
        let args = WaveArgs {
            x: row.x,
            weight: row.weight,
            len: row.len as u32,
            eps: self.spec().rms_norm_eps,
            sets: shares.sets as u32,
            staged: shares.staged as u32,
            product,
        };
        // With all the shared memory of which two blocks would fit, and what there is statically, only one fits.
        let shared = if row.alone && shares.blocks <= multiprocessors { room } else { shares.shared };
        self.launch("wave_row", [shares.blocks, 1, 1], threads, shared as u32, bytes_of(&args))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What matrices of the 2B shape get on a device with 132 multiprocessors and 8 warps a block.
    #[test]
    fn all_weights_of_the_2b_shape_lie_in_shared_memory() {
        for (row_blocks, groups) in [(240, 20), (160, 20), (864, 20), (160, 54)] {
            let shares = shares(row_blocks, groups, 132, 8, 113 << 10);
            assert_eq!(shares.staged, row_blocks.div_ceil(132) * groups, "{shares:?}");
            assert!(shares.shared <= 113 << 10 && shares.blocks == 132, "{shares:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_shared_among_more() {
        let shares = shares(14_336, 224, 132, 8, 47 << 10);
        assert!(shares.blocks > 132 && shares.shared + STATIC <= 47 << 10, "{shares:?}");
    }

    #[test]
    fn warps_are_shared_evenly() {
        assert_eq!(best_sets(2, 20, 8), 8);
        assert_eq!(best_sets(7, 20, 8), 2);
        assert_eq!(best_sets(1, 1, 4), 1);
    }
}
