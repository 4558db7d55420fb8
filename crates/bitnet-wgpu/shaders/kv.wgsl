// The layout of keys and values, for the kernels that write and read them. Constants of the model: HEAD_DIM, KV_HEADS.
//
// A block holds 32 positions of one layer, head after head one piece of PIECE words: keys [words of a row][32], so that
// neighbouring threads with neighbouring positions read neighbouring words; values [32][words of a row]; for int8 the
// scales of keys and values, [32] each.

const BLOCK: u32 = 32u;
#if KV_F32
const KV_WORDS: u32 = HEAD_DIM;
const PIECE: u32 = 2u * KV_WORDS * BLOCK;
#else
#if KV_INT8
const KV_WORDS: u32 = HEAD_DIM / 4u;
const PIECE: u32 = 2u * KV_WORDS * BLOCK + 2u * BLOCK;
#else
const KV_WORDS: u32 = HEAD_DIM / 2u;
const PIECE: u32 = 2u * KV_WORDS * BLOCK;
#endif
#endif
const VALUES: u32 = KV_WORDS * BLOCK;
const KEY_SCALES: u32 = 2u * VALUES;
const VALUE_SCALES: u32 = KEY_SCALES + BLOCK;

fn piece_at(block: u32, head: u32) -> u32 {
    return (block * KV_HEADS + head) * PIECE;
}
