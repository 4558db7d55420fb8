// From intervals that hold the logits to the largest of them; scan.cu tells why this finds all that are wanted.
#include "scan.cu"

struct SelectArgs {
    const float *near;         // [row][vocabulary]
    const Image *images;       // [vocabulary]
    const HiddenImage *hidden; // [row]
    const float *h;            // [row][pitch]
    const void *table;         // [vocabulary][pitch]
    const u32 *counts;         // [row]: how many are wanted, at least one
    const u32 *masks;          // sets of tokens, a bit each
    const u32 *mask_at;        // [row]: where its set begins, or all ones for none
    const u32 *mask_len;       // [row]: words of its set; tokens behind it are not in it
    const float *maxima;       // [row][chunks][2]: of the lower and of the upper ends
    u32 *found;                // [row][2 + 2 * capacity]: how many, nothing, then tokens and their logits in pairs
    u32 *flags;                // set to 1 if a logit is not a number
    u32 vocab, chunks, capacity, pitch;
    u32 dtype;
    float rounding;            // what a dot product is off by, in parts of the product of the lengths
};

#define COLLECTED 1024u // chunks that may hold what is wanted
#define KEYS 4u          // chunks of a thread

// Integers in the order of the floats they are made of.
DEVICE u32 order_key(float x) {
    const u32 bits = float_bits(x);
    return bits ^ ((u32)((i32)bits >> 31) | 0x80000000u);
}

// How many of the block's threads say so, times each; `scratch` has a place for each warp. Barriers stand in between and
// behind.
DEVICE u32 block_count(u32 own, u32 *scratch) {
    own = (u32)warp_sum((i32)own);
    if (thread_x() % 32 == 0) scratch[thread_x() / 32] = own;
    sync_block();
    const u32 warps = threads() / 32;
    const u32 all = (u32)warp_sum((i32)(thread_x() % 32 < warps ? scratch[thread_x() % 32] : 0));
    sync_block();
    return all;
}

// The key of the largest lower end of the chunks.
DEVICE u32 first_key(const float *maxima, u32 chunks, float *scratch) {
    float own = MINUS_INFINITY;
    for (u32 chunk = thread_x(); chunk < chunks; chunk += threads()) own = larger(maxima[2 * chunk], own);
    return order_key(block_max(own, scratch));
}

// The key of the k-th largest lower end of the chunks, from its highest bit down. Chunks beyond what threads have in registers
// are read again and again.
DEVICE u32 kth_key(const float *maxima, u32 chunks, u32 k, u32 *scratch) {
    u32 keys[KEYS], key = 0;
    UNROLL for (u32 i = 0; i < KEYS; i++) {
        const u32 chunk = i * threads() + thread_x();
        keys[i] = chunk < chunks ? order_key(maxima[2 * chunk]) : 0;
    }
    UNROLL_1 for (u32 bit = 32; bit > 0; bit--) {
        const u32 trial = key | 1u << (bit - 1);
        u32 own = 0;
        UNROLL for (u32 i = 0; i < KEYS; i++) own += keys[i] >= trial;
        for (u32 chunk = KEYS * threads() + thread_x(); chunk < chunks; chunk += threads())
            own += order_key(maxima[2 * chunk]) >= trial;
        if (block_count(own, scratch) >= k) key = trial;
    }
    return key;
}

// Finds the tokens whose intervals reach the k-th largest lower end of a chunk. Grid: rows.
KERNEL(512, collect, SelectArgs) {
    SHARED u32 scratch[32], list[COLLECTED], found, listed;
    launch_next();
    // What is wanted came with the inputs.
    const u32 row = block_x(), k = a.counts[row], mask = a.mask_at[row];
    await_previous();
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    const float *maxima = a.maxima + (u64)row * a.chunks * 2;
    if (thread_x() == 0) found = 0, listed = 0;
    // With fewer chunks than are wanted every token counts.
    const u32 least = k == 1 ? first_key(maxima, a.chunks, (float *)scratch) : kth_key(maxima, a.chunks, k, scratch);
    for (u32 chunk = thread_x(); chunk < a.chunks; chunk += threads()) {
        if (order_key(maxima[2 * chunk + 1]) < least) continue;
        const u32 place = atomic_add(&listed, 1);
        if (place < COLLECTED) list[place] = chunk;
    }
    sync_block();
    // Too many chunks are too many tokens.
    if (listed > COLLECTED && thread_x() == 0) found = a.capacity + 1;
    const u32 count = listed < COLLECTED ? listed : COLLECTED;
    u32 *out = a.found + (u64)row * (2 + 2 * a.capacity);
    for (u32 n = warp; n < count; n += threads() / 32) {
        UNROLL for (u32 i = 0; i < CHUNK / 32; i++) {
            const u32 token = list[n] * CHUNK + 32 * i + lane;
            if (token >= a.vocab || !allowed(a, row, mask, token)) continue;
            float low, high;
            interval(a, row, token, a.near[(u64)row * a.vocab + token], low, high);
            if (order_key(high) < least) continue;
            u32 place = atomic_add(&found, 1);
            if (place < a.capacity) out[2 + 2 * place] = token;
        }
    }
    sync_block();
    if (thread_x() == 0) out[0] = found;
}

#define PART 1024u // columns that come to shared memory at a time

// Computes the logits of what was found: a warp has a token. Sixteen chains in sixteen lanes, the other sixteen do the
// same. Rows come through shared memory, since a chain would wait for each of its numbers. Grid: anything, rows.
KERNEL(256, rescore, SelectArgs) {
    SHARED Words4 hidden[PART / 4], parts[8][PART / 4];
    launch_next();
    await_previous();
    const u32 row = block_y(), warp = thread_x() / 32, lane = thread_x() % 32, warps = threads() / 32;
    u32 *out = a.found + (u64)row * (2 + 2 * a.capacity);
    // The first token of the warp is asked for beside their number; it counts if there are so many.
    const u32 begin = block_x() * warps + warp, begin_token = out[2 + 2 * (begin < a.capacity ? begin : 0)];
    const u32 count = out[0] < a.capacity ? out[0] : a.capacity, bytes = a.dtype == TABLE_F32 ? 4 : 2;
    const float *h = a.h + (u64)row * a.pitch;
    UNROLL_1 for (u32 first = block_x() * warps; first < count; first += grid_x() * warps) {
        const u32 i = first + warp;
        const u32 token = i == begin && i < count ? begin_token : out[2 + 2 * (i < count ? i : first)];
        const u8 *from = (const u8 *)a.table + (u64)token * a.pitch * bytes;
        float sum = 0.0f;
        UNROLL_1 for (u32 start = 0; start < a.pitch; start += PART) {
            const u32 columns = a.pitch - start < PART ? a.pitch - start : PART;
            sync_block();
            for (u32 n = thread_x(); n < columns / 4; n += threads()) copy_async(hidden + n, h + start + 4 * n, true);
            UNROLL_8 for (u32 n = lane; n < columns * bytes / 16; n += 32)
                copy_async(parts[warp] + n, from + start * bytes + 16 * n, true);
            copies_commit();
            copies_wait<0>();
            sync_block();
            UNROLL_8 for (u32 k = lane % 16; k < columns; k += 16)
                sum = fma_(((const float *)hidden)[k], table_element(parts[warp], a.dtype, k), sum);
        }
        sum = fold16(sum);
        if (lane == 0 && i < count) {
            out[3 + 2 * i] = float_bits(sum);
            if (!is_finite(sum)) atomic_or(a.flags, 1);
        }
    }
}
