// Several tokens whose rows are quantised already: dp4a everywhere, tensor cores from compute capability 8.0 on.
//
// Sums are integers, so all of these give the same bits, whatever the number of tokens.
#include "product.cuh"

struct GemmArgs {
    const u32 *q;        // [token][32 * groups] words of four int8
    const float *scales; // [token]
    const i32 *sums;     // [token]: sum of the row's int8 values
    u32 tokens, pad;
    Product product;
};

DEVICE Words4 weights_of(const Product &p, u32 block, u32 group, u32 lane) {
    block = block < p.row_blocks ? block : p.row_blocks - 1;
    return load_weights(p.weights + (((u64)block * p.groups + group) * 32 + lane) * 4);
}

DEVICE void finish_token(const GemmArgs &a, u32 block, u32 g, i32 low, i32 high, u32 token) {
    if (block < a.product.row_blocks && token < a.tokens)
        finish_at(a.product, block, g, low, high, token, a.scales[token], a.sums[token]);
}

#define DOT_TOKENS 8

// Eight tokens and one row block for each block of threads; warps share the columns.
KERNEL(256, gemm_dot, GemmArgs) {
    SHARED i32 parts[8][DOT_TOKENS][16];
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, warps = threads() / 32, groups = a.product.groups;
    const u32 block = block_x(), first = block_y() * DOT_TOKENS;
    i32 sums[DOT_TOKENS][2] = {};
    launch_next();
    await_previous();
    for (u32 group = warp; group < groups; group += warps) {
        Words4 w = weights_of(a.product, block, group, lane);
        u32 low[8], high[8];
        UNROLL for (u32 i = 0; i < 4; i++) {
            low[i] = codes(w.x, i), low[4 + i] = codes(w.y, i);
            high[i] = codes(w.z, i), high[4 + i] = codes(w.w, i);
        }
        UNROLL for (u32 n = 0; n < DOT_TOKENS; n++) {
            if (first + n >= a.tokens) continue;
            const u32 *q = a.q + ((u64)(first + n) * groups + group) * 32 + lane % 4 * 8;
            Words4 s = load4(q), t = load4(q + 4);
            const u32 slice[8] = {s.x, s.y, s.z, s.w, t.x, t.y, t.z, t.w};
            UNROLL for (u32 i = 0; i < 8; i++) {
                sums[n][0] = dot4(low[i], slice[i], sums[n][0]);
                sums[n][1] = dot4(high[i], slice[i], sums[n][1]);
            }
        }
    }
    UNROLL for (u32 n = 0; n < DOT_TOKENS; n++) {
        i32 low = quad_sum(sums[n][0]), high = quad_sum(sums[n][1]);
        if (lane % 4 == 0) {
            parts[warp][n][lane / 4] = low;
            parts[warp][n][lane / 4 + 8] = high;
        }
    }
    sync_block();
    UNROLL_1 for (u32 i = thread_x(); i < 8 * DOT_TOKENS; i += threads()) {
        u32 n = i / 8, g = i % 8;
        i32 low = 0, high = 0;
        for (u32 w = 0; w < warps; w++) {
            low += parts[w][n][g];
            high += parts[w][n][g + 8];
        }
        finish_token(a, block, g, low, high, first + n);
    }
}

#if defined(BITNET_EMULATE) || __CUDA_ARCH__ >= 800

// The fragment of a row block for step `s` of the four of a group.
DEVICE void fragment(const Words4 &w, u32 s, u32 (&a)[4]) {
    u32 low = s < 2 ? w.x : w.y, high = s < 2 ? w.z : w.w, i = 2 * (s % 2);
    a[0] = codes(low, i), a[1] = codes(high, i);
    a[2] = codes(low, i + 1), a[3] = codes(high, i + 1);
}

// Few tokens: `rows` row blocks and 8 * `tiles` tokens for each block of threads, whose warps share the columns and read
// activations from the second cache. Behind it the warps' sums are added in shared memory.
template <u32 rows, u32 tiles> DEVICE void gemm_few(const GemmArgs &a) {
    i32 *parts = (i32 *)dynamic_shared(); // [rows][tiles][row of 16][token of 8]
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, warps = threads() / 32, groups = a.product.groups;
    const u32 block = block_x() * rows, first = block_y() * 8 * tiles, g = lane / 4, t = lane % 4;
    i32 sums[rows][tiles][4] = {};
    launch_next();
    for (u32 i = thread_x(); i < rows * tiles * 128; i += threads()) parts[i] = 0;
    Words4 next[rows];
    UNROLL for (u32 r = 0; r < rows; r++) next[r] = weights_of(a.product, block + r, warp < groups ? warp : 0, lane);
    await_previous();
    sync_block();
    for (u32 group = warp; group < groups; group += warps) {
        Words4 w[rows];
        u32 after = group + warps < groups ? group + warps : group;
        UNROLL for (u32 r = 0; r < rows; r++) {
            w[r] = next[r];
            next[r] = weights_of(a.product, block + r, after, lane);
        }
        u32 b[tiles][8];
        UNROLL for (u32 n = 0; n < tiles; n++) {
            u32 token = first + 8 * n + g;
            token = token < a.tokens ? token : a.tokens - 1;
            const u32 *q = a.q + ((u64)token * groups + group) * 32 + t * 8;
            Words4 low = load4(q), high = load4(q + 4);
            b[n][0] = low.x, b[n][1] = low.y, b[n][2] = low.z, b[n][3] = low.w;
            b[n][4] = high.x, b[n][5] = high.y, b[n][6] = high.z, b[n][7] = high.w;
        }
        UNROLL for (u32 r = 0; r < rows; r++) {
            UNROLL for (u32 s = 0; s < 4; s++) {
                u32 f[4];
                fragment(w[r], s, f);
                UNROLL for (u32 n = 0; n < tiles; n++) mma(sums[r][n], f, b[n][2 * s], b[n][2 * s + 1]);
            }
        }
    }
    UNROLL for (u32 r = 0; r < rows; r++) {
        UNROLL for (u32 n = 0; n < tiles; n++) {
            i32 *part = parts + (r * tiles + n) * 128;
            atomic_add((u32 *)&part[g * 8 + 2 * t], (u32)sums[r][n][0]);
            atomic_add((u32 *)&part[g * 8 + 2 * t + 1], (u32)sums[r][n][1]);
            atomic_add((u32 *)&part[(g + 8) * 8 + 2 * t], (u32)sums[r][n][2]);
            atomic_add((u32 *)&part[(g + 8) * 8 + 2 * t + 1], (u32)sums[r][n][3]);
        }
    }
    sync_block();
    UNROLL_1 for (u32 i = thread_x(); i < rows * tiles * 64; i += threads()) {
        // Lanes side by side have rows side by side: they are neighbours in the result.
        u32 row = i % 8, token = i / 8 % 8, n = i / 64 % tiles, r = i / (64 * tiles);
        const i32 *part = parts + (r * tiles + n) * 128;
        finish_token(a, block + r, row, part[row * 8 + token], part[(row + 8) * 8 + token], first + 8 * n + token);
    }
}

KERNEL(256, gemm_1x2, GemmArgs) { gemm_few<1, 2>(a); }
KERNEL(256, gemm_1x4, GemmArgs) { gemm_few<1, 4>(a); }
KERNEL(256, gemm_2x4, GemmArgs) { gemm_few<2, 4>(a); }
KERNEL_FITTING(2, 256, gemm_1x8, GemmArgs) { gemm_few<1, 8>(a); }
KERNEL_FITTING(2, 256, gemm_2x8, GemmArgs) { gemm_few<2, 8>(a); }

// Many tokens: tiles of 128 rows and 128 tokens; a warp has 32 rows (two row blocks) and 64 tokens. Activations come
// through shared memory in stages of one group, three stages deep; weights go from memory to registers. The eight
// 16-byte pieces of a token's group are permuted by the token's number, so that quads read without conflicts.
#define MANY_TOKENS 128u
#define STAGES 3u
#define PART_ROW 17u // sums of a token, and one place more against conflicts

DEVICE void load_stage(const GemmArgs &a, u8 *stage, u32 first, u32 group) {
    const u32 groups = a.product.groups;
    for (u32 i = thread_x(); i < MANY_TOKENS * 8; i += threads()) {
        u32 row = i / 8, piece = i % 8, token = first + row;
        bool there = token < a.tokens && group < groups;
        const u32 *from = a.q + (there ? ((u64)token * groups + group) * 32 + piece * 4 : 0);
        copy_async(stage + row * 128 + (piece ^ (row % 8)) * 16, from, there);
    }
}

KERNEL_FITTING(2, 256, gemm_many, GemmArgs) {
    SHARED Words4 stages[STAGES][MANY_TOKENS * 8];
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, groups = a.product.groups;
    const u32 first = block_y() * MANY_TOKENS, block = block_x() * 8 + warp % 4 * 2, column = warp / 4 * 64;
    const u32 g = lane / 4, t = lane % 4;
    i32 sums[2][8][4] = {};
    launch_next();
    Words4 next[2];
    UNROLL for (u32 r = 0; r < 2; r++) next[r] = weights_of(a.product, block + r, 0, lane);
    await_previous();
    UNROLL for (u32 s = 0; s < STAGES - 1; s++) {
        load_stage(a, (u8 *)stages[s], first, s);
        copies_commit();
    }
    for (u32 group = 0; group < groups; group++) {
        copies_wait<STAGES - 2>();
        sync_block();
        load_stage(a, (u8 *)stages[(group + STAGES - 1) % STAGES], first, group + STAGES - 1);
        copies_commit();
        Words4 w[2];
        u32 after = group + 1 < groups ? group + 1 : group;
        UNROLL for (u32 r = 0; r < 2; r++) {
            w[r] = next[r];
            next[r] = weights_of(a.product, block + r, after, lane);
        }
        const Words4 *stage = stages[group % STAGES];
        UNROLL for (u32 h = 0; h < 2; h++) {
            u32 f[2][2][4];
            UNROLL for (u32 r = 0; r < 2; r++) {
                UNROLL for (u32 s = 0; s < 2; s++) fragment(w[r], 2 * h + s, f[r][s]);
            }
            UNROLL for (u32 n = 0; n < 8; n++) {
                u32 row = column + 8 * n + g;
                Words4 b = stage[row * 8 + ((2 * t + h) ^ (row % 8))];
                UNROLL for (u32 r = 0; r < 2; r++) {
                    mma(sums[r][n], f[r][0], b.x, b.y);
                    mma(sums[r][n], f[r][1], b.z, b.w);
                }
            }
        }
    }
    // Each warp turns its sums around in shared memory, so that neighbouring lanes write neighbouring results.
    copies_wait<0>();
    sync_block();
    i32 *part = (i32 *)stages + warp * 64 * PART_ROW;
    UNROLL for (u32 r = 0; r < 2; r++) {
        UNROLL for (u32 n = 0; n < 8; n++) {
            i32 *at = part + (8 * n + 2 * t) * PART_ROW + g;
            at[0] = sums[r][n][0], at[PART_ROW] = sums[r][n][1];
            at[8] = sums[r][n][2], at[PART_ROW + 8] = sums[r][n][3];
        }
        sync_warp();
        UNROLL_1 for (u32 i = lane; i < 64 * 8; i += 32) {
            const i32 *at = part + i / 8 * PART_ROW + i % 8;
            finish_token(a, block + r, i % 8, at[0], at[8], first + column + i / 8);
        }
        sync_warp();
    }
}

#endif
