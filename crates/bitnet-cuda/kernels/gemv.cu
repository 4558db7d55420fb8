// One token: norm, quantisation and product in one launch.
//
// A block of threads has `tile` row blocks. Its weights are asked for first, before the row they are multiplied with is
// there; then every block norms and quantises the row for itself, which is less work than another launch. The warps share
// the columns; integer sums are exact in any order.
#include "product.cuh"

struct GemvArgs {
    const float *x; // [token][stride_x]
    const float *weight, *second;
    u32 len, padded; // columns, and columns rounded up to groups
    u32 stride_x;
    float eps;
    Product product;
};

#define AHEAD 4

DEVICE void multiply(const Words4 &w, const u32 *q, i32 (&sums)[2]) {
    const u32 words[4] = {w.x, w.y, w.z, w.w};
    UNROLL for (u32 h = 0; h < 2; h++) {
        UNROLL for (u32 i = 0; i < 4; i++) {
            u32 a = q[4 * h + i];
            sums[0] = dot4(codes(words[h], i), a, sums[0]);
            sums[1] = dot4(codes(words[2 + h], i), a, sums[1]);
        }
    }
}

// 32 bytes of activations: what lane `t` of a quad multiplies in a group.
DEVICE void load_slice(const u32 *row, u32 group, u32 t, u32 (&q)[8]) {
    Words4 a = load4(row + group * 32 + t * 8), b = load4(row + group * 32 + t * 8 + 4);
    q[0] = a.x, q[1] = a.y, q[2] = a.z, q[3] = a.w;
    q[4] = b.x, q[5] = b.y, q[6] = b.z, q[7] = b.w;
}

template <u32 tile> DEVICE void gemv(const GemvArgs &a) {
    SHARED RowScratch scratch;
    SHARED i32 parts[16][tile][16];
    u32 *q = (u32 *)dynamic_shared();
    float *row = (float *)(q + a.padded / 4);
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, warps = threads() / 32;
    const u32 first = block_x() * tile, token = block_y(), groups = a.product.groups;
    launch_next();
    // As many groups as fit registers; what is not there reads the last one again and is not used.
    Words4 ahead[tile][AHEAD];
    UNROLL for (u32 r = 0; r < tile; r++) {
        u32 block = first + r < a.product.row_blocks ? first + r : a.product.row_blocks - 1;
        UNROLL for (u32 i = 0; i < AHEAD; i++) {
            u32 group = warp + i * warps < groups ? warp + i * warps : groups - 1;
            ahead[r][i] = load_weights(a.product.weights + (((u64)block * groups + group) * 32 + lane) * 4);
        }
    }
    float early[AT_ONCE];
    if (a.weight != 0) load_row(a.weight, 0, a.len, early);
    await_previous();
    i32 row_sum;
    float scale = norm_quantize(a.x + (u64)token * a.stride_x, a.len, a.padded, a.weight, a.second, early, a.eps, row,
                                q, scratch, row_sum);
    i32 sums[tile][2] = {};
    u32 slice[8];
    UNROLL for (u32 i = 0; i < AHEAD; i++) {
        u32 group = warp + i * warps;
        if (group < groups) {
            load_slice(q, group, lane % 4, slice);
            UNROLL for (u32 r = 0; r < tile; r++) multiply(ahead[r][i], slice, sums[r]);
        }
    }
    for (u32 group = warp + AHEAD * warps; group < groups; group += warps) {
        load_slice(q, group, lane % 4, slice);
        UNROLL for (u32 r = 0; r < tile; r++) {
            u32 block = first + r < a.product.row_blocks ? first + r : a.product.row_blocks - 1;
            Words4 w = load_weights(a.product.weights + (((u64)block * groups + group) * 32 + lane) * 4);
            multiply(w, slice, sums[r]);
        }
    }
    UNROLL for (u32 r = 0; r < tile; r++) {
        i32 low = quad_sum(sums[r][0]), high = quad_sum(sums[r][1]);
        if (lane % 4 == 0) {
            parts[warp][r][lane / 4] = low;
            parts[warp][r][lane / 4 + 8] = high;
        }
    }
    sync_block();
    u32 r = thread_x() / 8, g = thread_x() % 8;
    if (r < tile && first + r < a.product.row_blocks) {
        i32 low = 0, high = 0;
        for (u32 w = 0; w < warps; w++) {
            low += parts[w][r][g];
            high += parts[w][r][g + 8];
        }
        finish(a.product, a.product.blocks[first + r], g, low, high, token, scale, row_sum);
    }
}

KERNEL_FITTING(2, 512, gemv_1, GemvArgs) { gemv<1>(a); }
KERNEL_FITTING(2, 512, gemv_2, GemvArgs) { gemv<2>(a); }
