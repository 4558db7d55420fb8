// From intervals that hold the logits to the largest of them; scan.cu tells why this finds all that are wanted.
#include "scan.cu"

#define CHUNK 256u
#define COLLECTED 512u // chunks that are ranked at a time

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
    float *maxima;             // [row][chunks][2]: of the lower and of the upper ends
    u32 *found;                // [row][2 + 2 * capacity]: how many, nothing, then tokens and their logits in pairs
    u32 *flags;                // set to 1 if a logit is not a number
    u32 vocab, chunks, capacity, pitch;
    u32 dtype;
    float rounding;            // what a dot product is off by, in parts of the product of the lengths
};

DEVICE bool allowed(const SelectArgs &a, u32 row, u32 token) {
    if (a.mask_at[row] == 0xffffffffu) return true;
    u32 word = token / 32;
    return word < a.mask_len[row] && (a.masks[a.mask_at[row] + word] >> (token % 32) & 1) != 0;
}

// The ends of the interval of a logit. What is not a number has no lower end and an infinite upper one.
DEVICE void interval(const SelectArgs &a, u32 row, u32 token, float &low, float &high) {
    const Image image = a.images[token];
    const HiddenImage hidden = a.hidden[row];
    const float near = a.near[(u64)row * a.vocab + token];
    float off = hidden.length * image.missing + hidden.missing * image.length;
    off = (off + a.rounding * hidden.length * (image.length + image.missing)) * SAFE + 1e-30f;
    low = near - off, high = near + off;
    if (!is_finite(low) || !is_finite(high)) low = MINUS_INFINITY, high = -MINUS_INFINITY;
}

// Grid: chunks, rows.
KERNEL(256, chunk_maxima, SelectArgs) {
    SHARED float scratch[32];
    launch_next();
    await_previous();
    const u32 row = block_y(), token = block_x() * CHUNK + thread_x();
    float low = MINUS_INFINITY, high = MINUS_INFINITY;
    if (token < a.vocab && allowed(a, row, token)) interval(a, row, token, low, high);
    low = block_max(low, scratch);
    high = block_max(high, scratch);
    if (thread_x() == 0) {
        float *out = a.maxima + ((u64)row * a.chunks + block_x()) * 2;
        out[0] = low, out[1] = high;
    }
}

// Finds the tokens whose intervals reach the threshold. Grid: rows.
KERNEL(512, collect, SelectArgs) {
    alignas(16) SHARED float lower[COLLECTED];
    SHARED float threshold;
    SHARED u32 found;
    launch_next();
    await_previous();
    const u32 row = block_x(), k = a.counts[row], warp = thread_x() / 32, lane = thread_x() % 32;
    const float *maxima = a.maxima + (u64)row * a.chunks * 2;
    if (thread_x() == 0) threshold = MINUS_INFINITY, found = 0;
    // The k-th largest lower end: each thread ranks some, all of them come by in pieces.
    for (u32 first = 0; first < a.chunks; first += threads()) {
        const u32 i = first + thread_x();
        const float own = i < a.chunks ? maxima[2 * i] : MINUS_INFINITY;
        u32 above = 0, equal = 0;
        for (u32 start = 0; start < a.chunks; start += COLLECTED) {
            sync_block();
            for (u32 j = thread_x(); j < COLLECTED; j += threads())
                lower[j] = start + j < a.chunks ? maxima[2 * (start + j)] : MINUS_INFINITY;
            sync_block();
            const u32 rest = a.chunks - start, end = rest < COLLECTED ? rest : COLLECTED;
            UNROLL_1 for (u32 j = 0; j < end; j += 4) {
                const Words4 four = load4(lower + j);
                const u32 bits[4] = {four.x, four.y, four.z, four.w};
                UNROLL for (u32 n = 0; n < 4; n++) {
                    const float other = bits_float(bits[n]);
                    above += other > own;
                    equal += j + n < end && other == own;
                }
            }
        }
        // Who finds it writes the same number.
        if (i < a.chunks && above < k && above + equal >= k) threshold = own;
    }
    sync_block();
    u32 *out = a.found + (u64)row * (2 + 2 * a.capacity);
    const float limit = threshold;
    for (u32 chunk = warp; chunk < a.chunks; chunk += threads() / 32) {
        if (maxima[2 * chunk + 1] < limit) continue;
        for (u32 i = lane; i < CHUNK; i += 32) {
            u32 token = chunk * CHUNK + i;
            if (token >= a.vocab || !allowed(a, row, token)) continue;
            float low, high;
            interval(a, row, token, low, high);
            if (high < limit) continue;
            u32 place = atomic_add(&found, 1);
            if (place < a.capacity) out[2 + 2 * place] = token;
        }
    }
    sync_block();
    if (thread_x() == 0) out[0] = found;
}

// Computes the logits of what was found: a warp has a token. Sixteen chains in sixteen lanes, the other sixteen do the
// same. Grid: anything, rows.
KERNEL(256, rescore, SelectArgs) {
    launch_next();
    await_previous();
    const u32 row = block_y(), lane = thread_x() % 16, warps = threads() / 32;
    u32 *out = a.found + (u64)row * (2 + 2 * a.capacity);
    const u32 count = out[0] < a.capacity ? out[0] : a.capacity;
    const float *h = a.h + (u64)row * a.pitch;
    for (u32 i = block_x() * warps + thread_x() / 32; i < count; i += grid_x() * warps) {
        const u64 start = (u64)out[2 + 2 * i] * a.pitch;
        float sum = 0.0f;
        if (a.dtype == TABLE_BF16) {
            UNROLL_32 for (u32 k = lane; k < a.pitch; k += 16)
                sum = fma_(h[k], table_element(a.table, TABLE_BF16, start + k), sum);
        } else {
            UNROLL_8 for (u32 k = lane; k < a.pitch; k += 16)
                sum = fma_(h[k], table_element(a.table, a.dtype, start + k), sum);
        }
        sum = fold16(sum);
        if (thread_x() % 32 == 0) {
            out[3 + 2 * i] = float_bits(sum);
            if (!is_finite(sum)) atomic_or(a.flags, 1);
        }
    }
}
