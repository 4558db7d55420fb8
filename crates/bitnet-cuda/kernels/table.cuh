// Tables of the embedding and the output layer: rows of f32, f16 or bf16.
#pragma once
#include "arith.cuh"

#define TABLE_F32 0u
#define TABLE_F16 1u
#define TABLE_BF16 2u

DEVICE float bf16_float(u32 bits) { return bits_float(bits << 16); }

DEVICE float table_element(const void *table, u32 dtype, u64 index) {
    if (dtype == TABLE_F32) return ((const float *)table)[index];
    u16 bits = ((const u16 *)table)[index];
    return dtype == TABLE_F16 ? half_float(bits) : bf16_float(bits);
}

// Eight elements in a row, from 16 (f32: 32) bytes that begin at a multiple of eight elements.
template <u32 dtype> DEVICE void table_eight(const void *table, u64 index, float (&out)[8]) {
    if (dtype == TABLE_F32) {
        Words4 a = load_weights((const float *)table + index), b = load_weights((const float *)table + index + 4);
        const u32 words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        UNROLL for (u32 i = 0; i < 8; i++) out[i] = bits_float(words[i]);
        return;
    }
    Words4 a = load_weights((const u16 *)table + index);
    const u32 words[4] = {a.x, a.y, a.z, a.w};
    UNROLL for (u32 i = 0; i < 4; i++) {
        u32 low = words[i] & 0xffff, high = words[i] >> 16;
        out[2 * i] = dtype == TABLE_F16 ? half_float((u16)low) : bf16_float(low);
        out[2 * i + 1] = dtype == TABLE_F16 ? half_float((u16)high) : bf16_float(high);
    }
}
