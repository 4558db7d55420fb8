// The emulator's version of device.cuh: what kernels use, for one fiber a CUDA thread. See emulate.cpp.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define DEVICE static inline
#define CALLED static
#define SHARED static
#define UNROLL
#define UNROLL_1
#define UNROLL_4
#define UNROLL_8

// A kernel becomes a function that takes the bytes of its argument, with their number beside it.
#define KERNEL(threads, name, Args)                                                                                    \
    static void body_##name(const Args a);                                                                             \
    extern "C" const u32 bitnet_argument_##name = sizeof(Args);                                                        \
    extern "C" const u32 bitnet_threads_##name = threads;                                                              \
    extern "C" void bitnet_kernel_##name(const void *bytes) { body_##name(*(const Args *)bytes); }                     \
    static void body_##name(const Args a)

#define KERNEL_FITTING(blocks, threads, name, Args) KERNEL(threads, name, Args)

namespace emulator {
struct Place {
    u32 thread, threads, block[3], grid[3];
    u32 rank; // of the block in its cluster
};
extern Place place;
extern void *dynamic;
// Waits for all threads of the block, or of the warp.
void wait_block();
// Waits for all blocks of the cluster. What lies in `shared`, if that is not null, is kept for them.
void wait_cluster(const void *shared, size_t bytes);
// What the block `rank` of the cluster had where this one has `own`, when it waited last with something shared.
const void *of_cluster(const void *own, u32 rank);
// Gives `bytes` (at most 64) to the warp; gives what all of its lanes gave, 64 bytes each, when all of them are here.
const u8 *exchange(const void *given, size_t bytes);
} // namespace emulator

DEVICE u32 thread_x() { return emulator::place.thread; }
DEVICE u32 threads() { return emulator::place.threads; }
DEVICE u32 block_x() { return emulator::place.block[0]; }
DEVICE u32 block_y() { return emulator::place.block[1]; }
DEVICE u32 block_z() { return emulator::place.block[2]; }
DEVICE u32 grid_x() { return emulator::place.grid[0]; }
DEVICE u32 grid_y() { return emulator::place.grid[1]; }
DEVICE void *dynamic_shared() { return emulator::dynamic; }

DEVICE void sync_block() { emulator::wait_block(); }
DEVICE void sync_warp() { emulator::exchange(nullptr, 0); }

DEVICE float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float sqrt_(float x) { return std::sqrt(x); }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE u32 float_bits(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
DEVICE float bits_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

DEVICE float half_float(u16 bits) {
    float x = bits_float((u32)(bits & 0x7fff) << 13) * bits_float(0x77800000u);
    return bits_float(float_bits(x) | (u32)(bits & 0x8000) << 16);
}

DEVICE u16 float_half(float x) {
    u32 sign = float_bits(x) >> 16 & 0x8000;
    float a = bits_float(float_bits(x) & 0x7fffffff);
    if (a != a) return (u16)(sign | 0x7e00);
    a = a > 65504.0f ? 65504.0f : a;
    u32 bits = float_bits(a);
    if (a < bits_float(0x38800000u)) return (u16)(sign | (float_bits(a + 0.5f) - float_bits(0.5f)));
    return (u16)(sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)));
}

DEVICE i32 dot4(u32 a, u32 b, i32 c) {
    for (u32 i = 0; i < 4; i++) c += (i32)(i8)(a >> (8 * i)) * (i32)(i8)(b >> (8 * i));
    return c;
}

DEVICE i32 dot4_unsigned(u32 a, u32 b, i32 c) {
    for (u32 i = 0; i < 4; i++) c += (i32)(u8)(a >> (8 * i)) * (i32)(i8)(b >> (8 * i));
    return c;
}

template <class T> DEVICE T lane_value(const u8 *all, u32 lane) {
    T value;
    memcpy(&value, all + 64 * lane, sizeof(T));
    return value;
}

DEVICE float shuffle_xor(float x, u32 mask) {
    return lane_value<float>(emulator::exchange(&x, 4), (thread_x() % 32) ^ mask);
}

DEVICE float shuffle_up(float x, u32 by) {
    const u32 lane = thread_x() % 32;
    return lane_value<float>(emulator::exchange(&x, 4), lane < by ? lane : lane - by);
}

// Adds what the other lane of a pair has.
DEVICE void add_neighbour(float (&v)[8]) {
    float all[8];
    memcpy(all, emulator::exchange(v, sizeof(v)) + 64 * ((thread_x() % 32) ^ 1), sizeof(v));
    for (u32 i = 0; i < 8; i++) v[i] += all[i];
}

// Reductions in one exchange: each lane does the additions of the butterfly for itself.
DEVICE float warp_max(float x) {
    const u8 *all = emulator::exchange(&x, 4);
    for (u32 l = 0; l < 32; l++) {
        float y = lane_value<float>(all, l);
        x = y > x ? y : x;
    }
    return x;
}

DEVICE float warp_max_magnitude(float x) { return warp_max(bits_float(float_bits(x) & 0x7fffffff)); }

DEVICE i32 warp_sum(i32 x) {
    const u8 *all = emulator::exchange(&x, 4);
    x = 0;
    for (u32 l = 0; l < 32; l++) x += lane_value<i32>(all, l);
    return x;
}

DEVICE i32 quad_sum(i32 x) {
    const u8 *all = emulator::exchange(&x, 4);
    x = 0;
    for (u32 l = 0; l < 4; l++) x += lane_value<i32>(all, thread_x() % 32 / 4 * 4 + l);
    return x;
}

template <u32 lanes> DEVICE float fold_lanes(float x) {
    const u8 *all = emulator::exchange(&x, 4);
    float acc[lanes];
    for (u32 i = 0; i < lanes; i++) acc[i] = lane_value<float>(all, thread_x() % 32 / lanes * lanes + i);
    for (u32 width = lanes / 2; width > 0; width /= 2) {
        for (u32 i = 0; i < width; i++) acc[i] += acc[i + width];
    }
    return acc[0];
}
DEVICE float fold16(float x) { return fold_lanes<16>(x); }
DEVICE float fold32(float x) { return fold_lanes<32>(x); }

DEVICE Words4 load4(const void *p) {
    if ((uintptr_t)p % 16 != 0) __builtin_trap(); // as on the device
    return *(const Words4 *)p;
}
DEVICE Words4 load_ahead(const void *p) { return load4(p); }
DEVICE void prefetch(const void *) {}
DEVICE Words4 load_weights(const void *p) { return load4(p); }

DEVICE u32 atomic_add(u32 *p, u32 v) {
    u32 old = *p;
    *p = old + v;
    return old;
}
DEVICE u32 atomic_add_ordered(u32 *p, u32 v) { return atomic_add(p, v); }
DEVICE void atomic_or(u32 *p, u32 v) { *p |= v; }

DEVICE u64 load_host(const u64 *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
DEVICE Words4 load4_host(const Words4 *p) { return load4(p); }
DEVICE void store_release_host(u64 *p, u64 v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

DEVICE void launch_next() {}
DEVICE void await_previous() {}

#define CLUSTERS 1
template <class T> DEVICE void share_with_cluster(const T &shared) { emulator::wait_cluster(&shared, sizeof(T)); }
DEVICE void end_cluster_reads() {}
DEVICE void await_cluster() { emulator::wait_cluster(nullptr, 0); }
DEVICE u64 load_from_cluster(const void *own, u32 rank) {
    u64 v;
    memcpy(&v, emulator::of_cluster(own, rank), sizeof(v));
    return v;
}

DEVICE void mma(i32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 given[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const u8 *all = emulator::exchange(given, sizeof(given));
    const u32 g = thread_x() % 32 / 4, t = thread_x() % 4;
    // Rows g and g + 8 and columns 2 t and 2 t + 1, 32 bytes each, from the four lanes that have them.
    alignas(32) i8 rows[2][32];
    alignas(32) i8 columns[2][32];
    for (u32 k = 0; k < 4; k++) {
        const u8 *lane = all + 64 * (4 * g + k);
        for (u32 i = 0; i < 4; i++) memcpy(rows[i % 2] + 8 * k + i / 2 * 4, lane + 4 * i, 4);
        for (u32 n = 0; n < 2; n++) memcpy(columns[n] + 8 * k, all + 64 * (4 * (2 * t + n) + k) + 16, 8);
    }
    for (u32 r = 0; r < 2; r++) {
        for (u32 n = 0; n < 2; n++) {
            i32 sum = 0;
            for (u32 i = 0; i < 32; i++) sum += (i32)rows[r][i] * (i32)columns[n][i];
            c[2 * r + n] += sum;
        }
    }
}

DEVICE void copy_async(void *to, const void *from, bool valid) {
    if (valid)
        *(Words4 *)to = load4(from);
    else
        memset(to, 0, 16);
}
DEVICE void copies_commit() {}
template <int pending> DEVICE void copies_wait() {}

struct PieceCopies {};
DEVICE void prepare_copies(PieceCopies &) {}
DEVICE void expect_copies(PieceCopies &, u32) {}
DEVICE void begin_copy(PieceCopies &, void *to, const void *from, u32 bytes) {
    for (u32 i = thread_x(); i < bytes / 16; i += threads()) copy_async((Words4 *)to + i, (const Words4 *)from + i, true);
}
DEVICE void begin_warp_copy(PieceCopies &, void *to, const void *from, u32 bytes) {
    for (u32 i = thread_x() % 32; i < bytes / 16; i += 32) copy_async((Words4 *)to + i, (const Words4 *)from + i, true);
}
DEVICE void await_copies(PieceCopies &, u32) {}
