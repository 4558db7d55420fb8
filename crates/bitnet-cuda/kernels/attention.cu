// Attention over the paged cache, with the oracle's order of operations.
//
// Positions come in ranges of 256 with a softmax of their own. A block of threads has up to four query heads of one key
// head and one token: a thread computes the scores of one position of the range, as chains of fused multiply-adds over
// the head in ascending order; then a thread has one element of the head and adds up the values of the range in
// ascending order of positions. Ranges are merged in order: by the block itself, one range after the other (`split` 0),
// or, where tokens are few, by the last of the blocks that have a range each. How the work is shared changes no bit.
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

struct AttentionShared {
    float q[HEADS][MAX_HEAD];     // queries; for int8 their codes, four in a word
    float weights[RANGE * HEADS]; // [position][head]: scores, then weights; for int8 whole numbers
    float factors[HEADS][8];      // int8: of the weights of 32 positions
    float max[HEADS], sum[HEADS]; // of the range
    float query_scale[HEADS];
    u8 *blocks[RANGE / KV_BLOCK]; // addresses of the pieces of the range
    float reduce[32];
    u32 last;
};

// Queries of the block's heads into shared memory.
template <u32 kv_type> DEVICE void load_queries(const AttentionArgs &a, AttentionShared &s, const float *q, u32 heads) {
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    if (kv_type != KV_INT8) {
        for (u32 i = thread_x(); i < HEADS * a.padded_dim; i += threads()) {
            u32 h = i / a.padded_dim, e = i % a.padded_dim;
            s.q[h][e] = h < heads && e < a.head_dim ? q[h * a.head_dim + e] : 0.0f;
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
            s.q[warp][i] = bits_float(word);
        }
        if (lane == 0) s.query_scale[warp] = scale;
    }
}

// Sixteen bytes of a key times the queries.
template <u32 kv_type> DEVICE void add_chunk(const AttentionShared &s, u32 chunk, const Words4 &k, float (&score)[HEADS]) {
    const u32 words[4] = {k.x, k.y, k.z, k.w};
    UNROLL for (u32 i = 0; i < 4; i++) {
        UNROLL for (u32 h = 0; h < HEADS; h++) {
            if (kv_type == KV_F32) {
                score[h] = fma_(s.q[h][chunk * 4 + i], bits_float(words[i]), score[h]);
            } else if (kv_type == KV_F16) {
                const float *q = &s.q[h][chunk * 8 + 2 * i];
                score[h] = fma_(q[0], half_float((u16)words[i]), score[h]);
                score[h] = fma_(q[1], half_float((u16)(words[i] >> 16)), score[h]);
            } else {
                i32 sum = dot4(float_bits(s.q[h][chunk * 4 + i]), words[i], (i32)float_bits(score[h]));
                score[h] = bits_float((u32)sum);
            }
        }
    }
}

// Scores of the position of this thread, if it is in `first..end`, into s.weights.
template <u32 kv_type>
DEVICE void score_position(const AttentionArgs &a, AttentionShared &s, u32 index, u32 first, u32 end) {
    float score[HEADS] = {};
    if (index >= first && index < end) {
        const u8 *piece = s.blocks[index / KV_BLOCK];
        const u32 chunks = (a.head_dim + KvFormat<kv_type>::vector - 1) / KvFormat<kv_type>::vector;
        UNROLL_8 for (u32 c = 0; c < chunks; c++) {
            Words4 k = load4(piece + (c * KV_BLOCK + index % KV_BLOCK) * 16);
            add_chunk<kv_type>(s, c, k, score);
        }
        UNROLL for (u32 h = 0; h < HEADS; h++) {
            if (kv_type == KV_INT8) {
                const float *scales = (const float *)(piece + a.key_bytes + KV_BLOCK * a.padded_dim);
                float factor = s.query_scale[h] * a.scale;
                score[h] = (float)(i32)float_bits(score[h]) * (factor * scales[index % KV_BLOCK]);
            } else {
                score[h] = score[h] * a.scale;
            }
        }
    }
    UNROLL for (u32 h = 0; h < HEADS; h++) s.weights[index * HEADS + h] = score[h];
}

// Weights of one head from its scores, by one warp.
template <u32 kv_type> DEVICE void weigh_head(const AttentionArgs &a, AttentionShared &s, u32 h, u32 first, u32 end) {
    const u32 lane = thread_x() % 32;
    float max = MINUS_INFINITY;
    for (u32 i = lane; i < RANGE; i += 32) {
        if (i >= first && i < end) max = larger(s.weights[i * HEADS + h], max);
    }
    max = warp_max(max);
    for (u32 i = lane; i < RANGE; i += 32) {
        bool there = i >= first && i < end;
        s.weights[i * HEADS + h] = there ? exp_(s.weights[i * HEADS + h] - max) : 0.0f;
    }
    sync_warp();
    float sum = 0.0f;
    UNROLL_8 for (u32 i = lane % 16; i < RANGE; i += 16) sum += s.weights[i * HEADS + h];
    sum = fold16(sum);
    if (lane == 0) s.max[h] = max, s.sum[h] = sum;
    if (kv_type == KV_INT8) {
        sync_warp();
        for (u32 b = 0; b < RANGE / KV_BLOCK; b++) {
            u32 i = b * KV_BLOCK + lane;
            float scaled = 0.0f, factor, inverse;
            if (i >= first && i < end) {
                const u8 *piece = s.blocks[b];
                const float *scales = (const float *)(piece + a.key_bytes + KV_BLOCK * a.padded_dim);
                scaled = s.weights[i * HEADS + h] * scales[KV_BLOCK + lane];
            }
            quantising_scales(warp_max(scaled), 255.0f, factor, inverse);
            u32 code = float_bits(clamp(scaled * inverse, 0.0f, 255.0f) + MAGIC) & 0xff;
            s.weights[i * HEADS + h] = bits_float(code);
            if (lane == 0) s.factors[h][b] = factor;
        }
    }
}

// Starts to bring the values of blocks `from..` of the range, as many as there is room for, up to position `end`.
DEVICE void stage_values(const AttentionArgs &a, const AttentionShared &s, u32 from, u32 end) {
    u8 *room = (u8 *)dynamic_shared();
    for (u32 b = 0; b < a.staged && (from + b) * KV_BLOCK < end; b++) {
        const u8 *values = s.blocks[from + b] + a.key_bytes;
        for (u32 i = thread_x() * 16; i < a.value_bytes; i += threads() * 16)
            copy_async(room + b * a.value_bytes + i, values + i, true);
    }
    copies_commit();
}

// Adds the staged values from block `from` on times their weights to `out`: element `e` of heads `h0`, `h0 + step`, ...
template <u32 kv_type, u32 count>
DEVICE void add_values(const AttentionArgs &a, const AttentionShared &s, u32 e, u32 h0, u32 step, u32 from, u32 end,
                       float (&out)[HEADS]) {
    for (u32 b = from; b < from + a.staged && b * KV_BLOCK < end; b++) {
        const u8 *values = (const u8 *)dynamic_shared() + (b - from) * a.value_bytes;
        const u32 rest = end - b * KV_BLOCK, slots = rest < KV_BLOCK ? rest : KV_BLOCK;
        const float *weights = s.weights + b * KV_BLOCK * HEADS + h0;
        if (kv_type == KV_INT8) {
            i32 sums[count] = {};
            for (u32 slot = 0; slot < slots; slot++) {
                i32 v = ((const i8 *)values)[slot * a.padded_dim + e];
                UNROLL for (u32 i = 0; i < count; i++) sums[i] += (i32)float_bits(weights[slot * HEADS + i * step]) * v;
            }
            UNROLL for (u32 i = 0; i < count; i++) out[i] = fma_((float)sums[i], s.factors[h0 + i * step][b], out[i]);
            continue;
        }
        UNROLL_8 for (u32 slot = 0; slot < slots; slot++) {
            float v = kv_type == KV_F16 ? half_float(((const u16 *)values)[slot * a.padded_dim + e])
                                        : ((const float *)values)[slot * a.padded_dim + e];
            UNROLL for (u32 i = 0; i < count; i++) out[i] = fma_(weights[slot * HEADS + i * step], v, out[i]);
        }
    }
}

// The softmax of the ranges so far, and the values weighed with it.
struct State {
    float max[HEADS], sum[HEADS], out[HEADS];
};

DEVICE void merge(float &max, float &sum, float &out, float next_max, float next_sum, float next_out) {
    float both = larger(next_max, max);
    float old_factor = exp_(max - both), new_factor = exp_(next_max - both);
    sum = fma_(next_sum, new_factor, sum * old_factor);
    out = fma_(next_out, new_factor, out * old_factor);
    max = both;
}

template <u32 kv_type, u32 count>
DEVICE void attend(const AttentionArgs &a, AttentionShared &s, u32 kv_head, u32 head, u32 heads, u32 slice) {
    const u32 token = block_z(), position = a.positions[token];
    const u32 first = a.window != 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    const u32 first_range = first / RANGE, ranges = position / RANGE + 1 - first_range;
    const u32 from = a.split ? block_y() : 0, to = a.split ? block_y() + 1 : ranges;
    if (from >= ranges) return;
    load_queries<kv_type>(a, s, a.q + (u64)token * a.q_stride + head * a.head_dim, heads);
    const u32 width = (a.head_dim + a.slices - 1) / a.slices, step = HEADS / count, column = thread_x() / step;
    const u32 e = slice * width + column, h0 = thread_x() % step;
    const bool own = column < width && e < a.head_dim;
    u8 *const *table = a.table + a.table_offsets[token];
    State state;
    UNROLL for (u32 i = 0; i < HEADS; i++) state.max[i] = MINUS_INFINITY, state.sum[i] = 0.0f, state.out[i] = 0.0f;
    for (u32 r = from; r < to; r++) {
        const u32 start = (first_range + r) * RANGE;
        const u32 low = first > start ? first - start : 0, rest = position + 1 - start, high = rest < RANGE ? rest : RANGE;
        sync_block();
        if (thread_x() < RANGE / KV_BLOCK && thread_x() * KV_BLOCK < high) {
            u8 *block = table[start / KV_BLOCK + thread_x()];
            s.blocks[thread_x()] = block + a.layer_offset + (u64)kv_head * a.piece_bytes;
        }
        sync_block();
        stage_values(a, s, low / KV_BLOCK, high);
        score_position<kv_type>(a, s, thread_x(), low, high);
        sync_block();
        if (thread_x() / 32 < HEADS) weigh_head<kv_type>(a, s, thread_x() / 32, low, high);
        sync_block();
        float next[HEADS] = {};
        for (u32 b = low / KV_BLOCK; b * KV_BLOCK < high; b += a.staged) {
            if (b != low / KV_BLOCK) {
                sync_block();
                stage_values(a, s, b, high);
            }
            copies_wait<0>();
            sync_block();
            if (own) add_values<kv_type, count>(a, s, e, h0, step, b, high, next);
        }
        UNROLL for (u32 i = 0; i < count; i++) {
            u32 h = h0 + i * step;
            merge(state.max[i], state.sum[i], state.out[i], s.max[h], s.sum[h], next[i]);
        }
    }
    const bool alone = ranges == 1 || !a.split;
    float *partials = a.partials + (u64)token * a.ranges * a.heads * (a.padded_dim + 4);
    UNROLL for (u32 i = 0; i < count; i++) {
        u32 h = h0 + i * step;
        if (!own || h >= heads) continue;
        if (alone) {
            a.out[(u64)token * a.out_stride + (head + h) * a.head_dim + e] = state.out[i] * divide(1.0f, state.sum[i]);
        } else {
            float *partial = partials + ((u64)from * a.heads + head + h) * (a.padded_dim + 4);
            partial[e] = state.out[i];
            // Each slice has columns of its own and begins with one that writes these.
            if (column == 0) partial[a.padded_dim] = state.max[i], partial[a.padded_dim + 1] = state.sum[i];
        }
    }
    if (alone) return;
    fence_device();
    sync_block();
    u32 *counter = a.counters + token * grid_x() + block_x();
    if (thread_x() == 0) s.last = atomic_add(counter, 1) == ranges - 1;
    sync_block();
    if (!s.last) return;
    fence_device();
    UNROLL for (u32 i = 0; i < count; i++) {
        u32 h = h0 + i * step;
        if (!own || h >= heads) continue;
        float max = MINUS_INFINITY, sum = 0.0f, out = 0.0f;
        for (u32 r = 0; r < ranges; r += 8) {
            // Asked for together: others wrote them, so they come from the second cache.
            float maxima[8], sums[8], values[8];
            UNROLL for (u32 j = 0; j < 8; j++) {
                u32 range = r + j < ranges ? r + j : ranges - 1;
                const volatile float *partial = partials + ((u64)range * a.heads + head + h) * (a.padded_dim + 4);
                maxima[j] = partial[a.padded_dim], sums[j] = partial[a.padded_dim + 1], values[j] = partial[e];
            }
            UNROLL for (u32 j = 0; j < 8; j++) {
                if (r + j < ranges) merge(max, sum, out, maxima[j], sums[j], values[j]);
            }
        }
        a.out[(u64)token * a.out_stride + (head + h) * a.head_dim + e] = out * divide(1.0f, sum);
    }
    if (thread_x() == 0) *counter = 0;
}

// Grid: x = ((key head * subgroups of four query heads) * slices), y = ranges where they are split, z = tokens.
template <u32 kv_type> DEVICE void attention(const AttentionArgs &a) {
    SHARED AttentionShared s;
    launch_next();
    await_previous();
    const u32 group = a.heads / a.kv_heads, subgroups = (group + HEADS - 1) / HEADS;
    const u32 slice = block_x() % a.slices, part = block_x() / a.slices;
    const u32 kv_head = part / subgroups, first = part % subgroups * HEADS;
    const u32 heads = group - first < HEADS ? group - first : HEADS, head = kv_head * group + first;
    const u32 width = (a.head_dim + a.slices - 1) / a.slices;
    // Threads that have an element each share the heads if there are enough of them.
    if (width * 4 <= threads())
        attend<kv_type, 1>(a, s, kv_head, head, heads, slice);
    else if (width * 2 <= threads())
        attend<kv_type, 2>(a, s, kv_head, head, heads, slice);
    else
        attend<kv_type, 4>(a, s, kv_head, head, heads, slice);
}

KERNEL(256, attention_f32, AttentionArgs) { attention<KV_F32>(a); }
KERNEL(256, attention_f16, AttentionArgs) { attention<KV_F16>(a); }
KERNEL(256, attention_int8, AttentionArgs) { attention<KV_INT8>(a); }
