// Kernels of single rows: embedding, norm and quantisation, and what some architectures have beside the fused products.
#include "kv.cuh"
#include "scan.cu"

struct EmbedArgs {
    const void *table;  // [vocabulary][pitch], or rows [token][hidden] of f32 if `tokens` is null
    const u32 *tokens;  // [token]
    float *x;           // [token][hidden]
    u32 hidden, pitch;
    u32 dtype;
    float scale;        // 1: as it is
};

// Kernels behind this one may read inputs of the pass before they wait, so they begin when `fetch` of mailbox.cu has ended.
KERNEL(256, embed, EmbedArgs) {
    await_previous();
    launch_next();
    const u64 token = block_x();
    const u64 row = a.tokens != 0 ? a.tokens[token] : token;
    for (u32 i = thread_x(); i < a.hidden; i += threads()) {
        float v = table_element(a.table, a.dtype, row * a.pitch + i);
        a.x[token * a.hidden + i] = a.scale == 1.0f ? v : v * a.scale;
    }
}

struct QuantizeArgs {
    const float *x; // [token][stride]
    const float *weight, *second;
    u32 *q;         // [token][padded / 4]
    float *scales;  // [token]
    i32 *sums;      // [token]
    float *rows;    // [token][len]: for rows too long for shared memory, or null
    u32 len, padded, stride;
    float eps;
};

KERNEL(512, quantize_rows, QuantizeArgs) {
    SHARED RowScratch scratch;
    float early[AT_ONCE];
    if (a.weight != 0) load_row(a.weight, 0, a.len, early);
    await_previous();
    const u64 token = block_x();
    float *row = a.rows != 0 ? a.rows + token * a.len : (float *)dynamic_shared();
    i32 sum;
    launch_next();
    float scale = norm_quantize(a.x + token * a.stride, a.len, a.padded, a.weight, a.second, early, a.eps, row,
                                a.q + token * (a.padded / 4), scratch, sum);
    if (thread_x() == 0) {
        a.scales[token] = scale;
        a.sums[token] = sum;
    }
}

struct NormArgs {
    const float *x;      // [..][stride]
    const float *weight; // [len]
    const u32 *picked;   // [row]: which rows of x; null: all
    float *out;          // [row][out_stride]; zeros from len on
    float *rows;         // as in QuantizeArgs
    u32 *flags;          // set to 1 if a result is not a number; may be null
    u32 *parts;          // [row][2][groups * 32]: images of the first `split` rows; scan.cu
    HiddenImage *images; // [row]
    u32 split, groups;
    u32 len, stride, out_stride;
    u32 add;             // add the normed row to `out` instead
    float eps;
    u32 pad;
};

KERNEL(512, norm_rows, NormArgs) {
    SHARED float scratch[NORM_LANES];
    SHARED SplitScratch split;
    float early[AT_ONCE];
    launch_next();
    load_row(a.weight, 0, a.len, early);
    await_previous();
    const u64 index = block_x(), source = a.picked != 0 ? a.picked[index] : index;
    float *row = a.rows != 0 ? a.rows + index * a.len : (float *)dynamic_shared();
    for (u32 start = 0; start < a.len; start += AT_ONCE * threads()) {
        float v[AT_ONCE];
        load_row(a.x + source * a.stride, start, a.len, v);
        UNROLL for (u32 i = 0; i < AT_ONCE; i++) {
            u32 at = start + i * threads() + thread_x();
            if (at < a.len) row[at] = v[i];
        }
    }
    float factor = rms_factor(row, a.len, a.eps, scratch);
    float *out = a.out + index * a.out_stride;
    bool fine = true;
    for (u32 start = 0; start < a.len; start += AT_ONCE * threads()) {
        if (start > 0) load_row(a.weight, start, a.len, early);
        UNROLL for (u32 i = 0; i < AT_ONCE; i++) {
            const u32 at = start + i * threads() + thread_x();
            if (at >= a.len) continue;
            const float v = (row[at] * factor) * early[i];
            row[at] = v;
            fine = fine && is_finite(v);
            out[at] = a.add != 0 ? out[at] + v : v;
        }
    }
    if (a.add == 0) {
        for (u32 i = a.len + thread_x(); i < a.out_stride; i += threads()) out[i] = 0.0f;
    }
    if (!fine && a.flags != 0) atomic_or(a.flags, 1);
    if (index >= a.split) return;
    sync_block();
    split_hidden(row, a.len, a.groups, a.parts + index * 2 * a.groups * 32, a.images + index, split);
}

struct HeadsArgs {
    float *qkv; // [token][stride]: queries, keys and values of all heads; queries are changed in place
    const float *query_norm, *key_norm;
    u32 stride, heads, kv_heads;
    float eps;
    KvTarget kv;
};

// A block of threads has one head of one token: norms, rotates, and stores keys and values.
KERNEL(128, place_heads, HeadsArgs) {
    SHARED float head[256], lanes[NORM_LANES], scratch[32];
    launch_next();
    await_previous();
    const KvTarget &kv = a.kv;
    const u32 index = block_x(), token = block_y(), d = kv.head_dim, half = d / 2, position = kv.positions[token];
    const u32 kind = index < a.heads ? 0 : (index < a.heads + a.kv_heads ? 1 : 2);
    float *row = a.qkv + (u64)token * a.stride + index * d;
    for (u32 i = thread_x(); i < 256; i += threads()) head[i] = i < d ? row[i] : 0.0f;
    const float *norm = kind == 0 ? a.query_norm : (kind == 1 ? a.key_norm : 0);
    sync_block();
    if (norm != 0) {
        float factor = rms_factor(head, d, a.eps, lanes);
        for (u32 i = thread_x(); i < d; i += threads()) head[i] = (head[i] * factor) * norm[i];
        sync_block();
    }
    if (kind < 2) {
        for (u32 j = thread_x(); j < half; j += threads()) {
            float c = kv.cosines[(u64)position * half + j], s = kv.sines[(u64)position * half + j];
            float low = head[j], high = head[j + half];
            head[j] = low * c - high * s;
            head[j + half] = high * c + low * s;
        }
        sync_block();
    }
    if (kind == 0) {
        for (u32 i = thread_x(); i < d; i += threads()) row[i] = head[i];
        return;
    }
    const u32 kv_head = (index - a.heads) % a.kv_heads, slot = position % KV_BLOCK;
    u8 *block = kv.blocks[token];
    if (kv.kv_type != KV_INT8) {
        for (u32 i = thread_x(); i < d; i += threads())
            store_element(kv, element_at(kv, block, kind == 1, slot, kv_head * d + i), head[i]);
        return;
    }
    float amax = 0.0f, scale, inverse;
    for (u32 i = thread_x(); i < d; i += threads()) amax = larger(magnitude(head[i]), amax);
    quantising_scales(block_max(amax, scratch), 127.0f, scale, inverse);
    u8 *piece = block + kv.layer_offset + (u64)kv_head * kv.piece_bytes, *values = piece + kv.key_bytes;
    for (u32 i = thread_x(); i < d; i += threads()) {
        u8 code = (u8)float_bits(clamp(head[i] * inverse, -127.0f, 127.0f) + MAGIC);
        if (kind == 1)
            piece[key_index<KV_INT8>(slot, i)] = code;
        else
            values[slot * kv.padded_dim + i] = code;
    }
    float *scales = (float *)(values + KV_BLOCK * kv.padded_dim);
    if (thread_x() == 0) scales[(kind == 1 ? 0 : KV_BLOCK) + slot] = scale;
}

struct ActivateArgs {
    const float *gate_up; // [token][2 * len]: gate, then up
    float *out;           // [token][len]
    u32 len, activation;
};

KERNEL(256, activate_rows, ActivateArgs) {
    launch_next();
    await_previous();
    const u64 token = block_y();
    const u32 i = block_x() * threads() + thread_x();
    if (i < a.len) {
        float gate = a.gate_up[token * 2 * a.len + i], up = a.gate_up[token * 2 * a.len + a.len + i];
        a.out[token * a.len + i] = activate(a.activation, gate) * up;
    }
}
