// What attention is asked for, and how its work is shared among blocks of threads.
#pragma once
#include "kv.cuh"

#define RANGE 256u
#define HEADS 4u
#define MAX_HEAD 256u // longest head

struct AttentionArgs {
    const float *q;           // [token][q_stride], rotated
    float *out;               // [token][out_stride]
    const u32 *positions;     // [token]
    const u32 *table_offsets; // [token]: where the table of its sequence begins
    u8 *const *table;         // addresses of blocks
    float *partials;          // [token][range][head][padded_dim + 4]: weighted values, largest score, sum of weights
    u32 *counters;            // [token][block of threads]: zeros, and zeros again behind the kernel
    const u32 *tiles;         // attention_many: first token and number of tokens of each tile
    u64 layer_offset;
    u32 q_stride, out_stride;
    u32 heads, kv_heads;
    u32 head_dim, padded_dim;
    u32 piece_bytes, key_bytes;
    u32 window;   // positions a token attends to; 0: all
    u32 slices;   // blocks of threads that share the elements of a head
    u32 ranges;   // room of `partials`
    u32 split;    // SPLIT_*: which ranges a block has
    float scale;
    u32 value_bytes; // of a piece
    u32 staged;      // blocks whose values there is room for in shared memory
    u32 pad;
};

// A block has all ranges; or one, and leaves it in the device's memory, or to its cluster. merge.cuh
#define SPLIT_NONE 0u
#define SPLIT_APART 1u
#define SPLIT_CLUSTER 2u

// How many heads a block of threads has, and what follows: for values a thread has `elements` of `group` heads, and loads
// `slots` positions while as many before them are added; of a key it asks for `ahead` vectors together.
template <u32 heads> struct Group {
    static const u32 count = heads, elements = heads == 1 ? 1 : 2, group = heads == 4 ? 2 : 1, slots = 8, ahead = 12;
};
struct One : Group<1> {};
struct Two : Group<2> {};
struct Four : Group<4> {};
// With fewer registers, so that three of these blocks fit a multiprocessor.
struct FourOfMany : Group<4> {
    static const u32 slots = 4, ahead = 8;
};

template <u32 kv_type, u32 heads> struct alignas(16) AttentionShared {
    float q[heads][MAX_HEAD];     // for int8 words of four codes; then what a cluster merges
    float weights[RANGE * heads]; // [group of heads][position][head]
    u32 codes[kv_type == KV_INT8 ? RANGE * heads : 4]; // of the weights
    float maxima[heads][RANGE / KV_BLOCK];             // of the scores of each warp
    float code_factors[heads][RANGE / KV_BLOCK];
    float range_max[heads];
    float old_factor[heads], new_factor[heads]; // of what the ranges before gave, and of this range
    alignas(8) float softmax[heads][2];         // of all ranges so far: the largest score, the sum of weights
    float query_scale[heads];
    PieceCopies copies;
    u32 last;
};

// What a block of threads has.
struct AttentionShare {
    u32 token, position, first; // first: the first position that is attended to
    u32 settled;                // positions before this one are older than this pass
    u32 kv_head, head, heads;   // its query heads
    u32 start, width;           // its elements of each head, at most 128; width is a multiple of four
    u32 from, to, ranges;       // its ranges, of those there are
    u8 *const *table;
};

template <u32 heads> DEVICE AttentionShare attention_share(const AttentionArgs &a) {
    AttentionShare s;
    const u32 group = a.heads / a.kv_heads, subgroups = (group + heads - 1) / heads, part = block_x() / a.slices;
    const u32 first_head = part % subgroups * heads;
    s.token = block_z(), s.position = a.positions[s.token];
    s.first = a.window != 0 && s.position + 1 > a.window ? s.position + 1 - a.window : 0;
    s.kv_head = part / subgroups, s.head = s.kv_head * group + first_head;
    s.heads = group - first_head < heads ? group - first_head : heads;
    s.width = ((a.head_dim + a.slices - 1) / a.slices + 3) / 4 * 4, s.start = block_x() % a.slices * s.width;
    s.ranges = s.position / RANGE + 1 - s.first / RANGE;
    s.from = a.split != SPLIT_NONE ? block_y() : 0, s.to = a.split != SPLIT_NONE ? block_y() + 1 : s.ranges;
    const u32 offset = a.table_offsets[s.token];
    s.table = a.table + offset;
    // Behind another token of its text a token does not know which positions are new.
    s.settled = s.token > 0 && a.table_offsets[s.token - 1] == offset ? 0 : s.position;
    return s;
}

// Positions of range `r` that count, from its start.
struct Positions {
    u32 start, low, high;
};

DEVICE Positions positions_of(const AttentionShare &t, u32 r) {
    Positions p;
    p.start = (t.first / RANGE + r) * RANGE;
    const u32 rest = t.position + 1 - p.start;
    p.low = t.first > p.start ? t.first - p.start : 0, p.high = rest < RANGE ? rest : RANGE;
    return p;
}

// The piece with the positions of this warp; none if no position counts.
DEVICE const u8 *piece_of(const AttentionArgs &a, const AttentionShare &t, const Positions &p) {
    const u32 block = thread_x() / KV_BLOCK;
    if (block * KV_BLOCK >= p.high || (block + 1) * KV_BLOCK <= p.low) return 0;
    return t.table[p.start / KV_BLOCK + block] + a.layer_offset + (u64)t.kv_head * a.piece_bytes;
}

// What a thread has of the values of a range: its elements of its heads; for int8 also whole numbers, of one block.
template <u32 heads> struct Values {
    float out[Group<heads>::elements][Group<heads>::group];
    i32 sums[Group<heads>::elements][Group<heads>::group];
};
