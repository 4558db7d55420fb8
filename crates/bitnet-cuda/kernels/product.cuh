// Products of ternary weights and int8 activations: the layout of weights, and what becomes of a sum.
//
// Weights are codes, trit + 1, of two bits. Sixteen rows are a row block, 128 columns a group; a row block has a group in
// 512 bytes, 16 for each lane of a warp: lane 4 g + t has columns 32 t..32 t + 32 of rows g (two words) and g + 8 (two).
// Within a word the code of column 4 i + b of sixteen is at bits 8 b + 2 i, so that shifting right by 2 i and masking
// gives four codes as bytes in the order of the activations. This is what mma.m16n8k32 wants, with columns permuted
// alike in both factors, and what dp4a wants as well.
#pragma once
#include "arith.cuh"
#include "kv.cuh"

#define CODES 0x03030303u

// What a row block's rows are, bitnet_cuda::layout::RowBlock. Rows come in two halves of eight.
struct RowBlock {
    float scale_low, scale_high; // what trits stand for in each half
    u32 out_low, out_high;       // place of each half's first row in the result
    u32 valid_low, valid_high;   // rows of each half that are there
    u32 kind;                    // of EPILOGUE_QKV: 0 query, 1 key, 2 value
    u32 pad;
};

// What becomes of the sums.
#define EPILOGUE_STORE 0u // out[token][row] = y
#define EPILOGUE_ADD 1u   // out[token][row] += y
#define EPILOGUE_GATED 2u // halves are gate and up: out[token][row] = act(gate) * up
#define EPILOGUE_QKV 3u   // rotates queries and keys, halves being pairs; keys and values go to the cache

struct Product {
    const u32 *weights;      // [row block][group][lane][4]
    const RowBlock *blocks;  // [row block]
    float *out;              // [token][stride]
    u32 row_blocks, groups;  // groups: of 128 columns
    u32 stride, epilogue;
    u32 activation, pad;
    KvTarget kv;
};

// Expands the i-th four codes of a word.
DEVICE u32 codes(u32 word, u32 i) { return (word >> (2 * i)) & CODES; }

// What two results of a row block need beside their sums: asked for before sums are there.
struct Ending {
    float low, high;         // factors of the sums
    float old_low, old_high; // what they are added to
    float cosine, sine;
    u8 *at_low, *at_high; // where keys and values go
};

// Functions below have what becomes of sums as `epilogue` where it shall be known to the compiler.
#define EPILOGUE_ANY 4u
template <u32 epilogue> DEVICE u32 epilogue_of(const Product &p) { return epilogue == EPILOGUE_ANY ? p.epilogue : epilogue; }

// What does not change while a pass runs: of row `g` of both halves of row block `b`.
template <u32 epilogue> DEVICE Ending ending(const Product &p, const RowBlock &b, u32 g, u32 token) {
    Ending e;
    e.low = e.high = 0.0f, e.old_low = e.old_high = 0.0f, e.cosine = e.sine = 0.0f, e.at_low = e.at_high = 0;
    if (epilogue_of<epilogue>(p) == EPILOGUE_QKV) {
        const u32 position = p.kv.positions[token];
        if (b.kind < 2 && g < b.valid_low) {
            u32 half = p.kv.head_dim / 2, j = (b.out_low + g) % p.kv.head_dim;
            e.cosine = p.kv.cosines[(u64)position * half + j], e.sine = p.kv.sines[(u64)position * half + j];
        }
        if (b.kind != 0) {
            u8 *piece = p.kv.blocks[token];
            e.at_low = element_at(p.kv, piece, b.kind == 1, position % KV_BLOCK, b.out_low + g);
            e.at_high = element_at(p.kv, piece, b.kind == 1, position % KV_BLOCK, b.out_high + g);
        }
    }
    return e;
}

// What kernels before this one wrote.
template <u32 epilogue> DEVICE void load_old(const Product &p, const RowBlock &b, u32 g, u32 token, Ending &e) {
    if (epilogue_of<epilogue>(p) != EPILOGUE_ADD) return;
    const u32 row = token * p.stride + g;
    if (g < b.valid_low) e.old_low = p.out[row + b.out_low];
    if (g < b.valid_high) e.old_high = p.out[row + b.out_high];
}

// The sums of rows `g` and `g + 8` of a row block with one token's row, before the codes' offset is taken off: becomes
// two results of the row block.
template <u32 epilogue>
DEVICE void finish(const Product &p, const RowBlock &b, const Ending &e, u32 g, i32 low, i32 high, u32 token, i32 row_sum) {
    const u32 kind = epilogue_of<epilogue>(p), row = token * p.stride + g;
    float y_low = (float)(low - row_sum) * e.low, y_high = (float)(high - row_sum) * e.high;
    bool has_low = g < b.valid_low, has_high = g < b.valid_high;
    if (kind == EPILOGUE_GATED) {
        if (has_low) p.out[row + b.out_low] = activate(p.activation, y_low) * y_high;
        return;
    }
    if (kind == EPILOGUE_ADD) y_low = e.old_low + y_low, y_high = e.old_high + y_high;
    if (kind == EPILOGUE_QKV) {
        if (b.kind < 2 && has_low) {
            float turned = y_low * e.cosine - y_high * e.sine;
            y_high = y_high * e.cosine + y_low * e.sine;
            y_low = turned;
        }
        if (b.kind != 0) {
            if (has_low) store_element(p.kv, e.at_low, y_low);
            if (has_high) store_element(p.kv, e.at_high, y_high);
            return;
        }
    }
    if (has_low) p.out[row + b.out_low] = y_low;
    if (has_high) p.out[row + b.out_high] = y_high;
}

// All of that at once, where nothing can be asked for ahead.
DEVICE void finish_at(const Product &p, u32 block, u32 g, i32 low, i32 high, u32 token, float scale, i32 row_sum) {
    const RowBlock b = p.blocks[block];
    Ending e = ending<EPILOGUE_ANY>(p, b, g, token);
    e.low = divide(b.scale_low, scale), e.high = divide(b.scale_high, scale);
    load_old<EPILOGUE_ANY>(p, b, g, token, e);
    finish<EPILOGUE_ANY>(p, b, e, g, low, high, token, row_sum);
}
