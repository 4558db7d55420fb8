// The largest logits without reading the output layer in full.
//
// Each row W of the output layer has an int8 image: a scale and codes, and beside them the length of what the image misses
// and of the image itself. A hidden row h is two int8 parts, h = unit * (128 a + b) but for a little that is measured. The
// product of the images is within
//     |h| |W - image(W)| + |h - image(h)| |image(W)| + rounding
// of the logit (Cauchy-Schwarz), so it gives an interval that holds it. The k largest logits are among those whose upper
// end reaches the k-th largest lower end; what that is at least, the maxima of chunks of tokens tell. The few that are left are
// computed from the full row, in the order of operations of all logits: with the same bits.
//
// The image of the output layer lies as mma.m16n8k32 wants it, a row block of 16 tokens after the other:
// [row block][group of 128 columns][piece][lane][16 bytes]; lane 4 g + t has columns 32 t..32 t + 32 of row g in pieces 0
// and 1, and of row g + 8 in pieces 2 and 3.
#pragma once
#include "table.cuh"

// Norms are computed in single precision: they are made a little larger.
#define SAFE 1.0001f
// Tokens whose largest ends of intervals are kept: those of a block of threads of the scan.
#define CHUNK 128u

struct Image {
    float scale, missing, length, pad;
};

struct HiddenImage {
    float unit, length, missing, pad;
};

struct SplitScratch {
    float maxima[16], lengths[16], rests[16];
};

struct ImageArgs {
    const void *table; // [vocabulary][pitch]
    u32 *codes;
    Image *images;     // [vocabulary, padded to row blocks]
    u32 vocab, cols, pitch, groups;
    u32 dtype, pad;
};

DEVICE float warp_add(float x) {
    UNROLL for (u32 m = 16; m > 0; m >>= 1) x += shuffle_xor(x, m);
    return x;
}

// Makes the image of the output layer; a warp has a row, a block of threads a row block.
KERNEL(512, make_image, ImageArgs) {
    launch_next();
    await_previous();
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, token = block_x() * 16 + warp;
    const bool there = token < a.vocab;
    const u64 row = (u64)(there ? token : 0) * a.pitch;
    float amax = 0.0f;
    for (u32 i = lane; i < a.cols; i += 32) amax = larger(magnitude(table_element(a.table, a.dtype, row + i)), amax);
    float scale, inverse;
    quantising_scales(warp_max(there ? amax : 0.0f), 127.0f, scale, inverse);
    float missing = 0.0f, length = 0.0f;
    for (u32 w = lane; w < a.groups * 32; w += 32) {
        u32 word = 0;
        UNROLL for (u32 b = 0; b < 4; b++) {
            u32 i = 4 * w + b;
            if (!there || i >= a.cols) continue;
            float x = table_element(a.table, a.dtype, row + i);
            float code = (clamp(x * inverse, -127.0f, 127.0f) + MAGIC) - MAGIC;
            float image = code * scale, rest = x - image;
            missing = fma_(rest, rest, missing);
            length = fma_(image, image, length);
            word |= ((u32)(i32)code & 0xff) << (8 * b);
        }
        u32 piece = warp / 8 * 2 + w % 8 / 4, place = warp % 8 * 4 + w % 32 / 8;
        a.codes[((((u64)block_x() * a.groups + w / 32) * 4 + piece) * 32 + place) * 4 + w % 4] = word;
    }
    missing = sqrt_(warp_add(missing)) * SAFE, length = sqrt_(warp_add(length)) * SAFE;
    if (lane == 0) {
        Image image = {scale, missing, length, 0.0f};
        a.images[token] = image;
    }
}

// Makes the image of a hidden row in shared memory, by the whole block; a barrier stands before.
DEVICE void split_hidden(const float *h, u32 len, u32 groups, u32 *parts, HiddenImage *image, SplitScratch &scratch) {
    float amax = 0.0f, unit, inverse, length = 0.0f, missing = 0.0f;
    for (u32 i = thread_x(); i < len; i += threads()) amax = larger(magnitude(h[i]), amax);
    quantising_scales(block_max_magnitude(amax, scratch.maxima), 16256.0f, unit, inverse);
    for (u32 w = thread_x(); w < groups * 32; w += threads()) {
        u32 high = 0, low = 0;
        UNROLL for (u32 b = 0; b < 4; b++) {
            u32 i = 4 * w + b;
            if (i >= len) continue;
            float x = h[i];
            float whole = (clamp(x * inverse, -16256.0f, 16256.0f) + MAGIC) - MAGIC;
            float upper = (whole * 0.0078125f + MAGIC) - MAGIC, rest = x - whole * unit;
            length = fma_(x, x, length);
            missing = fma_(rest, rest, missing);
            high |= ((u32)(i32)upper & 0xff) << (8 * b);
            low |= ((u32)(i32)(whole - 128.0f * upper) & 0xff) << (8 * b);
        }
        parts[w] = high;
        parts[groups * 32 + w] = low;
    }
    length = warp_add(length), missing = warp_add(missing);
    if (thread_x() % 32 == 0) scratch.lengths[thread_x() / 32] = length, scratch.rests[thread_x() / 32] = missing;
    sync_block();
    if (thread_x() != 0) return;
    length = 0.0f, missing = 0.0f;
    for (u32 i = 0; i < threads() / 32; i++) length += scratch.lengths[i], missing += scratch.rests[i];
    HiddenImage made = {unit, sqrt_(length) * SAFE, sqrt_(missing) * SAFE, 0.0f};
    *image = made;
}

struct ScanArgs {
    const u32 *codes;
    const Image *images;
    const u32 *parts;          // [row][2][groups * 32]
    const HiddenImage *hidden; // [row]
    float *near;               // [row][vocabulary]: products of the images
    const u32 *masks;          // these three as in SelectArgs
    const u32 *mask_at;
    const u32 *mask_len;
    float *maxima;             // [row][chunks][2]: of the lower and of the upper ends
    u32 rows, vocab, groups, row_blocks, chunks;
    float rounding;            // as in SelectArgs
};

// Whether a token is in the set that a row wants, which begins at `mask`.
template <class Args> DEVICE bool allowed(const Args &a, u32 row, u32 mask, u32 token) {
    if (mask == 0xffffffffu) return true;
    u32 word = token / 32;
    return word < a.mask_len[row] && (a.masks[mask + word] >> (token % 32) & 1) != 0;
}

// The ends of the interval of a logit. What is not a number has no lower end and an infinite upper one.
template <class Args>
DEVICE void interval(const Args &a, u32 row, u32 token, float near, float &low, float &high) {
    const Image image = a.images[token];
    const HiddenImage hidden = a.hidden[row];
    float off = hidden.length * image.missing + hidden.missing * image.length;
    off = (off + a.rounding * hidden.length * (image.length + image.missing)) * SAFE + 1e-30f;
    low = near - off, high = near + off;
    if (!is_finite(low) || !is_finite(high)) low = MINUS_INFINITY, high = -MINUS_INFINITY;
}

// The largest ends of intervals.
struct Ends {
    float low, high;
};

// Stores the product of the images of a token and a row, and raises the ends to those of its interval.
DEVICE void store_near(const ScanArgs &a, u32 token, u32 row, i32 high, i32 low, Ends &ends) {
    if (token >= a.vocab || row >= a.rows) return;
    const float whole = fma_(128.0f, (float)high, (float)low);
    const float near = whole * (a.hidden[row].unit * a.images[token].scale);
    a.near[(u64)row * a.vocab + token] = near;
    if (!allowed(a, row, a.mask_at[row], token)) return;
    float lower, upper;
    interval(a, row, token, near, lower, upper);
    ends.low = larger(lower, ends.low), ends.high = larger(upper, ends.high);
}

// The largest ends of the eight lanes of a warp that have the same place in their quads.
DEVICE void eight_lanes(Ends &ends) {
    UNROLL for (u32 m = 4; m < 32; m *= 2) {
        ends.low = larger(shuffle_xor(ends.low, m), ends.low);
        ends.high = larger(shuffle_xor(ends.high, m), ends.high);
    }
}

// The tokens of a block of threads are a chunk: stores the largest ends of its warps, [8][rows], of rows from `first` on.
DEVICE void store_maxima(const ScanArgs &a, const Ends *warps, u32 rows, u32 first) {
    sync_block();
    for (u32 i = thread_x(); i < rows; i += threads()) {
        if (first + i >= a.rows) continue;
        Ends ends = warps[i];
        UNROLL for (u32 w = 1; w < 8; w++) {
            ends.low = larger(warps[w * rows + i].low, ends.low);
            ends.high = larger(warps[w * rows + i].high, ends.high);
        }
        float *out = a.maxima + ((u64)(first + i) * a.chunks + block_x()) * 2;
        out[0] = ends.low, out[1] = ends.high;
    }
}

DEVICE Words4 image_piece(const ScanArgs &a, u32 block, u32 group, u32 piece, u32 lane) {
    block = block < a.row_blocks ? block : a.row_blocks - 1;
    return load_weights(a.codes + ((((u64)block * a.groups + group) * 4 + piece) * 32 + lane) * 4);
}

// Asks for what a warp reads of a group.
DEVICE void prefetch_image(const ScanArgs &a, u32 block, u32 group, u32 lane) {
    if (block < a.row_blocks && group < a.groups && lane < 16)
        prefetch(a.codes + (((u64)block * a.groups + group) * 16 + lane) * 32);
}

// One hidden row and eight row blocks for each block of threads, by dp4a.
KERNEL(256, scan_dot, ScanArgs) {
    SHARED Ends maxima[8];
    u32 *parts = (u32 *)dynamic_shared();
    launch_next();
    await_previous();
    const u32 block = block_x() * 8 + thread_x() / 32, lane = thread_x() % 32, row = block_y();
    for (u32 i = thread_x(); i < 64 * a.groups; i += threads()) parts[i] = a.parts[(u64)row * 64 * a.groups + i];
    sync_block();
    i32 sums[2][2] = {};
    UNROLL_4 for (u32 group = 0; group < a.groups; group++) {
        UNROLL for (u32 piece = 0; piece < 4; piece++) {
            Words4 w = image_piece(a, block, group, piece, lane);
            UNROLL for (u32 p = 0; p < 2; p++) {
                Words4 h = load4(parts + (p * a.groups + group) * 32 + lane % 4 * 8 + piece % 2 * 4);
                i32 &sum = sums[piece / 2][p];
                sum = dot4(w.w, h.w, dot4(w.z, h.z, dot4(w.y, h.y, dot4(w.x, h.x, sum))));
            }
        }
    }
    Ends ends = {MINUS_INFINITY, MINUS_INFINITY};
    UNROLL for (u32 half = 0; half < 2; half++) {
        i32 high = quad_sum(sums[half][0]), low = quad_sum(sums[half][1]);
        if (lane % 4 == 0) store_near(a, block * 16 + half * 8 + lane / 4, row, high, low, ends);
    }
    eight_lanes(ends);
    if (lane == 0) maxima[thread_x() / 32] = ends;
    store_maxima(a, maxima, 1, row);
}

#if defined(BITNET_EMULATE) || __CUDA_ARCH__ >= 800

#define SCAN_STAGES 3u

// A column of the product is a part of a hidden row, so that a lane gets both parts of its rows. 4 * `tiles` hidden rows.
template <u32 tiles> DEVICE void load_parts(const ScanArgs &a, Words4 *stage, u32 first, u32 group) {
    for (u32 i = thread_x(); i < tiles * 8 * 8; i += threads()) {
        u32 column = i / 8, piece = i % 8, row = first + column / 2;
        bool there = row < a.rows && group < a.groups;
        const u32 *from = a.parts + (there ? (((u64)row * 2 + column % 2) * a.groups + group) * 32 + piece * 4 : 0);
        copy_async(stage + column * 8 + (piece ^ (column % 8)), from, there);
    }
}

template <u32 tiles> DEVICE void scan(const ScanArgs &a) {
    Words4 *stages = (Words4 *)dynamic_shared(); // [SCAN_STAGES][8 * tiles][8]
    const u32 block = block_x() * 8 + thread_x() / 32, lane = thread_x() % 32, g = lane / 4, t = lane % 4;
    const u32 first = block_y() * 4 * tiles;
    i32 sums[tiles][4] = {};
    launch_next();
    Words4 next[4];
    UNROLL for (u32 p = 0; p < 4; p++) next[p] = image_piece(a, block, 0, p, lane);
    // While a few rows are normed the memory would be idle otherwise.
    if (tiles == 1) prefetch_image(a, block, 1, lane);
    await_previous();
    UNROLL for (u32 s = 0; s < SCAN_STAGES - 1; s++) {
        load_parts<tiles>(a, stages + s * 64 * tiles, first, s);
        copies_commit();
    }
    for (u32 group = 0; group < a.groups; group++) {
        copies_wait<SCAN_STAGES - 2>();
        sync_block();
        load_parts<tiles>(a, stages + (group + SCAN_STAGES - 1) % SCAN_STAGES * 64 * tiles, first, group + SCAN_STAGES - 1);
        copies_commit();
        Words4 w[4];
        u32 after = group + 1 < a.groups ? group + 1 : group;
        UNROLL for (u32 p = 0; p < 4; p++) {
            w[p] = next[p];
            next[p] = image_piece(a, block, after, p, lane);
        }
        const Words4 *stage = stages + group % SCAN_STAGES * 64 * tiles;
        UNROLL for (u32 h = 0; h < 2; h++) {
            const u32 early[4] = {w[h].x, w[2 + h].x, w[h].y, w[2 + h].y}, late[4] = {w[h].z, w[2 + h].z, w[h].w, w[2 + h].w};
            UNROLL for (u32 n = 0; n < tiles; n++) {
                u32 column = 8 * n + g;
                Words4 b = stage[column * 8 + ((2 * t + h) ^ (column % 8))];
                mma(sums[n], early, b.x, b.y);
                mma(sums[n], late, b.z, b.w);
            }
        }
    }
    copies_wait<0>();
    sync_block();
    Ends *maxima = (Ends *)stages; // [8][4 * tiles]
    UNROLL for (u32 n = 0; n < tiles; n++) {
        Ends ends = {MINUS_INFINITY, MINUS_INFINITY};
        store_near(a, block * 16 + g, first + 4 * n + t, sums[n][0], sums[n][1], ends);
        store_near(a, block * 16 + g + 8, first + 4 * n + t, sums[n][2], sums[n][3], ends);
        eight_lanes(ends);
        if (g == 0) maxima[(thread_x() / 32 * tiles + n) * 4 + t] = ends;
    }
    store_maxima(a, maxima, 4 * tiles, first);
}

KERNEL(256, scan_4, ScanArgs) { scan<1>(a); }
KERNEL(256, scan_16, ScanArgs) { scan<4>(a); }
KERNEL_FITTING(2, 256, scan_64, ScanArgs) { scan<16>(a); }

#endif
