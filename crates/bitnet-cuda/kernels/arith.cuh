// The arithmetic contract on the device: the same operations in the same order as bitnet_core::lanes and the oracle, so
// that results have the oracle's bits.
#pragma once
#include "device.cuh"

#define MAGIC 12582912.0f // 1.5 * 2^23: adding it rounds half to even, and the integer lands in the low bits
#define MINUS_INFINITY bits_float(0xff800000u)

DEVICE float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

DEVICE float larger(float a, float b) { return a > b ? a : b; }
DEVICE float magnitude(float x) { return bits_float(float_bits(x) & 0x7fffffffu); }
DEVICE bool is_finite(float x) { return (float_bits(x) & 0x7f800000u) != 0x7f800000u; }

// lanes::exp.
DEVICE float exp_(float x) {
    float c = clamp(x, -87.0f, 88.0f);
    float shifted = fma_(c, 1.44269504088896340736f, MAGIC);
    float n = shifted - MAGIC;
    float r = fma_(n, 2.1219444e-4f, fma_(n, -(355.0f / 512.0f), c));
    float p = 1.0f / 5040.0f;
    p = fma_(r, p, 1.0f / 720.0f);
    p = fma_(r, p, 1.0f / 120.0f);
    p = fma_(r, p, 1.0f / 24.0f);
    p = fma_(r, p, 1.0f / 6.0f);
    p = fma_(r, p, 0.5f);
    p = fma_(r, p, 1.0f);
    p = fma_(r, p, 1.0f);
    float power = bits_float((float_bits(shifted) - float_bits(MAGIC) + 127u) << 23);
    return x < -87.0f ? 0.0f : p * power;
}

// bitnet_model::Activation: 0 ReLU squared, 1 SiLU, 2 GELU. Called: kernels shall stay short enough for the caches of
// instructions.
CALLED float activate(u32 activation, float x) {
    if (activation == 0) {
        float p = x > 0.0f ? x : 0.0f;
        return p * p;
    }
    if (activation == 1) return divide(x, 1.0f + exp_(-x));
    return divide(x, 1.0f + exp_(-(x * fma_(x * x, 0.071354814f, 1.5957692f))));
}

// absmax::scale and absmax::round_to_i8.
DEVICE float activation_scale(float amax) { return divide(127.0f, amax > 1e-5f ? amax : 1e-5f); }
DEVICE u32 round_to_i8(float v) {
    return (float_bits(clamp(v, -128.0f, 127.0f) + MAGIC) - float_bits(MAGIC)) & 0xffu;
}

// kv::scales: `max / steps` and its inverse, or zeros if the inverse is not a number.
DEVICE void quantising_scales(float max, float steps, float &scale, float &inverse) {
    inverse = divide(steps, max);
    bool fine = is_finite(inverse) && max > 0.0f;
    scale = fine ? divide(max, steps) : 0.0f;
    inverse = fine ? inverse : 0.0f;
}

// The largest magnitude of a block's threads, for all of them. `scratch` has a place for each warp, which are a power of
// two; a barrier stands in between.
DEVICE float block_max_magnitude(float x, float *scratch) {
    x = warp_max_magnitude(x);
    if (thread_x() % 32 == 0) scratch[thread_x() / 32] = x;
    sync_block();
    return warp_max_magnitude(scratch[thread_x() & (threads() / 32 - 1)]);
}

// The largest value of a block's threads, for all of them. `scratch` has 32 places; a barrier stands before and behind.
DEVICE float block_max(float x, float *scratch) {
    x = warp_max(x);
    sync_block();
    if (thread_x() % 32 == 0) scratch[thread_x() / 32] = x;
    sync_block();
    x = scratch[0];
    for (u32 i = 1; i < threads() / 32; i++) x = larger(x, scratch[i]);
    return x;
}

#define NORM_LANES 256u // lanes::NORM_LANES

// lanes::rms_factor from the sums of its lanes, for every warp by itself: they are folded 128, 64, ..., 1.
DEVICE float rms_of_lanes(const float *sums, u32 len, float eps) {
    const float *own = sums + thread_x() % 32;
    float v[NORM_LANES / 32];
    UNROLL for (u32 i = 0; i < NORM_LANES / 32; i++) v[i] = own[32 * i];
    UNROLL for (u32 width = NORM_LANES / 64; width > 0; width /= 2) {
        UNROLL for (u32 i = 0; i < width; i++) v[i] += v[i + width];
    }
    const float sum = fold32(v[0]);
    return divide(1.0f, sqrt_(divide(sum, (float)len) + eps));
}

// lanes::rms_factor of a row, for all threads of the block; `sums` has NORM_LANES places. A barrier stands before and in
// between.
DEVICE float rms_factor(const float *row, u32 len, float eps, float *sums) {
    sync_block();
    for (u32 lane = thread_x(); lane < NORM_LANES; lane += threads()) {
        float sum = 0.0f;
        UNROLL_8 for (u32 at = lane; at < len; at += NORM_LANES) sum = fma_(row[at], row[at], sum);
        sums[lane] = sum;
    }
    sync_block();
    return rms_of_lanes(sums, len, eps);
}

// A row of activations on its way to int8, in the shared memory of one block.
struct RowScratch {
    float lanes[NORM_LANES], reduce[32];
    i32 sums[32];
};

// Numbers of a row that a thread asks for at once: memory answers them together.
#define AT_ONCE 16

DEVICE void load_row(const float *row, u32 start, u32 len, float (&v)[AT_ONCE]) {
    UNROLL for (u32 i = 0; i < AT_ONCE; i++) {
        u32 at = start + i * threads() + thread_x();
        v[i] = at < len ? row[at] : 0.0f;
    }
}

// Norms a row (for each of up to two weights in turn, where they are given) and leaves it in `row`, quantises it to `q`, `padded` long with zeros behind `len`. `early` is the start of the first weights, loaded ahead. Gives the scale it was
// multiplied by and the sum of the int8 values. All threads of the block; a barrier stands behind.
DEVICE float norm_quantize(const float *x, u32 len, u32 padded, const float *weight, const float *second,
                           float (&early)[AT_ONCE], float eps, float *row, u32 *q, RowScratch &scratch, i32 &sum) {
    const u32 step = AT_ONCE * threads();
    float amax = 0.0f, v[AT_ONCE];
    for (u32 start = 0; start < len; start += step) {
        load_row(x, start, len, v);
        UNROLL for (u32 i = 0; i < AT_ONCE; i++) {
            u32 at = start + i * threads() + thread_x();
            if (at < len) row[at] = v[i];
            amax = larger(magnitude(v[i]), amax);
        }
    }
    for (u32 n = 0; n < 2; n++) {
        const float *w = n == 0 ? weight : second;
        if (w == 0) continue;
        if (n == 1) load_row(w, 0, len, early);
        float factor = rms_factor(row, len, eps, scratch.lanes);
        amax = 0.0f;
        for (u32 start = 0; start < len; start += step) {
            if (start > 0) load_row(w, start, len, early);
            UNROLL for (u32 i = 0; i < AT_ONCE; i++) {
                u32 at = start + i * threads() + thread_x();
                if (at >= len) continue;
                float normed = (row[at] * factor) * early[i];
                row[at] = normed;
                amax = larger(magnitude(normed), amax);
            }
        }
    }
    sync_block();
    float scale = activation_scale(block_max_magnitude(amax, scratch.reduce));
    i32 own = 0;
    UNROLL_4 for (u32 i = thread_x(); i < padded / 4; i += threads()) {
        u32 word = 0;
        UNROLL for (u32 b = 0; b < 4; b++) {
            if (4 * i + b < len) word |= round_to_i8(row[4 * i + b] * scale) << (8 * b);
        }
        q[i] = word;
        own = dot4(word, 0x01010101u, own);
    }
    own = warp_sum(own);
    if (thread_x() % 32 == 0) scratch.sums[thread_x() / 32] = own;
    sync_block();
    sum = 0;
    for (u32 w = 0; w < threads() / 32; w++) sum += scratch.sums[w];
    return scale;
}
