// Attention for prompts: tiles of four tokens, with the bits of attention.cu.
//
// A block of threads has four consecutive tokens of a text and up to four query heads of one key head: sixteen queries that
// share every key and value. In each range of 256 positions a thread first computes the scores of two positions with eight
// queries, then has two elements of the head and four queries and adds up the values. Heads have up to 128 elements.
#include "attention.cu"

#define TILE 4u
#define QUERIES (TILE * HEADS)
#define WEIGHT_ROW (QUERIES + 4u) // against conflicts

struct alignas(16) ManyShared {
    float q[128][QUERIES];       // [element][query]
    float weights[RANGE][WEIGHT_ROW];
    float max[QUERIES], sum[QUERIES];
    u8 *blocks[RANGE / KV_BLOCK];
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

// Scores of positions `j` and `j + 128` with eight queries.
template <u32 kv_type> DEVICE void score_pair(const AttentionArgs &a, ManyShared &s, u32 j, u32 from, u32 end) {
    const u32 vector = KvFormat<kv_type>::vector, chunks = (a.head_dim + vector - 1) / vector;
    float score[2][8] = {};
    UNROLL_4 for (u32 c = 0; c < chunks; c++) {
        u32 words[2][4];
        UNROLL for (u32 p = 0; p < 2; p++) {
            u32 at = j + 128 * p < end ? j + 128 * p : end - 1;
            Words4 k = load4(s.blocks[at / KV_BLOCK] + (c * KV_BLOCK + at % KV_BLOCK) * 16);
            words[p][0] = k.x, words[p][1] = k.y, words[p][2] = k.z, words[p][3] = k.w;
        }
        UNROLL for (u32 i = 0; i < vector; i++) {
            Words4 low = load4(&s.q[c * vector + i][from]), high = load4(&s.q[c * vector + i][from + 4]);
            const u32 q[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            UNROLL for (u32 p = 0; p < 2; p++) {
                float k = kv_type == KV_F32 ? bits_float(words[p][i % 4])
                                            : half_float((u16)(words[p][i / 2] >> (16 * (i % 2))));
                UNROLL for (u32 n = 0; n < 8; n++) score[p][n] = fma_(bits_float(q[n]), k, score[p][n]);
            }
        }
    }
    UNROLL for (u32 p = 0; p < 2; p++) {
        UNROLL for (u32 n = 0; n < 8; n++) s.weights[j + 128 * p][from + n] = score[p][n] * a.scale;
    }
}

// Weights of one query from its scores, by one warp.
DEVICE void weigh_query(ManyShared &s, u32 query, Span span) {
    const u32 lane = thread_x() % 32;
    float max = MINUS_INFINITY, score[RANGE / 32];
    UNROLL for (u32 i = 0; i < RANGE / 32; i++) {
        u32 at = lane + 32 * i;
        score[i] = s.weights[at][query];
        if (at >= span.first && at < span.end) max = larger(score[i], max);
    }
    max = warp_max(max);
    UNROLL for (u32 i = 0; i < RANGE / 32; i++) {
        u32 at = lane + 32 * i;
        s.weights[at][query] = at >= span.first && at < span.end ? exp_(score[i] - max) : 0.0f;
    }
    sync_warp();
    float sum = 0.0f;
    UNROLL for (u32 i = 0; i < RANGE / 16; i++) sum += s.weights[lane % 16 + 16 * i][query];
    sum = fold16(sum);
    if (lane == 0) s.max[query] = max, s.sum[query] = sum;
}

// Values of two elements times the weights of four queries, for positions up to `end`.
template <u32 kv_type>
DEVICE void add_pair(const AttentionArgs &a, const ManyShared &s, u32 pair, u32 from, u32 start, u32 end, float (&out)[2][4]) {
    for (u32 b = start / KV_BLOCK; b * KV_BLOCK < end; b++) {
        const u8 *values = s.blocks[b] + a.key_bytes;
        const u32 rest = end - b * KV_BLOCK, slots = rest < KV_BLOCK ? rest : KV_BLOCK;
        UNROLL_8 for (u32 slot = 0; slot < slots; slot++) {
            float v[2];
            if (kv_type == KV_F16) {
                u32 two = ((const u32 *)values)[(slot * a.padded_dim) / 2 + pair];
                v[0] = half_float((u16)two), v[1] = half_float((u16)(two >> 16));
            } else {
                v[0] = ((const float *)values)[slot * a.padded_dim + 2 * pair];
                v[1] = ((const float *)values)[slot * a.padded_dim + 2 * pair + 1];
            }
            Words4 w = load4(&s.weights[b * KV_BLOCK + slot][from]);
            const u32 weights[4] = {w.x, w.y, w.z, w.w};
            UNROLL for (u32 d = 0; d < 2; d++) {
                UNROLL for (u32 n = 0; n < 4; n++) out[d][n] = fma_(bits_float(weights[n]), v[d], out[d][n]);
            }
        }
    }
}

// Grid: x = key head * subgroups of four query heads, y = tiles.
template <u32 kv_type> DEVICE void attention_many(const AttentionArgs &a) {
    SHARED ManyShared s;
    launch_next();
    await_previous();
    const u32 group = a.heads / a.kv_heads, subgroups = (group + HEADS - 1) / HEADS;
    const u32 kv_head = block_x() / subgroups, first_head = block_x() % subgroups * HEADS;
    const u32 heads = group - first_head < HEADS ? group - first_head : HEADS, head = kv_head * group + first_head;
    const u32 token = a.tiles[2 * block_y()], tokens = a.tiles[2 * block_y() + 1];
    const u32 position = a.positions[token], last = position + tokens - 1;
    const u32 pad = (a.head_dim + 7) / 8 * 8;
    for (u32 i = thread_x(); i < QUERIES * pad; i += threads()) {
        u32 query = i / pad, e = i % pad, t = query / HEADS, h = query % HEADS;
        bool there = t < tokens && h < heads && e < a.head_dim;
        s.q[e][query] = there ? a.q[(u64)(token + t) * a.q_stride + (head + h) * a.head_dim + e] : 0.0f;
    }
    u8 *const *table = a.table + a.table_offsets[token];
    const u32 pairs = a.head_dim / 2, pair = thread_x() % 64, from = thread_x() / 64 * 4;
    // A thread's four queries are the heads of one token.
    float max[4], sum[4], out[2][4];
    UNROLL for (u32 n = 0; n < 4; n++) max[n] = MINUS_INFINITY, sum[n] = 0.0f, out[0][n] = 0.0f, out[1][n] = 0.0f;
    const u32 first = a.window != 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    for (u32 start = first / RANGE * RANGE; start <= last; start += RANGE) {
        const u32 end = last + 1 - start < RANGE ? last + 1 - start : RANGE;
        sync_block();
        if (thread_x() < RANGE / KV_BLOCK && thread_x() * KV_BLOCK < end)
            s.blocks[thread_x()] = table[start / KV_BLOCK + thread_x()] + a.layer_offset + (u64)kv_head * a.piece_bytes;
        sync_block();
        score_pair<kv_type>(a, s, thread_x() % 128, thread_x() / 128 * 8, end);
        sync_block();
        UNROLL_1 for (u32 query = thread_x() / 32; query < QUERIES; query += threads() / 32)
            weigh_query(s, query, span_of(a, position + query / HEADS, start));
        sync_block();
        const Span span = span_of(a, position + from / HEADS, start);
        if (from / HEADS >= tokens || span.end <= span.first || pair >= pairs) continue;
        float next[2][4] = {};
        add_pair<kv_type>(a, s, pair, from, span.first, span.end, next);
        UNROLL for (u32 n = 0; n < 4; n++) {
            float both = larger(s.max[from + n], max[n]);
            float old_factor = exp_(max[n] - both), new_factor = exp_(s.max[from + n] - both);
            sum[n] = fma_(s.sum[from + n], new_factor, sum[n] * old_factor);
            UNROLL for (u32 d = 0; d < 2; d++) out[d][n] = fma_(next[d][n], new_factor, out[d][n] * old_factor);
            max[n] = both;
        }
    }
    if (from / HEADS >= tokens || pair >= pairs) return;
    UNROLL for (u32 n = 0; n < 4; n++) {
        if (n >= heads) continue;
        float *row = a.out + (u64)(token + from / HEADS) * a.out_stride + (head + n) * a.head_dim + 2 * pair;
        const float inverse = divide(1.0f, sum[n]);
        row[0] = out[0][n] * inverse, row[1] = out[1][n] * inverse;
    }
}

KERNEL(256, attention_many_f32, AttentionArgs) { attention_many<KV_F32>(a); }
KERNEL(256, attention_many_f16, AttentionArgs) { attention_many<KV_F16>(a); }
