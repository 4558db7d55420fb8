//! Products of several tokens: how `kernels/gemm.cu` shares them among blocks of threads.

use bytemuck::bytes_of;

use crate::CudaError;
use crate::args::GemmArgs;
use crate::forward::Pass;
use crate::layout::BLOCK_ROWS;

/// Most tokens of a tile: rows of activations have room for whole tiles.
pub(crate) const TILE_TOKENS: usize = 64;
/// Tokens of the smallest tile.
pub(crate) const LEAST_TILE: usize = 16;
/// Threads of a block.
const THREADS: usize = 256;
/// Bytes of weights in a stage.
const STAGE_WEIGHTS: usize = 8 << 10;
/// Stages.
const DEPTH: usize = 3;

/// A kernel and the tile that each of its blocks of threads has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    rows: usize,
    tokens: usize,
}

/// From the one that moves and computes least for a result to the one that is there soonest.
const TILES: [Tile; 4] = [
    Tile { kernel: "gemm_128x64", rows: 128, tokens: 64 },
    Tile { kernel: "gemm_128x32", rows: 128, tokens: 32 },
    Tile { kernel: "gemm_64x32", rows: 64, tokens: 32 },
    Tile { kernel: "gemm_64x16", rows: 64, tokens: LEAST_TILE },
];

impl Tile {
    /// Blocks of threads: shares of the rows, and of the tokens.
    fn grid(self, row_blocks: usize, tokens: usize) -> [usize; 2] {
        [(row_blocks * BLOCK_ROWS).div_ceil(self.rows), tokens.div_ceil(self.tokens)]
    }

    /// Bytes of shared memory: stages, in whose place come sums that warps exchange.
    fn shared(self) -> usize {
        // A warp has 32 rows; the others of a block share the columns.
        let sets = THREADS / self.rows;
        let stages = DEPTH * (sets * self.tokens * 128 + STAGE_WEIGHTS);
        stages.max(THREADS / 32 * self.tokens / 8 * 1024)
    }
}

/// The largest tile of which there are enough for all multiprocessors: on an H200 it is faster from one and a half for each of
/// them on.
fn choose(row_blocks: usize, tokens: usize, multiprocessors: usize) -> Tile {
    let [first, second, few, fewest] = TILES;
    let enough =
        |tile: &Tile| 2 * tile.grid(row_blocks, tokens).iter().product::<usize>() >= 3 * multiprocessors;
    let large = [first, second].into_iter().find(enough);
    large.unwrap_or(if tokens > fewest.tokens { few } else { fewest })
}

impl Pass<'_> {
    /// Multiplies rows that are quantised.
    ///
    /// # Errors
    /// If the device refuses the launch.
    pub(crate) fn gemm(&mut self, args: &GemmArgs) -> Result<(), CudaError> {
        let (row_blocks, tokens) = (args.product.row_blocks as usize, args.tokens as usize);
        let facts = self.gpu.facts();
        if !facts.tensor_cores {
            // A warp for each group of columns, up to eight.
            let threads = 32 * args.product.groups.min(8);
            return self.launch("gemm_dot", [row_blocks, tokens.div_ceil(8), 1], threads, 0, bytes_of(args));
        }
        let tile = choose(row_blocks, tokens, facts.multiprocessors as usize);
        let [x, y] = tile.grid(row_blocks, tokens);
        self.launch(tile.kernel, [x, y, 1], THREADS as u32, tile.shared() as u32, bytes_of(args))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row blocks of q, k, v, of o and down, and of gate and up in the 2B shape, on 132 multiprocessors.
    #[test]
    fn tiles_of_the_2b_shape() {
        let kernels = |tokens| [240, 160, 864].map(|row_blocks| choose(row_blocks, tokens, 132).kernel);
        assert_eq!(kernels(9), ["gemm_64x16"; 3]);
        assert_eq!(kernels(32), ["gemm_64x32"; 3]);
        assert_eq!(kernels(64), ["gemm_64x32", "gemm_64x32", "gemm_128x32"]);
        assert_eq!(kernels(512), ["gemm_128x64", "gemm_128x32", "gemm_128x64"]);
        assert_eq!(kernels(2048), ["gemm_128x64"; 3]);
    }

    #[test]
    fn two_tiles_fit_a_multiprocessor() {
        for tile in TILES {
            assert!(tile.shared() <= 80 << 10 && TILE_TOKENS.is_multiple_of(tile.tokens), "{tile:?}");
        }
    }
}
