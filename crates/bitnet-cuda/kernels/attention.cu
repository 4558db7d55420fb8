// Attention over the paged cache, with the oracle's order of operations.
//
// Positions come in ranges of 256 with a softmax of their own. A block of threads has up to four query heads of one key
// head and one token: a thread computes the scores of one position of the range, as chains of fused multiply-adds over
// the head in ascending order; then a thread has two elements of the head and adds up the values of the range in
// ascending order of positions. Ranges are merged in order: by the block itself, one range after the other (`split` 0),
// or, where tokens are few, by the last of the blocks that have a range each. How the work is shared changes no bit.
//
// Keys and values of the range are asked for, into the second cache, while the kernel before still runs.
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
    u32 split;
    float scale;
    u32 value_bytes; // of a piece
    u32 staged;      // blocks whose values there is room for in shared memory
    u32 pad;
};

struct alignas(16) AttentionShared {
    float q[MAX_HEAD][HEADS];     // [element][head]; for int8 [word of four codes][head]
    float weights[HEADS][RANGE + 4]; // scores, then weights; for int8 whole numbers. Four more against conflicts
    float factors[HEADS][8];      // int8: of the weights of 32 positions
    float max[HEADS], sum[HEADS]; // of the range
    float query_scale[HEADS];
    u8 *blocks[RANGE / KV_BLOCK]; // addresses of the pieces of the range
    PieceCopies copies;
    u32 last;
};

// What a block of threads has.
struct AttentionShare {
    u32 token, position, first; // first: the first position that is attended to
    u32 kv_head, head, heads;   // its query heads
    u32 start, width;           // its elements of each head, at most 128; width is even
    u32 from, to, ranges;       // its ranges, of those there are
    u8 *const *table;
};

DEVICE AttentionShare attention_share(const AttentionArgs &a) {
    AttentionShare s;
    const u32 group = a.heads / a.kv_heads, subgroups = (group + HEADS - 1) / HEADS, part = block_x() / a.slices;
    const u32 first_head = part % subgroups * HEADS;
    s.token = block_z(), s.position = a.positions[s.token];
    s.first = a.window != 0 && s.position + 1 > a.window ? s.position + 1 - a.window : 0;
    s.kv_head = part / subgroups, s.head = s.kv_head * group + first_head;
    s.heads = group - first_head < HEADS ? group - first_head : HEADS;
    s.width = ((a.head_dim + a.slices - 1) / a.slices + 1) / 2 * 2, s.start = block_x() % a.slices * s.width;
    s.ranges = s.position / RANGE + 1 - s.first / RANGE;
    s.from = a.split ? block_y() : 0, s.to = a.split ? block_y() + 1 : s.ranges;
    s.table = a.table + a.table_offsets[s.token];
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

// Addresses of the range's pieces.
DEVICE void find_pieces(const AttentionArgs &a, const AttentionShare &t, AttentionShared &s, const Positions &p) {
    const u32 i = thread_x();
    if (i < RANGE / KV_BLOCK && i * KV_BLOCK < p.high)
        s.blocks[i] = t.table[p.start / KV_BLOCK + i] + a.layer_offset + (u64)t.kv_head * a.piece_bytes;
}

// Asks for the range's pieces, lines of 128 bytes.
DEVICE void ask_for_pieces(const AttentionArgs &a, const AttentionShared &s, const Positions &p) {
    const u32 lines = (a.piece_bytes + 127) / 128, end = (p.high + KV_BLOCK - 1) / KV_BLOCK * lines;
    for (u32 i = p.low / KV_BLOCK * lines + thread_x(); i < end; i += threads())
        prefetch(s.blocks[i / lines] + i % lines * 128);
}

// Queries of the block's heads into shared memory.
template <u32 kv_type> DEVICE void load_queries(const AttentionArgs &a, AttentionShared &s, const float *q, u32 heads) {
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    if (kv_type != KV_INT8) {
        for (u32 e = thread_x(); e < a.padded_dim; e += threads()) {
            UNROLL for (u32 h = 0; h < HEADS; h++)
                s.q[e][h] = h < heads && e < a.head_dim ? q[h * a.head_dim + e] : 0.0f;
        }
        return;
    }
    if (warp < HEADS) {
        const float *row = q + (warp < heads ? warp : 0) * a.head_dim;
        float amax = 0.0f, scale, inverse;
        for (u32 e = lane; e < a.head_dim; e += 32) amax = larger(magnitude(row[e]), amax);
        quantising_scales(warp_max(amax), 127.0f, scale, inverse);
        for (u32 i = lane; i < a.padded_dim / 4; i += 32) {
            u32 word = 0;
            UNROLL for (u32 b = 0; b < 4; b++) {
                u32 e = 4 * i + b;
                if (e < a.head_dim) word |= (float_bits(clamp(row[e] * inverse, -127.0f, 127.0f) + MAGIC) & 0xff) << (8 * b);
            }
            s.q[i][warp] = bits_float(word);
        }
        if (lane == 0) s.query_scale[warp] = scale;
    }
}

// The factor of an element of a key, and a query's element times it; for int8 whole numbers, four at a time.
template <u32 kv_type> DEVICE float key_element(const u32 (&words)[4], u32 i) {
    if (kv_type != KV_F16) return bits_float(words[i]);
    return half_float((u16)(words[i / 2] >> (16 * (i % 2))));
}

template <u32 kv_type> DEVICE float add_element(u32 query, float key, float score) {
    if (kv_type == KV_INT8) return bits_float((u32)dot4(query, float_bits(key), (i32)float_bits(score)));
    return fma_(bits_float(query), key, score);
}

// Adds to the scores of `heads` queries from `first` on what pieces `c..` of a key give, `count` or fewer, which are asked
// for together. `q` are the queries of all heads, a row of HEADS for each element (int8: for each word).
template <u32 kv_type, u32 heads, u32 count, bool whole>
DEVICE void add_chunks(const float (*q)[HEADS], const u8 *key, u32 c, u32 chunks, u32 first, float (&score)[heads]) {
    const u32 each = kv_type == KV_F16 ? 8 : 4;
    Words4 k[count];
    UNROLL for (u32 n = 0; n < count; n++) k[n] = load4(key + (whole || c + n < chunks ? c + n : c) * KV_BLOCK * 16);
    UNROLL for (u32 n = 0; n < count; n++) {
        if (!whole && c + n >= chunks) break;
        const u32 words[4] = {k[n].x, k[n].y, k[n].z, k[n].w};
        UNROLL for (u32 i = 0; i < each; i++) {
            const float *row = q[(c + n) * each + i], element = key_element<kv_type>(words, i);
            if (heads == HEADS) {
                const Words4 four = load4(row);
                const u32 queries[HEADS] = {four.x, four.y, four.z, four.w};
                UNROLL for (u32 h = 0; h < heads; h++) score[h] = add_element<kv_type>(queries[h], element, score[h]);
            } else {
                score[0] = add_element<kv_type>(float_bits(row[first]), element, score[0]);
            }
        }
    }
}

// Scores of a position with `heads` queries from `first` on, into s.weights.
template <u32 kv_type, u32 heads>
DEVICE void score_position(const AttentionArgs &a, AttentionShared &s, u32 index, u32 first, const Positions &p) {
    float score[heads] = {};
    if (index >= p.low && index < p.high) {
        const u32 vector = KvFormat<kv_type>::vector, chunks = (a.head_dim + vector - 1) / vector;
        const u8 *piece = s.blocks[index / KV_BLOCK], *key = piece + index % KV_BLOCK * 16;
        // A thread with a single query waits for memory alone, so it asks for more at once.
        const u32 count = heads == 1 ? 16 : 8;
        u32 c = 0;
        UNROLL_1 for (; c + count <= chunks; c += count) add_chunks<kv_type, heads, count, true>(s.q, key, c, chunks, first, score);
        UNROLL_1 for (; c < chunks; c += 4) add_chunks<kv_type, heads, 4, false>(s.q, key, c, chunks, first, score);
        UNROLL for (u32 h = 0; h < heads; h++) {
            if (kv_type == KV_INT8) {
                const float *scales = (const float *)(piece + a.key_bytes + KV_BLOCK * a.padded_dim);
                float factor = s.query_scale[first + h] * a.scale;
                score[h] = (float)(i32)float_bits(score[h]) * (factor * scales[index % KV_BLOCK]);
            } else {
                score[h] = score[h] * a.scale;
            }
        }
    }
    UNROLL for (u32 h = 0; h < heads; h++) s.weights[first + h][index] = score[h];
}

// Scores of all positions of the range: a thread has a position, or where these are few, one of them with one query.
template <u32 kv_type> DEVICE void score_range(const AttentionArgs &a, AttentionShared &s, const Positions &p) {
    if (p.high <= RANGE / HEADS)
        score_position<kv_type, 1>(a, s, thread_x() % (RANGE / HEADS), thread_x() / (RANGE / HEADS), p);
    else
        score_position<kv_type, HEADS>(a, s, thread_x(), 0, p);
}

// Weights of one head from its scores, by one warp. The range's positions lie in the first `blocks` blocks.
template <u32 kv_type, u32 blocks> DEVICE void weigh_head(const AttentionArgs &a, AttentionShared &s, u32 h, const Positions &p) {
    const u32 lane = thread_x() % 32;
    float max = MINUS_INFINITY, score[blocks];
    UNROLL for (u32 n = 0; n < blocks; n++) score[n] = s.weights[h][lane + 32 * n];
    UNROLL for (u32 n = 0; n < blocks; n++) {
        const u32 i = lane + 32 * n;
        if (i >= p.low && i < p.high) max = larger(score[n], max);
    }
    max = warp_max(max);
    UNROLL for (u32 n = 0; n < blocks; n++) {
        const u32 i = lane + 32 * n;
        float weight = 0.0f;
        if (i >= p.low && i < p.high) weight = exp_(score[n] - max);
        s.weights[h][i] = weight;
    }
    sync_warp();
    // Weights behind the last position are zero and change no sum.
    float sum = 0.0f;
    UNROLL for (u32 i = 0; i < 2 * blocks; i++) sum += s.weights[h][lane % 16 + 16 * i];
    sum = fold16(sum);
    if (lane == 0) s.max[h] = max, s.sum[h] = sum;
    if (kv_type == KV_INT8) {
        sync_warp();
        UNROLL_1 for (u32 b = 0; b < blocks; b++) {
            const u32 i = b * KV_BLOCK + lane;
            float scaled = 0.0f, factor, inverse;
            if (i >= p.low && i < p.high) {
                const float *scales = (const float *)(s.blocks[b] + a.key_bytes + KV_BLOCK * a.padded_dim);
                scaled = s.weights[h][i] * scales[KV_BLOCK + lane];
            }
            quantising_scales(warp_max(scaled), 255.0f, factor, inverse);
            u32 code = float_bits(clamp(scaled * inverse, 0.0f, 255.0f) + MAGIC) & 0xff;
            s.weights[h][i] = bits_float(code);
            if (lane == 0) s.factors[h][b] = factor;
        }
    }
}

// Starts to bring the values of blocks `from..` of the range, as many as there is room for.
DEVICE void stage_values(const AttentionArgs &a, AttentionShared &s, u32 from, u32 end) {
    const u32 blocks = (end + KV_BLOCK - 1) / KV_BLOCK - from, count = blocks < a.staged ? blocks : a.staged;
    expect_copies(s.copies, count * a.value_bytes);
    UNROLL_1 for (u32 b = 0; b < count; b++)
        begin_copy(s.copies, (u8 *)dynamic_shared() + b * a.value_bytes, s.blocks[from + b] + a.key_bytes, a.value_bytes);
}

// Two elements of a value; for int8 whole numbers.
template <u32 kv_type> DEVICE void load_pair(const u8 *values, u32 index, float (&v)[2]) {
    if (kv_type == KV_F16) {
        const u32 two = *(const u32 *)(values + 2 * index);
        v[0] = half_float((u16)two), v[1] = half_float((u16)(two >> 16));
    } else if (kv_type == KV_INT8) {
        const u32 two = *(const u16 *)(values + index);
        v[0] = bits_float((u32)(i32)(i8)two), v[1] = bits_float((u32)(i32)(i8)(two >> 8));
    } else {
        v[0] = ((const float *)values)[index], v[1] = ((const float *)values)[index + 1];
    }
}

#define SLOTS 8u // positions whose values are asked for together

// Adds the values of positions `slot..` of a block, `SLOTS` or up to `end`, times their weights.
template <u32 kv_type, bool whole>
DEVICE void add_slots(const u8 *values, u32 pitch, const float *weights, u32 slot, u32 end, float (&out)[2], i32 (&sums)[2]) {
    const Words4 low = load4(weights + slot), high = load4(weights + slot + 4);
    const u32 w[SLOTS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float v[SLOTS][2];
    UNROLL for (u32 n = 0; n < SLOTS; n++) load_pair<kv_type>(values, (slot + n) * pitch, v[n]);
    UNROLL for (u32 n = 0; n < SLOTS; n++) {
        if (!whole && slot + n >= end) break;
        UNROLL for (u32 d = 0; d < 2; d++) {
            if (kv_type == KV_INT8)
                sums[d] += (i32)w[n] * (i32)float_bits(v[n][d]);
            else
                out[d] = fma_(bits_float(w[n]), v[n][d], out[d]);
        }
    }
}

// Adds the staged values from block `from` on times their weights to `out`: elements `e` and `e + 1` of head `h`.
template <u32 kv_type>
DEVICE void add_values(const AttentionArgs &a, const AttentionShared &s, u32 e, u32 h, u32 from, u32 end, float (&out)[2]) {
    UNROLL_1 for (u32 b = from; b < from + a.staged && b * KV_BLOCK < end; b++) {
        const u8 *values = (const u8 *)dynamic_shared() + (b - from) * a.value_bytes + e * KvFormat<kv_type>::bytes;
        const float *weights = s.weights[h] + b * KV_BLOCK;
        const u32 rest = end - b * KV_BLOCK, slots = rest < KV_BLOCK ? rest : KV_BLOCK;
        i32 sums[2] = {};
        if (slots == KV_BLOCK) {
            UNROLL for (u32 slot = 0; slot < KV_BLOCK; slot += SLOTS)
                add_slots<kv_type, true>(values, a.padded_dim, weights, slot, slots, out, sums);
        } else {
            UNROLL_1 for (u32 slot = 0; slot < slots; slot += SLOTS)
                add_slots<kv_type, false>(values, a.padded_dim, weights, slot, slots, out, sums);
        }
        if constexpr (kv_type == KV_INT8) {
            UNROLL for (u32 d = 0; d < 2; d++) out[d] = fma_((float)sums[d], s.factors[h][b], out[d]);
        }
    }
}

// The softmax of the ranges so far, and two elements of the values weighed with it.
struct State {
    float max, sum, out[2];
};

DEVICE void merge(State &state, float max, float sum, float first, float second) {
    const float both = larger(max, state.max);
    const float old_factor = exp_(state.max - both), new_factor = exp_(max - both);
    state.sum = fma_(sum, new_factor, state.sum * old_factor);
    state.out[0] = fma_(first, new_factor, state.out[0] * old_factor);
    state.out[1] = fma_(second, new_factor, state.out[1] * old_factor);
    state.max = both;
}

DEVICE const State nothing() {
    State state = {MINUS_INFINITY, 0.0f, {0.0f, 0.0f}};
    return state;
}

// Merges what the blocks of all ranges left in `partials`. Called, as it is long.
CALLED State merge_ranges(const AttentionArgs &a, const float *partials, u32 ranges, u32 e) {
    State state = nothing();
    const u64 row = a.padded_dim + 4;
    for (u32 r = 0; r < ranges; r += 8) {
        // Asked for together: others wrote them, so they come from the second cache.
        float maxima[8], sums[8], values[8][2];
        UNROLL for (u32 j = 0; j < 8; j++) {
            u32 range = r + j < ranges ? r + j : ranges - 1;
            const volatile float *partial = partials + range * a.heads * row;
            maxima[j] = partial[a.padded_dim], sums[j] = partial[a.padded_dim + 1];
            values[j][0] = partial[e], values[j][1] = partial[e + 1];
        }
        UNROLL for (u32 j = 0; j < 8; j++) {
            if (r + j < ranges) merge(state, maxima[j], sums[j], values[j][0], values[j][1]);
        }
    }
    return state;
}

DEVICE void store_pair(const AttentionArgs &a, const AttentionShare &t, u32 h, u32 e, const State &state) {
    float *out = a.out + (u64)t.token * a.out_stride + (t.head + h) * a.head_dim + e;
    const float inverse = divide(1.0f, state.sum);
    out[0] = state.out[0] * inverse, out[1] = state.out[1] * inverse;
}

template <u32 kv_type> DEVICE void attend(const AttentionArgs &a, const AttentionShare &t, AttentionShared &s) {
    const u32 column = thread_x() / HEADS * 2, h = thread_x() % HEADS, e = t.start + column;
    const bool own = column < t.width && e < a.head_dim;
    State state = nothing();
    u32 phase = 0;
    UNROLL_1 for (u32 r = t.from; r < t.to; r++) {
        const Positions p = positions_of(t, r);
        if (r != t.from) {
            sync_block();
            find_pieces(a, t, s, p);
        }
        sync_block();
        stage_values(a, s, p.low / KV_BLOCK, p.high);
        score_range<kv_type>(a, s, p);
        sync_block();
        // Only now: what the next kernel asks for would stand before these keys.
        launch_next();
        if (thread_x() / 32 < HEADS) {
            if (p.high <= 2 * KV_BLOCK)
                weigh_head<kv_type, 2>(a, s, thread_x() / 32, p);
            else
                weigh_head<kv_type, RANGE / KV_BLOCK>(a, s, thread_x() / 32, p);
        }
        float next[2] = {};
        UNROLL_1 for (u32 b = p.low / KV_BLOCK; b * KV_BLOCK < p.high; b += a.staged) {
            if (b != p.low / KV_BLOCK) {
                sync_block();
                stage_values(a, s, b, p.high);
            }
            await_copies(s.copies, phase++);
            sync_block();
            if (own) add_values<kv_type>(a, s, e, h, b, p.high, next);
        }
        merge(state, s.max[h], s.sum[h], next[0], next[1]);
    }
    const bool alone = t.ranges == 1 || !a.split, wanted = own && h < t.heads;
    if (alone) {
        if (wanted) store_pair(a, t, h, e, state);
        return;
    }
    float *partials = a.partials + ((u64)t.token * a.ranges * a.heads + t.head + h) * (a.padded_dim + 4);
    if (wanted) {
        float *partial = partials + (u64)t.from * a.heads * (a.padded_dim + 4);
        partial[e] = state.out[0], partial[e + 1] = state.out[1];
        // Each slice has columns of its own and begins with one that writes these.
        if (column == 0) partial[a.padded_dim] = state.max, partial[a.padded_dim + 1] = state.sum;
    }
    fence_device();
    sync_block();
    u32 *counter = a.counters + t.token * grid_x() + block_x();
    if (thread_x() == 0) s.last = atomic_add(counter, 1) == t.ranges - 1;
    sync_block();
    if (!s.last) return;
    fence_device();
    if (wanted) store_pair(a, t, h, e, merge_ranges(a, partials, t.ranges, e));
    if (thread_x() == 0) *counter = 0;
}

// Grid: x = ((key head * subgroups of four query heads) * slices), y = ranges where they are split, z = tokens.
template <u32 kv_type> DEVICE void attention(const AttentionArgs &a) {
    SHARED AttentionShared s;
    const AttentionShare t = attention_share(a);
    prepare_copies(s.copies);
    if (t.from < t.to && t.from < t.ranges) {
        const Positions p = positions_of(t, t.from);
        find_pieces(a, t, s, p);
        sync_block();
        ask_for_pieces(a, s, p);
    }
    await_previous();
    if (t.from >= t.ranges) return;
    load_queries<kv_type>(a, s, a.q + (u64)t.token * a.q_stride + t.head * a.head_dim, t.heads);
    attend<kv_type>(a, t, s);
}

KERNEL(256, attention_f32, AttentionArgs) { attention<KV_F32>(a); }
KERNEL(256, attention_f16, AttentionArgs) { attention<KV_F16>(a); }
KERNEL(256, attention_int8, AttentionArgs) { attention<KV_INT8>(a); }
