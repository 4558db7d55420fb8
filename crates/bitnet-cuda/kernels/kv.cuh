// The paged cache of keys and values: one allocation holds blocks of 32 positions, a block all layers, a layer for each
// head one piece: keys [head_dim / vector][32][vector] (a vector is 16 bytes), values [32][padded head_dim], and for int8
// the scales of keys and values, [32] f32 each. Tables hold the addresses of blocks.
#pragma once
#include "arith.cuh"

#define KV_BLOCK 32u
#define KV_F32 0u
#define KV_F16 1u
#define KV_INT8 2u

// Where keys and values of new tokens go, and how they are rotated before.
struct KvTarget {
    const float *cosines, *sines; // [position][head_dim / 2]
    const u32 *positions;         // [token]
    u8 *const *blocks;            // [token]: the block that holds the token
    u64 layer_offset;             // bytes from the start of a block to the layer
    u32 piece_bytes, key_bytes;   // of a head's piece, and of the keys in it
    u32 head_dim, padded_dim;
    u32 kv_type, pad;
};

template <u32 kv_type> struct KvFormat;
template <> struct KvFormat<KV_F32> {
    static const u32 bytes = 4, vector = 4;
};
template <> struct KvFormat<KV_F16> {
    static const u32 bytes = 2, vector = 8;
};
template <> struct KvFormat<KV_INT8> {
    static const u32 bytes = 1, vector = 16;
};

// Index of element `e` of the key at `slot` of a piece.
template <u32 kv_type> DEVICE u32 key_index(u32 slot, u32 e) {
    const u32 vector = KvFormat<kv_type>::vector;
    return (e / vector * KV_BLOCK + slot) * vector + e % vector;
}

// Where element `index` of all heads' keys or values lies, f32 or f16.
DEVICE u8 *element_at(const KvTarget &kv, u8 *block, bool key, u32 slot, u32 index) {
    const u32 head = index / kv.head_dim, e = index % kv.head_dim, bytes = kv.kv_type == KV_F16 ? 2 : 4;
    u8 *piece = block + kv.layer_offset + (u64)head * kv.piece_bytes;
    if (!key) return piece + kv.key_bytes + (slot * kv.padded_dim + e) * bytes;
    return piece + bytes * (kv.kv_type == KV_F16 ? key_index<KV_F16>(slot, e) : key_index<KV_F32>(slot, e));
}

DEVICE void store_element(const KvTarget &kv, u8 *at, float x) {
    if (kv.kv_type == KV_F16)
        *(u16 *)at = float_half(x);
    else
        *(float *)at = x;
}
