// Merging the ranges of a text that several blocks of threads had, in the oracle's order.
//
// Either all blocks of a text and its heads are a cluster: each leaves what it has in its shared memory, and merges some
// elements of all. Or they leave it in the device's memory, and the last one to do so merges all. The first way is shorter
// by two ways to the device's memory, but needs a device that has clusters, and room for all of them at once.
#pragma once
#include "attention.cuh"

#define MERGED 16u // ranges that are merged together

// Two elements of a head, merged so far, and the sum of the head's weights.
struct MergedPair {
    float sum, out[2];
};

// Factors that merge `count` ranges of one head, by one warp, lane by lane: of what came before, of the range; and the
// range's sum. `both` is the range's largest score, and above it its sum; `max` is the largest score of all ranges before.
DEVICE void merge_factors(u64 both, u32 count, float (*factors)[4], float &max) {
    const u32 lane = thread_x() % 32;
    const float own = bits_float((u32)both), sum = bits_float((u32)(both >> 32));
    float most = larger(lane < count ? own : MINUS_INFINITY, max);
    UNROLL for (u32 by = 1; by < MERGED; by *= 2) most = larger(shuffle_up(most, by), most);
    float before = shuffle_up(most, 1);
    before = lane == 0 ? max : before;
    max = warp_max(most);
    if (lane < MERGED) factors[lane][0] = exp_(before - most), factors[lane][1] = exp_(own - most), factors[lane][2] = sum;
}

// Adds `count` ranges to a pair.
DEVICE void merge_pairs(const float (*factors)[4], const u64 (&pairs)[MERGED], u32 count, MergedPair &m) {
    UNROLL for (u32 r = 0; r < MERGED; r++) {
        const Words4 four = load4(factors[r]);
        const float old_factor = bits_float(four.x), new_factor = bits_float(four.y);
        if (r >= count) break;
        m.sum = fma_(bits_float(four.z), new_factor, m.sum * old_factor);
        UNROLL for (u32 d = 0; d < 2; d++)
            m.out[d] = fma_(bits_float((u32)(pairs[r] >> (32 * d))), new_factor, m.out[d] * old_factor);
    }
}

// Stores the elements `e` and `e + 1` of one of the block's heads.
DEVICE void store_pair(const AttentionArgs &a, const AttentionShare &t, u32 head, u32 e, const MergedPair &m) {
    float *to = a.out + (u64)t.token * a.out_stride + (t.head + head) * a.head_dim + e;
    const float inverse = divide(1.0f, m.sum);
    to[0] = m.out[0] * inverse;
    if (e + 1 < a.head_dim) to[1] = m.out[1] * inverse;
}

// Merges what the blocks of all ranges left in `partials`, and stores it. A thread has two elements of a head.
template <u32 kv_type, u32 heads>
DEVICE void merge_ranges(const AttentionArgs &a, const AttentionShare &t, AttentionShared<kv_type, heads> &s,
                         const float *partials) {
    float (*factors)[4] = (float (*)[4])s.weights;
    const u32 h = thread_x() / (t.width / 2), e = t.start + thread_x() % (t.width / 2) * 2, warp = thread_x() / 32;
    const bool wanted = h < t.heads && e < a.head_dim;
    const u32 row = a.padded_dim + 4, lane = thread_x() % 32;
    const u64 step = a.heads * row * 4;
    const u8 *own = (const u8 *)(partials + (wanted ? h * row + e : 0));
    const u8 *last = (const u8 *)(partials + warp * row + a.padded_dim);
    float max = MINUS_INFINITY;
    MergedPair merged = {};
    UNROLL_1 for (u32 from = 0; from < t.ranges; from += MERGED) {
        const u32 count = t.ranges - from < MERGED ? t.ranges - from : MERGED;
        u64 pairs[MERGED]; // asked for together; the last one again instead of those that are not there
        UNROLL for (u32 r = 0; r < MERGED; r++) pairs[r] = *(const u64 *)(own + (from + (r < count ? r : count - 1)) * step);
        if (warp < t.heads) {
            const u64 both = *(const u64 *)(last + (from + (lane < count ? lane : 0)) * step);
            merge_factors(both, count, factors + warp * MERGED, max);
        }
        sync_block();
        merge_pairs(factors + (wanted ? h : 0) * MERGED, pairs, count, merged);
        sync_block();
    }
    if (wanted) store_pair(a, t, h, e, merged);
}

// Leaves what one range gave: `elements` of `group` heads from `e` and `h` on. The last block of threads to do so merges all.
template <u32 kv_type, u32 heads>
DEVICE void leave_range(const AttentionArgs &a, const AttentionShare &t, AttentionShared<kv_type, heads> &s, u32 e, u32 h,
                        bool own, const Values<heads> &values) {
    const u64 row = a.padded_dim + 4;
    float *partials = a.partials + ((u64)t.token * a.ranges * a.heads + t.head) * row;
    float *partial = partials + (u64)t.from * a.heads * row;
    UNROLL for (u32 i = 0; i < Group<heads>::group; i++) {
        UNROLL for (u32 d = 0; d < Group<heads>::elements; d++) {
            if (own && h + i < t.heads) partial[(h + i) * row + e + d] = values.out[d][i];
        }
    }
    // Each slice has columns of its own and begins with one that writes these.
    const u32 head = thread_x();
    if (head < t.heads) *(u64 *)(partial + head * row + a.padded_dim) = *(const u64 *)s.softmax[head];
    sync_block();
    u32 *counter = a.counters + t.token * grid_x() + block_x();
    if (thread_x() == 0) s.last = atomic_add_ordered(counter, 1) == t.ranges - 1;
    sync_block();
    if (!s.last) return;
    merge_ranges(a, t, s, partials);
    if (thread_x() == 0) *counter = 0;
}

#if CLUSTERS
// The same where the blocks of all ranges are a cluster, at most MERGED: a warp merges this block's part of the elements of a
// head.
template <u32 kv_type, u32 heads>
DEVICE void merge_in_cluster(const AttentionArgs &a, const AttentionShare &t, AttentionShared<kv_type, heads> &s, u32 e, u32 h,
                             bool own, const Values<heads> &values) {
    UNROLL for (u32 i = 0; i < Group<heads>::group; i++) {
        UNROLL for (u32 d = 0; d < Group<heads>::elements; d++) {
            if (own && h + i < t.heads) s.q[h + i][e - t.start + d] = values.out[d][i];
        }
    }
    share_with_cluster(s);
    const u32 head = thread_x() / 32, lane = thread_x() % 32;
    if (head >= t.heads) {
        end_cluster_reads();
        return await_cluster();
    }
    const u32 all = t.width / 2, each = (all + t.ranges - 1) / t.ranges, pair = t.from * each + lane, at = t.start + 2 * pair;
    const bool wanted = lane < each && pair < all && at < a.head_dim;
    u64 pairs[MERGED];
    UNROLL for (u32 r = 0; r < MERGED; r++)
        pairs[r] = load_from_cluster(&s.q[head][wanted ? 2 * pair : 0], r < t.ranges ? r : t.ranges - 1);
    const u64 both = load_from_cluster(s.softmax[head], lane < t.ranges ? lane : 0);
    end_cluster_reads();
    float (*factors)[4] = (float (*)[4])s.weights + head * MERGED, max = MINUS_INFINITY;
    merge_factors(both, t.ranges, factors, max);
    sync_warp();
    MergedPair merged = {};
    merge_pairs(factors, pairs, t.ranges, merged);
    if (wanted) store_pair(a, t, head, at, merged);
    await_cluster();
}
#else
template <u32 kv_type, u32 heads>
DEVICE void merge_in_cluster(const AttentionArgs &, const AttentionShare &, AttentionShared<kv_type, heads> &, u32, u32, bool,
                             const Values<heads> &) {}
#endif
