// All logits of rows, from the output layer in full.
//
// Logits are dot products in the order of bitnet_core::lanes: sixteen chains. Two neighbouring threads share a row of the
// table, eight chains each, so that a step of sixteen elements is one sector of memory.
#include "table.cuh"

struct LogitsArgs {
    const float *h;    // [row][pitch], zeros behind the hidden size
    const void *table; // [vocabulary][pitch]
    float *logits;     // [row][vocabulary]
    u32 *flags;        // set to 1 if a logit is not a number
    u32 rows, vocab, pitch, pad;
};

template <u32 dtype, u32 count> DEVICE void logits(const LogitsArgs &a) {
    float *h = (float *)dynamic_shared(); // [count][pitch]
    launch_next();
    await_previous();
    const u32 first = block_y() * count;
    for (u32 i = thread_x(); i < count * a.pitch; i += threads()) {
        u32 row = first + i / a.pitch < a.rows ? first + i / a.pitch : a.rows - 1;
        h[i] = a.h[(u64)row * a.pitch + i % a.pitch];
    }
    sync_block();
    const u32 part = thread_x() % 2;
    const u64 token = (u64)block_x() * (threads() / 2) + thread_x() / 2;
    const u64 row = token < a.vocab ? token : a.vocab - 1;
    float sums[count][8] = {};
    UNROLL_4 for (u32 k = 8 * part; k < a.pitch; k += 16) {
        float w[8];
        table_eight<dtype>(a.table, row * a.pitch + k, w);
        UNROLL for (u32 r = 0; r < count; r++) {
            const float *x = h + r * a.pitch + k;
            UNROLL for (u32 i = 0; i < 8; i++) sums[r][i] = fma_(x[i], w[i], sums[r][i]);
        }
    }
    UNROLL for (u32 r = 0; r < count; r++) {
        // Chain i meets chain i + 8, then 4, 2 and 1.
        add_neighbour(sums[r]);
        UNROLL for (u32 i = 0; i < 4; i++) sums[r][i] += sums[r][i + 4];
        float logit = (sums[r][0] + sums[r][2]) + (sums[r][1] + sums[r][3]);
        if (part == 0 && token < a.vocab && first + r < a.rows) {
            a.logits[(u64)(first + r) * a.vocab + token] = logit;
            if (!is_finite(logit)) atomic_or(a.flags, 1);
        }
    }
}

KERNEL(256, logits_f32_1, LogitsArgs) { logits<TABLE_F32, 1>(a); }
KERNEL(256, logits_f32_4, LogitsArgs) { logits<TABLE_F32, 4>(a); }
KERNEL(256, logits_f16_1, LogitsArgs) { logits<TABLE_F16, 1>(a); }
KERNEL(256, logits_f16_4, LogitsArgs) { logits<TABLE_F16, 4>(a); }
KERNEL(256, logits_bf16_1, LogitsArgs) { logits<TABLE_BF16, 1>(a); }
KERNEL(256, logits_bf16_4, LogitsArgs) { logits<TABLE_BF16, 4>(a); }
