// Attention over the paged cache, with the oracle's order of operations.
//
// Positions come in ranges of 256 with a softmax of their own. A block of threads has one query head, or up to four of one key
// head, of one token: a thread computes the scores of one position of the range, as chains of fused multiply-adds over the
// head in ascending order; then a thread has an element of the head, or two elements of one or two heads, and adds up the
// values of the range in ascending order of positions. Ranges are merged in order: by the block itself, one range after the
// other, or, where tokens are few, by the blocks that have a range each (merge.cuh). How the work is shared changes no bit.
//
// While the kernel before still runs, keys and values of older passes come to registers and shared memory, as far as there is
// room, and the rest is asked for, into the second cache. A warp brings the piece that has the positions of its threads.
#include "merge.cuh"

// Asks for this warp's piece, lines of 128 bytes; not for its values if these are `copied`.
DEVICE void ask_for_piece(const AttentionArgs &a, const u8 *piece, bool copied) {
    for (u32 at = thread_x() % 32 * 128; at < a.piece_bytes; at += 32 * 128) {
        if (!copied || at < a.key_bytes || at >= a.key_bytes + a.value_bytes) prefetch(piece + at);
    }
}

// Queries of the block's heads into shared memory, zeros behind them.
template <u32 kv_type, u32 heads>
DEVICE void load_queries(const AttentionArgs &a, AttentionShared<kv_type, heads> &s, const float *q, u32 there) {
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    if (kv_type != KV_INT8) {
        const u32 e = thread_x();
        float own[heads];
        UNROLL for (u32 h = 0; h < heads; h++) own[h] = h < there && e < a.head_dim ? q[h * a.head_dim + e] : 0.0f;
        UNROLL for (u32 h = 0; h < heads; h++) s.q[h][e] = own[h];
        return;
    }
    if (warp < heads) {
        const float *row = q + (warp < there ? warp : 0) * a.head_dim;
        float amax = 0.0f, scale, inverse;
        for (u32 e = lane; e < a.head_dim; e += 32) amax = larger(magnitude(row[e]), amax);
        quantising_scales(warp_max(amax), 127.0f, scale, inverse);
        for (u32 i = lane; i < MAX_HEAD / 4; i += 32) {
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

// The factor of an element of a key, and a query's element times it; for int8 whole numbers, four at a time.
template <u32 kv_type> DEVICE float key_element(const u32 (&words)[4], u32 i) {
    if (kv_type != KV_F16) return bits_float(words[i]);
    return half_float((u16)(words[i / 2] >> (16 * (i % 2))));
}

template <u32 kv_type> DEVICE float add_element(u32 query, float key, float score) {
    if (kv_type == KV_INT8) return bits_float((u32)dot4(query, float_bits(key), (i32)float_bits(score)));
    return fma_(bits_float(query), key, score);
}

#define AT_ONCE_KEYS 4u // vectors of a key that come, and are used, without asking for each whether it is there

// Vectors of a key from `c` on; zeros where there are none.
template <u32 ahead> DEVICE void load_vectors(const u8 *key, u32 c, u32 chunks, u32 n, Words4 (&k)[ahead]) {
    UNROLL for (u32 i = n; i < n + AT_ONCE_KEYS; i++) {
        k[i] = {0, 0, 0, 0};
        if (c + i < chunks) k[i] = load_ahead(key + (c + i) * KV_BLOCK * 16);
    }
}

template <u32 ahead> DEVICE void begin_key(const u8 *key, u32 chunks, Words4 (&k)[ahead]) {
    UNROLL for (u32 n = 0; n < ahead; n += AT_ONCE_KEYS) load_vectors(key, 0, chunks, n, k);
}

// Scores of a key with all heads. Its first vectors are there; those that are used make room for further ones.
template <u32 kv_type, u32 heads, u32 ahead>
DEVICE void score_key(const float (*q)[MAX_HEAD], const u8 *key, u32 chunks, Words4 (&k)[ahead], float (&score)[heads]) {
    const u32 each = kv_type == KV_F16 ? 8 : 4;
    UNROLL_1 for (u32 c = 0; c < chunks; c += ahead) {
        UNROLL for (u32 n = 0; n < ahead; n++) {
            if (n % AT_ONCE_KEYS == 0 && c + n >= chunks) break;
            const u32 words[4] = {k[n].x, k[n].y, k[n].z, k[n].w};
            UNROLL for (u32 part = 0; part < each; part += 4) {
                u32 queries[heads][4];
                UNROLL for (u32 h = 0; h < heads; h++) {
                    const Words4 four = load4(q[h] + (c + n) * each + part);
                    queries[h][0] = four.x, queries[h][1] = four.y, queries[h][2] = four.z, queries[h][3] = four.w;
                }
                UNROLL for (u32 i = 0; i < 4; i++) {
                    const float element = key_element<kv_type>(words, part + i);
                    UNROLL for (u32 h = 0; h < heads; h++)
                        score[h] = add_element<kv_type>(queries[h][i], element, score[h]);
                }
            }
            const u32 group = n / AT_ONCE_KEYS * AT_ONCE_KEYS;
            if (n == group + AT_ONCE_KEYS - 1 && c + ahead + group < chunks) load_vectors(key, c + ahead, chunks, group, k);
        }
    }
}

// The scales of an int8 piece: of its keys, then of its values.
DEVICE const float *scales_of(const AttentionArgs &a, const u8 *piece) {
    return (const float *)(piece + a.key_bytes + KV_BLOCK * a.padded_dim);
}

// Finishes the scores of this thread's position and leaves the largest of its warp.
template <u32 kv_type, u32 heads>
DEVICE void finish_scores(const AttentionArgs &a, AttentionShared<kv_type, heads> &s, const u8 *piece, bool counts,
                          float (&score)[heads]) {
    const u32 lane = thread_x() % 32;
    UNROLL for (u32 h = 0; h < heads; h++) {
        if (kv_type == KV_INT8) {
            const float factor = s.query_scale[h] * a.scale;
            score[h] = counts ? (float)(i32)float_bits(score[h]) * (factor * scales_of(a, piece)[lane]) : 0.0f;
        } else {
            score[h] = score[h] * a.scale;
        }
        const float max = warp_max(counts ? larger(score[h], MINUS_INFINITY) : MINUS_INFINITY);
        if (lane == 0) s.maxima[h][thread_x() / 32] = max;
    }
}

// Where the weight of a position and head lies.
template <u32 heads> DEVICE u32 weight_index(u32 position, u32 h) {
    const u32 group = Group<heads>::group;
    return (h / group * RANGE + position) * group + h % group;
}

// Weights of this thread's position.
template <u32 kv_type, u32 heads>
DEVICE void weigh(const AttentionArgs &a, AttentionShared<kv_type, heads> &s, const u8 *piece, bool counts,
                  const float (&score)[heads]) {
    const u32 lane = thread_x() % 32, index = thread_x();
    float max[heads], weights[heads];
    UNROLL for (u32 h = 0; h < heads; h++) max[h] = warp_max(s.maxima[h][lane % (RANGE / KV_BLOCK)]);
    const u32 mask = counts ? 0xffffffffu : 0;
    // A mask, since around branches the heads would come one after the other.
    UNROLL for (u32 h = 0; h < heads; h++) weights[h] = bits_float(float_bits(exp_(score[h] - max[h])) & mask);
    UNROLL for (u32 h = 0; h < heads; h++) {
        const float weight = weights[h];
        s.weights[weight_index<heads>(index, h)] = weight;
        if (index == h) s.range_max[h] = max[h];
        if (kv_type == KV_INT8) {
            const float scaled = counts ? weight * scales_of(a, piece)[KV_BLOCK + lane] : 0.0f;
            float factor, inverse;
            quantising_scales(warp_max(scaled), 255.0f, factor, inverse);
            s.codes[weight_index<heads>(index, h)] = float_bits(clamp(scaled * inverse, 0.0f, 255.0f) + MAGIC) & 0xff;
            if (lane == 0) s.code_factors[h][index / KV_BLOCK] = factor;
        }
    }
}

// Adds a range to the softmax of one head, by one warp, which keeps `max` and `sum`.
template <u32 kv_type, u32 heads>
DEVICE void add_range(AttentionShared<kv_type, heads> &s, u32 h, u32 high, float &max, float &sum) {
    // Weights behind the last position are zero and change no sum.
    float own = 0.0f;
    UNROLL_4 for (u32 i = thread_x() % 16; i < high; i += 16) own += s.weights[weight_index<heads>(i, h)];
    own = fold16(own);
    const float both = larger(s.range_max[h], max);
    const float old_factor = exp_(max - both), new_factor = exp_(s.range_max[h] - both);
    sum = fma_(own, new_factor, sum * old_factor), max = both;
    if (thread_x() % 32 == 0)
        s.old_factor[h] = old_factor, s.new_factor[h] = new_factor, s.softmax[h][0] = max, s.softmax[h][1] = sum;
}

// The end of the blocks of values that are staged with block `from`: as many as there is room for.
DEVICE u32 staged_end(const AttentionArgs &a, u32 from, u32 high) {
    const u32 end = (high + KV_BLOCK - 1) / KV_BLOCK;
    return end - from < a.staged ? end : from + a.staged;
}

// Starts to bring this warp's values, if they are among the blocks `from..end`; `base` is the first that is staged.
DEVICE void stage_values(const AttentionArgs &a, PieceCopies &copies, const u8 *piece, u32 base, u32 from, u32 end) {
    const u32 block = thread_x() / KV_BLOCK;
    if (block < from || block >= end) return;
    u8 *to = (u8 *)dynamic_shared() + (block - base) * a.value_bytes;
    begin_warp_copy(copies, to, piece + a.key_bytes, a.value_bytes);
}

// Weights of consecutive positions, and elements of their values as they are stored.
template <class Kind> struct Slots {
    u32 weights[Kind::slots * Kind::group], values[Kind::slots][Kind::elements];
};

template <u32 kv_type, class Kind>
DEVICE void load_slots(const u8 *values, u32 pitch, const u32 *weights, u32 slot, Slots<Kind> &to) {
    const u32 group = Kind::group, elements = Kind::elements, count = Kind::slots;
    UNROLL for (u32 n = 0; n < count; n++) {
        const u8 *value = values + (slot + n) * pitch;
        if (kv_type == KV_F16)
            to.values[n][0] = elements == 2 ? *(const u32 *)value : *(const u16 *)value;
        else if (kv_type == KV_INT8)
            to.values[n][0] = elements == 2 ? *(const u16 *)value : *value;
        else
            UNROLL for (u32 d = 0; d < elements; d++) to.values[n][d] = ((const u32 *)value)[d];
    }
    UNROLL for (u32 n = 0; n < count * group; n += 4) {
        const Words4 four = load4(weights + slot * group + n);
        to.weights[n] = four.x, to.weights[n + 1] = four.y, to.weights[n + 2] = four.z, to.weights[n + 3] = four.w;
    }
}

// Adds positions, all of them or `rest`.
template <u32 kv_type, bool whole, class Kind>
DEVICE void add_slots(const Slots<Kind> &slots, u32 rest, Values<Kind::count> &to) {
    const u32 group = Kind::group;
    UNROLL for (u32 n = 0; n < Kind::slots; n++) {
        if (!whole && n >= rest) break;
        UNROLL for (u32 d = 0; d < Kind::elements; d++) {
            const u32 bits = slots.values[n][kv_type == KV_F32 ? d : 0];
            const float value = kv_type == KV_F16 ? half_float((u16)(bits >> (16 * d))) : bits_float(bits);
            UNROLL for (u32 h = 0; h < group; h++) {
                const u32 weight = slots.weights[n * group + h];
                if (kv_type == KV_INT8)
                    to.sums[d][h] += (i32)weight * (i32)(i8)(bits >> (8 * d));
                else
                    to.out[d][h] = fma_(bits_float(weight), value, to.out[d][h]);
            }
        }
    }
}

// Adds the sums of a block of int8 values.
template <u32 heads> DEVICE void add_sums(const float (*factors)[RANGE / KV_BLOCK], u32 block, Values<heads> &to) {
    UNROLL for (u32 d = 0; d < Group<heads>::elements; d++) {
        UNROLL for (u32 h = 0; h < Group<heads>::group; h++)
            to.out[d][h] = fma_((float)to.sums[d][h], factors[h][block], to.out[d][h]), to.sums[d][h] = 0;
    }
}

// Adds the first `count` staged values, of which there are `room`, times their weights to `to`. For int8 they begin with
// `block` of the range.
template <u32 kv_type, class Kind>
DEVICE void add_values(const u8 *values, u32 pitch, const u32 *weights, u32 count, u32 room,
                       const float (*factors)[RANGE / KV_BLOCK], u32 block, Values<Kind::count> &to) {
    const u32 step = Kind::slots;
    Slots<Kind> slots, next;
    load_slots<kv_type>(values, pitch, weights, 0, slots);
    u32 slot = 0;
    UNROLL_1 for (; slot + 2 * step <= count; slot += 2 * step) {
        load_slots<kv_type>(values, pitch, weights, slot + step, next);
        add_slots<kv_type, true>(slots, step, to);
        load_slots<kv_type>(values, pitch, weights, slot + 2 * step < room ? slot + 2 * step : 0, slots);
        add_slots<kv_type, true>(next, step, to);
        if (kv_type == KV_INT8 && (slot + 2 * step) % KV_BLOCK == 0) add_sums(factors, block + slot / KV_BLOCK, to);
    }
    if (slot + step <= count) {
        load_slots<kv_type>(values, pitch, weights, slot + step, next);
        add_slots<kv_type, true>(slots, step, to);
        slots = next, slot += step;
    }
    if (slot < count) add_slots<kv_type, false>(slots, count - slot, to);
    if (kv_type == KV_INT8 && count % KV_BLOCK != 0) add_sums(factors, block + count / KV_BLOCK, to);
}

// The same for elements from `e` on of heads from `h` on, from the staged blocks `from..end` up to position `high`.
template <u32 kv_type, class Kind>
DEVICE void add_blocks(const AttentionArgs &a, const AttentionShared<kv_type, Kind::count> &s, u32 e, u32 h, u32 from, u32 end,
                       u32 high, Values<Kind::count> &to) {
    const u32 bytes = KvFormat<kv_type>::bytes, room = (end - from) * KV_BLOCK, rest = high - from * KV_BLOCK;
    const u8 *values = (const u8 *)dynamic_shared() + e * bytes;
    const float *weights = kv_type == KV_INT8 ? (const float *)s.codes : s.weights;
    const u32 *own = (const u32 *)weights + weight_index<Kind::count>(from * KV_BLOCK, h), count = rest < room ? rest : room;
    // The usual head: what lies where is known.
    if (kv_type == KV_F16 && a.padded_dim == 128)
        add_values<kv_type, Kind>(values, 128 * bytes, own, count, room, s.code_factors + h, from, to);
    else
        add_values<kv_type, Kind>(values, a.padded_dim * bytes, own, count, room, s.code_factors + h, from, to);
}

// The block's ranges, one after the other. `piece` and what is on its way, values and, where `ready`, keys `k`, are of the
// first one.
template <u32 kv_type, class Kind>
DEVICE void attend(const AttentionArgs &a, const AttentionShare &t, AttentionShared<kv_type, Kind::count> &s, const u8 *piece,
                   bool ready, Words4 (&k)[Kind::ahead]) {
    const u32 heads = Kind::count, elements = Kind::elements, group = Kind::group;
    const u32 vector = KvFormat<kv_type>::vector, chunks = (a.head_dim + vector - 1) / vector, warp = thread_x() / 32;
    const u32 columns = t.width / elements, e = t.start + thread_x() % columns * elements, h = thread_x() / columns * group;
    const bool own = h < t.heads && e < a.head_dim;
    Values<heads> out = {};
    float max = MINUS_INFINITY, sum = 0.0f; // of one head, in the warps that add ranges
    u32 phase = 0;
    const bool leaves = a.split != SPLIT_NONE && t.ranges > 1;
    UNROLL_1 for (u32 r = t.from;;) {
        const Positions p = positions_of(t, r);
        const bool counts = thread_x() >= p.low && thread_x() < p.high;
        float score[heads] = {};
        if (piece != 0) {
            const u8 *key = piece + thread_x() % KV_BLOCK * 16;
            if (!ready) begin_key(key, chunks, k);
            score_key<kv_type, heads>(s.q, key, chunks, k, score);
        }
        finish_scores(a, s, piece, counts, score);
        sync_block();
        // Only now: what the next kernel asks for would stand before these keys. Where blocks are many and leave what they
        // have to each other, its threads would also delay the weights.
        if (!leaves) launch_next();
        const u8 *next = 0;
        if (r + 1 < t.to) next = piece_of(a, t, positions_of(t, r + 1));
        weigh(a, s, piece, counts, score);
        if (next != 0) ask_for_piece(a, next, false);
        if (leaves) launch_next();
        Values<heads> values = {};
        const u32 first = p.low / KV_BLOCK;
        UNROLL_1 for (u32 b = first; b * KV_BLOCK < p.high; b += a.staged) {
            const u32 end = staged_end(a, b, p.high);
            if (b != first) {
                sync_block();
                expect_copies(s.copies, (end - b) * a.value_bytes);
                stage_values(a, s.copies, piece, b, b, end);
            }
            await_copies(s.copies, phase++);
            sync_block();
            if (own) add_blocks<kv_type, Kind>(a, s, e, h, b, end, p.high, values);
            if (b == first && warp >= 4 && warp < 4 + heads) add_range(s, warp - 4, p.high, max, sum);
        }
        sync_block();
        UNROLL for (u32 i = 0; i < group; i++) {
            const float old_factor = s.old_factor[own ? h + i : 0], new_factor = s.new_factor[own ? h + i : 0];
            UNROLL for (u32 d = 0; d < elements; d++)
                out.out[d][i] = fma_(values.out[d][i], new_factor, out.out[d][i] * old_factor);
        }
        if (++r >= t.to) break;
        // The next range has none of its blocks left out at its start.
        const u32 end = staged_end(a, 0, positions_of(t, r).high);
        piece = next, ready = false;
        // So that nobody keeps registers for them until here.
        UNROLL for (u32 n = 0; n < Kind::ahead; n++) k[n] = {0, 0, 0, 0};
        expect_copies(s.copies, end * a.value_bytes);
        stage_values(a, s.copies, piece, 0, 0, end);
    }
    if (CLUSTERS && leaves && a.split == SPLIT_CLUSTER) return merge_in_cluster(a, t, s, e, h, own, out);
    if (leaves) return leave_range(a, t, s, e, h, own, out);
    if (!own) return;
    UNROLL for (u32 i = 0; i < group; i++) {
        const float inverse = divide(1.0f, s.softmax[h + i][1]);
        float *to = a.out + (u64)t.token * a.out_stride + (t.head + h + i) * a.head_dim + e;
        UNROLL for (u32 d = 0; d < elements; d++) {
            if (h + i < t.heads && e + d < a.head_dim) to[d] = out.out[d][i] * inverse;
        }
    }
}

// Grid: x = ((key head * subgroups of query heads) * slices), y = ranges where they are split, z = tokens.
template <u32 kv_type, class Kind> DEVICE void attention(const AttentionArgs &a) {
    SHARED AttentionShared<kv_type, Kind::count> s;
    prepare_copies(s.copies);
    const AttentionShare t = attention_share<Kind::count>(a);
    // A text shorter than the longest.
    if (t.from >= t.ranges) return launch_next();
    const Positions p = positions_of(t, t.from);
    const u8 *piece = piece_of(a, t, p);
    const u32 warp = thread_x() / 32, first = p.low / KV_BLOCK, end = staged_end(a, first, p.high);
    // Blocks of positions that are older than this pass come while the kernel before still runs.
    const u32 old = t.settled > p.start ? (t.settled - p.start) / KV_BLOCK : 0;
    const u32 vector = KvFormat<kv_type>::vector, chunks = (a.head_dim + vector - 1) / vector;
    const bool ready = warp < old && piece != 0;
    expect_copies(s.copies, (end - first) * a.value_bytes);
    sync_block();
    Words4 k[Kind::ahead];
    if (ready) begin_key(piece + thread_x() % KV_BLOCK * 16, chunks, k);
    stage_values(a, s.copies, piece, first, first, old < end ? old : end);
    if (piece != 0) ask_for_piece(a, piece, ready && warp < end);
    await_previous();
    load_queries(a, s, a.q + (u64)t.token * a.q_stride + t.head * a.head_dim, t.heads);
    stage_values(a, s.copies, piece, first, old < first ? first : old, end);
    sync_block();
    attend<kv_type, Kind>(a, t, s, piece, ready, k);
}

KERNEL_FITTING(2, 256, attention_f32_1, AttentionArgs) { attention<KV_F32, One>(a); }
KERNEL_FITTING(2, 256, attention_f32_2, AttentionArgs) { attention<KV_F32, Two>(a); }
KERNEL_FITTING(2, 256, attention_f32_4, AttentionArgs) { attention<KV_F32, Four>(a); }
KERNEL_FITTING(2, 256, attention_f16_1, AttentionArgs) { attention<KV_F16, One>(a); }
KERNEL_FITTING(2, 256, attention_f16_2, AttentionArgs) { attention<KV_F16, Two>(a); }
KERNEL_FITTING(2, 256, attention_f16_4, AttentionArgs) { attention<KV_F16, Four>(a); }
KERNEL_FITTING(3, 256, attention_f16_4_many, AttentionArgs) { attention<KV_F16, FourOfMany>(a); }
KERNEL_FITTING(2, 256, attention_int8_1, AttentionArgs) { attention<KV_INT8, One>(a); }
KERNEL_FITTING(2, 256, attention_int8_2, AttentionArgs) { attention<KV_INT8, Two>(a); }
KERNEL_FITTING(2, 256, attention_int8_4, AttentionArgs) { attention<KV_INT8, Four>(a); }
KERNEL_FITTING(3, 256, attention_int8_4_many, AttentionArgs) { attention<KV_INT8, FourOfMany>(a); }
