// Draws a token from the largest logits that select.cu found, with the bits of bitnet_model::Draw::token: weights are f32, their
// sums f64, added up by one thread in descending order of logits.
#include "select.cu"

struct RowDraw {
    double number; // random, in [0, 1)
    u32 k;         // logits that count; 0: no draw
    u32 kinds;     // two bits a step: 1 temperature, 2 top-p, 3 min-p
    float values[4];
};

struct DrawArgs {
    const RowDraw *draws; // [row]
    u32 *found;           // [row][2 + 2 * capacity]: what was found, then the token drawn alone
    u32 capacity, pad;
};

#define DRAWN 256u   // most logits that count, one a thread: bitnet_model::Draw::FEW
#define LISTED 4096u // most that may have been found

struct alignas(16) DrawShared {
    u64 keys[LISTED]; // of what is large enough
    double sums[DRAWN];
    u64 ranked[DRAWN];
    u32 maxima[DRAWN]; // of what each thread saw
    float weights[DRAWN];
    u32 listed, least, count, place;
};

// Keys descend as logits do, of equals as tokens ascend. Zeros are equal whatever their sign.
DEVICE u64 rank_key(const u32 *pair) { return (u64)order_key(bits_float(pair[1]) + 0.0f) << 32 | ~pair[0]; }
DEVICE u32 key_token(u64 key) { return ~(u32)key; }
DEVICE float key_logit(u64 key) {
    const u32 high = (u32)(key >> 32);
    return bits_float(high >> 31 ? high ^ 0x80000000u : ~high);
}

// Leaves the `k` largest of `count` pairs in `ranked`, largest first. The k-th largest of what threads saw at most is no
// larger than the k-th largest of all: few remain that must be compared with each other.
DEVICE void rank_largest(DrawShared &s, const u32 *pairs, u32 count, u32 k) {
    u32 own = 0;
    for (u32 i = thread_x(); i < count; i += threads()) {
        const u32 key = (u32)(rank_key(pairs + 2 * i) >> 32);
        own = key > own ? key : own;
    }
    s.maxima[thread_x()] = own;
    if (thread_x() == 0) s.listed = 0;
    sync_block();
    u32 larger_ones = 0, equals = 0;
    UNROLL_4 for (u32 i = 0; i < DRAWN; i += 4) {
        const Words4 four = load4(s.maxima + i);
        larger_ones += (four.x > own) + (four.y > own) + (four.z > own) + (four.w > own);
        equals += (four.x == own) + (four.y == own) + (four.z == own) + (four.w == own);
    }
    if (larger_ones < k && larger_ones + equals >= k) s.least = own;
    sync_block();
    for (u32 i = thread_x(); i < count; i += threads()) {
        const u64 key = rank_key(pairs + 2 * i);
        if ((u32)(key >> 32) >= s.least) s.keys[atomic_add(&s.listed, 1)] = key;
    }
    sync_block();
    const u32 listed = s.listed;
    for (u32 i = thread_x(); i < listed; i += threads()) {
        const u64 key = s.keys[i];
        u32 rank = 0;
        UNROLL_4 for (u32 j = 0; j < listed; j++) rank += s.keys[j] > key;
        if (rank < k) s.ranked[rank] = key;
    }
    if (thread_x() == 0) s.count = listed < k ? listed : k;
    sync_block();
}

// Weights of what is left, and the sum of each and those before it.
DEVICE void weigh_ranked(DrawShared &s, float best, float temperature) {
    const u32 count = s.count;
    if (thread_x() < count) s.weights[thread_x()] = exp_(divide(key_logit(s.ranked[thread_x()]) - best, temperature));
    sync_block();
    if (thread_x() == 0) {
        double sum = 0.0;
        UNROLL_8 for (u32 i = 0; i < count; i++) sum += (double)s.weights[i], s.sums[i] = sum;
        s.place = count - 1;
    }
    sync_block();
}

// The first place whose sum is at least `target`, or beyond it; the last if there is none. Sums ascend.
DEVICE u32 place_of(DrawShared &s, double target, bool beyond) {
    const u32 i = thread_x();
    const double before = i > 0 && i < s.count ? s.sums[i - 1] : 0.0;
    const bool reached = i < s.count && (beyond ? s.sums[i] > target : s.sums[i] >= target);
    if (reached && (i == 0 || (beyond ? before <= target : before < target))) s.place = i;
    sync_block();
    return s.place;
}

// Keeps what has at least this share of the largest weight.
DEVICE void keep_weights(DrawShared &s, float share) {
    if (thread_x() == 0) {
        float most = 0.0f;
        for (u32 i = 0; i < s.count; i++) most = larger(s.weights[i], most);
        u32 kept = 0;
        for (u32 i = 0; i < s.count; i++) {
            if (s.weights[i] >= share * most) s.ranked[kept++] = s.ranked[i];
        }
        s.count = kept;
    }
    sync_block();
}

// Grid: rows.
KERNEL(256, draw, DrawArgs) {
    SHARED DrawShared s;
    launch_next();
    // How to draw came with the inputs.
    const RowDraw *how = a.draws + block_x();
    const u32 k = how->k, kinds = how->kinds;
    const double number = how->number;
    await_previous();
    u32 *out = a.found + (u64)block_x() * (2 + 2 * a.capacity);
    const u32 found = out[0];
    // Otherwise the host draws.
    if (k == 0 || found == 0 || found > a.capacity || found > LISTED) return;
    rank_largest(s, out + 2, found, k);
    const float best = key_logit(s.ranked[0]);
    float temperature = 1.0f;
    UNROLL_1 for (u32 step = 0; step < 3; step++) {
        const u32 kind = kinds >> (2 * step) & 3;
        if (kind == 1) temperature = how->values[step];
        if (kind < 2) continue;
        weigh_ranked(s, best, temperature);
        if (kind == 3) {
            keep_weights(s, how->values[step]);
            continue;
        }
        const u32 last = place_of(s, (double)how->values[step] * s.sums[s.count - 1], false);
        if (thread_x() == 0) s.count = last + 1;
        sync_block();
    }
    weigh_ranked(s, best, temperature);
    const u32 place = place_of(s, number * s.sums[s.count - 1], true);
    if (thread_x() != 0) return;
    out[0] = 1;
    out[2] = key_token(s.ranked[place]), out[3] = float_bits(key_logit(s.ranked[place]));
}
