// Attention for prompts: tiles of eight tokens, with the bits of attention.cu. Keys and values are f16, heads have up to 128
// elements.
//
// A block of threads has eight consecutive tokens of a text and up to four query heads of one key head; each of its four
// warps has eight of these 32 queries for itself. In each range of 256 positions a lane computes the scores of eight
// positions, 32 apart, with all of its warp's queries; after the softmax it has four elements of the head and adds up the
// values. So every number that comes from shared memory is used by eight queries. Keys and values come three pieces at a time:
// three blocks of threads fit a multiprocessor then, and while one waits two multiply.
#include "attention.cu"

#define TILE 8u                     // tokens
#define TILE_WARPS 4u
#define OWN 8u                      // queries of a warp: two tokens with four heads
#define QUERIES (TILE_WARPS * OWN)
#define TILE_BLOCKS (RANGE / KV_BLOCK)
#define TILE_PART 3u                // pieces that come together
#define TILE_HEAD 128u              // longest head

// What lies in shared memory in front of keys and values.
struct alignas(16) ManyShared {
    float q[TILE_HEAD][QUERIES];            // [element][query]
    float weights[TILE_WARPS][RANGE][OWN];  // [position][query]
};

// Keys or values on their way, and the addresses of the range's pieces.
struct ManyStage {
    PieceCopies copies;
    u8 *blocks[TILE_BLOCKS];
};

// First and last position that a token attends to, counted from the start of a range; none if `end` is not behind `first`.
struct Span {
    u32 first, end;
};

DEVICE Span span_of(const AttentionArgs &a, u32 position, u32 start) {
    u32 first = a.window != 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    u32 end = position + 1 > start ? position + 1 - start : 0;
    Span span = {first > start ? first - start : 0, end < RANGE ? end : RANGE};
    return span;
}

// Begins to bring keys or values of the pieces from `from` on, of `blocks`.
DEVICE void stage_part(const AttentionArgs &a, ManyStage &s, u8 *room, bool values, u32 from, u32 blocks) {
    if (from >= blocks) return;
    const u32 count = blocks - from < TILE_PART ? blocks - from : TILE_PART;
    expect_copies(s.copies, count * a.key_bytes);
    UNROLL_1 for (u32 b = 0; b < count; b++)
        begin_copy(s.copies, room + b * a.key_bytes, s.blocks[from + b] + (values ? a.key_bytes : 0), a.key_bytes);
}

// Adds to the scores of this lane's positions: those in the pieces `from..end`, which are there.
template <u32 from, u32 end>
DEVICE void score_part(const AttentionArgs &a, const float (*q)[QUERIES], const u8 *keys, float (&score)[TILE_BLOCKS][OWN]) {
    const u32 chunks = (a.head_dim + 7) / 8, lane = thread_x() % 32;
    UNROLL_1 for (u32 c = 0; c < chunks; c++) {
        u32 words[TILE_PART][4];
        UNROLL for (u32 b = 0; b < end - from; b++) {
            const Words4 k = load4(keys + b * a.key_bytes + (c * KV_BLOCK + lane) * 16);
            words[b][0] = k.x, words[b][1] = k.y, words[b][2] = k.z, words[b][3] = k.w;
        }
        UNROLL for (u32 i = 0; i < 8; i++) {
            const float *row = q[c * 8 + i];
            const Words4 low = load4(row), high = load4(row + 4);
            const u32 queries[OWN] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            UNROLL for (u32 b = 0; b < end - from; b++) {
                const float k = half_float((u16)(words[b][i / 2] >> (16 * (i % 2))));
                UNROLL for (u32 n = 0; n < OWN; n++)
                    score[from + b][n] = fma_(bits_float(queries[n]), k, score[from + b][n]);
            }
        }
    }
}

// Waits for pieces `from..end` of the range's keys and scores them; then the next ones, or values, take their place.
template <u32 from, u32 end>
DEVICE void score_next(const AttentionArgs &a, ManyStage &s, const float (*q)[QUERIES], u8 *room, u32 blocks, u32 &phase,
                       float (&score)[TILE_BLOCKS][OWN]) {
    if (from >= blocks) return;
    await_copies(s.copies, phase++);
    sync_block();
    score_part<from, end>(a, q, room, score);
    sync_block();
    const bool last = end >= blocks;
    stage_part(a, s, room, last, last ? 0 : end, blocks);
}

// What a softmax over a range leaves of its scores.
struct Weighed {
    float max[OWN], sum[OWN];
};

// Sums of the weights of all queries of a warp. Their chains are positions sixteen apart: a lane has one, of four queries.
DEVICE void sum_weights(const float (*weights)[OWN], float (&sums)[OWN]) {
    const u32 chain = thread_x() % 16, part = thread_x() % 32 / 16 * 4;
    float sum[4] = {};
    UNROLL for (u32 i = 0; i < RANGE / 16; i++) {
        const Words4 w = load4(weights[chain + 16 * i] + part);
        sum[0] += bits_float(w.x), sum[1] += bits_float(w.y), sum[2] += bits_float(w.z), sum[3] += bits_float(w.w);
    }
    UNROLL for (u32 n = 0; n < 4; n++) {
        const float own = fold16(sum[n]), other = shuffle_xor(own, 16);
        sums[n] = part == 0 ? own : other, sums[n + 4] = part == 0 ? other : own;
    }
}

// Turns the scores of this lane's positions into weights, by one warp, and leaves these in shared memory. What a query does
// not attend to is smaller than any number, so its weight is zero; that of a query with nothing in this range is not used.
DEVICE void weigh_queries(const AttentionArgs &a, u32 position, u32 start, float (&score)[TILE_BLOCKS][OWN],
                          float (*weights)[OWN], Weighed &w) {
    const u32 lane = thread_x() % 32;
    UNROLL for (u32 n = 0; n < OWN; n++) {
        const Span span = span_of(a, position + n / HEADS, start);
        const u32 count = span.end > span.first ? span.end - span.first : 0;
        float max = MINUS_INFINITY;
        UNROLL for (u32 b = 0; b < TILE_BLOCKS; b++) {
            float &x = score[b][n];
            x = 32 * b + lane - span.first < count ? x * a.scale : MINUS_INFINITY;
            max = larger(x, max);
        }
        max = warp_max(max);
        UNROLL for (u32 b = 0; b < TILE_BLOCKS; b++) {
            float &x = score[b][n];
            x = exp_(x - max);
        }
        w.max[n] = max;
    }
    UNROLL for (u32 b = 0; b < TILE_BLOCKS; b++) {
        u32 bits[OWN];
        UNROLL for (u32 n = 0; n < OWN; n++) bits[n] = float_bits(score[b][n]);
        const Words4 low = {bits[0], bits[1], bits[2], bits[3]}, high = {bits[4], bits[5], bits[6], bits[7]};
        Words4 *to = (Words4 *)weights[32 * b + lane];
        to[0] = low, to[1] = high;
    }
    sync_warp();
    sum_weights(weights, w.sum);
}

// Adds `count` positions of a range's values, `pitch` bytes each, times their weights: four elements of this lane.
DEVICE void add_positions(const u8 *own, u32 pitch, const float (*weights)[OWN], u32 count, float (&out)[OWN][4]) {
    UNROLL_8 for (u32 slot = 0; slot < count; slot++) {
        const u64 four = *(const u64 *)(own + slot * pitch);
        const Words4 low = load4(weights[slot]), high = load4(weights[slot] + 4);
        const u32 w[OWN] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        UNROLL for (u32 d = 0; d < 4; d++) {
            const float x = half_float((u16)(four >> (16 * d)));
            UNROLL for (u32 n = 0; n < OWN; n++) out[n][d] = fma_(bits_float(w[n]), x, out[n][d]);
        }
    }
}

DEVICE void add_part(const AttentionArgs &a, const u8 *values, const float (*weights)[OWN], u32 count, float (&out)[OWN][4]) {
    // Lanes without elements read those of the last one.
    const u32 column = 4 * (thread_x() % 32);
    const u8 *own = values + 2 * (column < a.padded_dim ? column : a.padded_dim - 4);
    // The usual head: what lies where is known.
    if (a.padded_dim == TILE_HEAD)
        add_positions(own, 2 * TILE_HEAD, weights, count, out);
    else
        add_positions(own, 2 * a.padded_dim, weights, count, out);
}

// Where a tile is in the batch.
struct Tile {
    u32 token, tokens, position, last; // first token, number of them, positions of the first and of the last
    u32 kv_head, head, heads;
    u8 *const *table;
};

DEVICE Tile tile_of(const AttentionArgs &a) {
    Tile t;
    const u32 group = a.heads / a.kv_heads, subgroups = (group + HEADS - 1) / HEADS, first = block_x() % subgroups * HEADS;
    t.kv_head = block_x() / subgroups, t.head = t.kv_head * group + first;
    t.heads = group - first < HEADS ? group - first : HEADS;
    // The last ones first: they have most positions to attend to.
    const u32 tile = grid_y() - 1 - block_y();
    t.token = a.tiles[2 * tile], t.tokens = a.tiles[2 * tile + 1];
    t.position = a.positions[t.token], t.last = t.position + t.tokens - 1;
    t.table = a.table + a.table_offsets[t.token];
    return t;
}

DEVICE void load_tile_queries(const AttentionArgs &a, const Tile &t, float (*q)[QUERIES]) {
    const u32 query = thread_x() % QUERIES, token = query / HEADS, h = query % HEADS;
    const float *row = a.q + (u64)(t.token + token) * a.q_stride + (t.head + h) * a.head_dim;
    const bool there = token < t.tokens && h < t.heads;
    if (a.head_dim == TILE_HEAD) {
        // The usual head: all of it is asked for together.
        Words4 four[TILE_HEAD / 4 / TILE_WARPS];
        UNROLL for (u32 i = 0; i < TILE_HEAD / 4 / TILE_WARPS; i++) {
            four[i] = {0, 0, 0, 0};
            if (there) four[i] = load_ahead(row + 4 * (thread_x() / QUERIES + i * TILE_WARPS));
        }
        UNROLL for (u32 i = 0; i < TILE_HEAD / 4 / TILE_WARPS; i++) {
            float (*to)[QUERIES] = q + 4 * (thread_x() / QUERIES + i * TILE_WARPS);
            to[0][query] = bits_float(four[i].x), to[1][query] = bits_float(four[i].y);
            to[2][query] = bits_float(four[i].z), to[3][query] = bits_float(four[i].w);
        }
        return;
    }
    UNROLL_8 for (u32 e = thread_x() / QUERIES; e < (a.head_dim + 7) / 8 * 8; e += threads() / QUERIES)
        q[e][query] = there && e < a.head_dim ? row[e] : 0.0f;
}

// Grid: x = key head * subgroups of four query heads, y = tiles.
KERNEL_FITTING(3, 128, attention_many, AttentionArgs) {
    SHARED ManyStage s;
    ManyShared &m = *(ManyShared *)dynamic_shared();
    u8 *room = (u8 *)dynamic_shared() + sizeof(ManyShared);
    launch_next();
    await_previous();
    const Tile t = tile_of(a);
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    const float (*q)[QUERIES] = (const float (*)[QUERIES])((const float *)m.q + warp * OWN);
    load_tile_queries(a, t, m.q);
    prepare_copies(s.copies);
    // A warp has two tokens.
    const u32 position = t.position + warp * (OWN / HEADS);
    float max[OWN], sum[OWN], out[OWN][4];
    UNROLL for (u32 n = 0; n < OWN; n++) {
        max[n] = MINUS_INFINITY, sum[n] = 0.0f;
        UNROLL for (u32 d = 0; d < 4; d++) out[n][d] = 0.0f;
    }
    const u32 first = a.window != 0 && t.position + 1 > a.window ? t.position + 1 - a.window : 0;
    u32 phase = 0;
    UNROLL_1 for (u32 start = first / RANGE * RANGE; start <= t.last; start += RANGE) {
        const u32 end = t.last + 1 - start < RANGE ? t.last + 1 - start : RANGE, blocks = (end + KV_BLOCK - 1) / KV_BLOCK;
        sync_block();
        if (thread_x() < blocks)
            s.blocks[thread_x()] = t.table[start / KV_BLOCK + thread_x()] + a.layer_offset + (u64)t.kv_head * a.piece_bytes;
        sync_block();
        float score[TILE_BLOCKS][OWN] = {}, next[OWN][4] = {};
        Weighed w;
        stage_part(a, s, room, false, 0, blocks);
        score_next<0, TILE_PART>(a, s, q, room, blocks, phase, score);
        score_next<TILE_PART, 2 * TILE_PART>(a, s, q, room, blocks, phase, score);
        score_next<2 * TILE_PART, TILE_BLOCKS>(a, s, q, room, blocks, phase, score);
        weigh_queries(a, position, start, score, m.weights[warp], w);
        UNROLL_1 for (u32 b = 0; b < blocks; b += TILE_PART) {
            await_copies(s.copies, phase++);
            sync_block();
            const u32 base = b * KV_BLOCK, rest = end - base, most = TILE_PART * KV_BLOCK;
            add_part(a, room, m.weights[warp] + base, rest < most ? rest : most, next);
            sync_block();
            stage_part(a, s, room, true, b + TILE_PART, blocks);
        }
        UNROLL for (u32 n = 0; n < OWN; n++) {
            // A token that attends to nothing in this range keeps what it has.
            const Span span = span_of(a, position + n / HEADS, start);
            if (span.end <= span.first) continue;
            const float both = larger(w.max[n], max[n]);
            const float old_factor = exp_(max[n] - both), new_factor = exp_(w.max[n] - both);
            sum[n] = fma_(w.sum[n], new_factor, sum[n] * old_factor);
            UNROLL for (u32 d = 0; d < 4; d++) out[n][d] = fma_(next[n][d], new_factor, out[n][d] * old_factor);
            max[n] = both;
        }
    }
    UNROLL for (u32 n = 0; n < OWN; n++) {
        const u32 token = warp * (OWN / HEADS) + n / HEADS, h = n % HEADS;
        if (token >= t.tokens || h >= t.heads) continue;
        float *row = a.out + (u64)(t.token + token) * a.out_stride + (t.head + h) * a.head_dim;
        const float inverse = divide(1.0f, sum[n]);
        UNROLL for (u32 d = 0; d < 4; d++) {
            if (4 * lane + d < a.head_dim) row[4 * lane + d] = out[n][d] * inverse;
        }
    }
}
