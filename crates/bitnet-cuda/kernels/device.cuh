// What kernels use of the device, in two versions: NVRTC's, and that of the CPU emulator of the tests (BITNET_EMULATE).
//
// No header of the CUDA toolkit is needed. A kernel takes one structure by value, so that a launch is a name, a grid and
// bytes. Products and sums are never contracted (--fmad=false, -ffp-contract=off): where a fused multiply-add is meant,
// fma_() stands. Warp operations must be reached by all 32 lanes of a warp together.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) Words4 {
    u32 x, y, z, w;
};

#ifdef BITNET_EMULATE
#include "emulate.h"
#else

#define DEVICE __device__ __forceinline__
#define CALLED __device__ __noinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define UNROLL_1 _Pragma("unroll 1")
#define UNROLL_4 _Pragma("unroll 4")
#define UNROLL_8 _Pragma("unroll 8")
#define KERNEL(threads, name, Args) extern "C" __global__ void __launch_bounds__(threads) name(const Args a)
// A kernel of which so many blocks shall fit a multiprocessor.
#define KERNEL_FITTING(blocks, threads, name, Args)                                                                    \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Args a)

DEVICE u32 thread_x() { return threadIdx.x; }
DEVICE u32 threads() { return blockDim.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 block_z() { return blockIdx.z; }
DEVICE u32 grid_x() { return gridDim.x; }
DEVICE u32 grid_y() { return gridDim.y; }

extern "C" __shared__ Words4 bitnet_dynamic_shared[];
DEVICE void *dynamic_shared() { return bitnet_dynamic_shared; }

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }

DEVICE float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float sqrt_(float x) { return __fsqrt_rn(x); }
DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
DEVICE u32 float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(u32 x) { return __uint_as_float(x); }

DEVICE float half_float(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// Rounds half to even; beyond the range of half precision the largest finite number of that sign.
DEVICE u16 float_half(float x) {
    u16 bits;
    x = x > 65504.0f ? 65504.0f : (x < -65504.0f ? -65504.0f : x);
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// c + the sum of the products of four signed bytes.
DEVICE i32 dot4(u32 a, u32 b, i32 c) {
    i32 sum;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

// The same with unsigned bytes in a.
DEVICE i32 dot4_unsigned(u32 a, u32 b, i32 c) {
    i32 sum;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

DEVICE float shuffle_xor(float x, u32 mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE i32 shuffle_xor(i32 x, u32 mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// What the lane `by` in front of this one has; the first lanes get their own.
DEVICE float shuffle_up(float x, u32 by) { return __shfl_up_sync(0xffffffffu, x, by); }

// Adds what the other lane of a pair has.
DEVICE void add_neighbour(float (&v)[8]) {
    UNROLL for (u32 i = 0; i < 8; i++) v[i] += shuffle_xor(v[i], 1);
}

// Sums, and the largest of floats and of their magnitudes. Floats have the order of integers made of their bits, negative
// ones upside down.
#if __CUDA_ARCH__ >= 800
DEVICE float warp_max(float x) {
    const i32 bits = __float_as_int(x);
    const i32 most = __reduce_max_sync(0xffffffffu, bits ^ (bits >> 31 & 0x7fffffff));
    return __int_as_float(most ^ (most >> 31 & 0x7fffffff));
}
DEVICE i32 warp_sum(i32 x) { return __reduce_add_sync(0xffffffffu, x); }
DEVICE float warp_max_magnitude(float x) {
    return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x) & 0x7fffffffu));
}
#else
DEVICE float warp_max(float x) {
    UNROLL for (u32 m = 16; m > 0; m >>= 1) {
        float y = shuffle_xor(x, m);
        x = y > x ? y : x;
    }
    return x;
}
DEVICE i32 warp_sum(i32 x) {
    UNROLL for (u32 m = 16; m > 0; m >>= 1) x += shuffle_xor(x, m);
    return x;
}
DEVICE float warp_max_magnitude(float x) { return warp_max(__uint_as_float(__float_as_uint(x) & 0x7fffffffu)); }
#endif

// The sum over the four lanes of a quad.
DEVICE i32 quad_sum(i32 x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}

// Folds the values of lanes 0..16 as bitnet_core::lanes::fold does: i + (i + 8), then 4, 2, 1.
DEVICE float fold16(float x) {
    UNROLL for (u32 m = 8; m > 0; m >>= 1) x += shuffle_xor(x, m);
    return x;
}

// The same for 32 lanes, by 16, 8, ..., 1.
DEVICE float fold32(float x) {
    UNROLL for (u32 m = 16; m > 0; m >>= 1) x += shuffle_xor(x, m);
    return x;
}

// Weights are read once: not through the first cache.
DEVICE Words4 load_weights(const void *p) {
    Words4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// Asks for a line of 128 bytes, into the second cache.
DEVICE void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

DEVICE Words4 load4(const void *p) { return *(const Words4 *)p; }

// The same from the device's memory, where the compiler does not know, in the order in which it stands.
DEVICE Words4 load_ahead(const void *p) {
    Words4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

DEVICE u32 atomic_add(u32 *p, u32 v) { return atomicAdd(p, v); }
// Behind what this thread knows to be written, and before what it reads then, for the whole device.
DEVICE u32 atomic_add_ordered(u32 *p, u32 v) {
    u32 old;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}
DEVICE void atomic_or(u32 *p, u32 v) { atomicOr(p, v); }

// Memory that the host shares, past the caches that may have what was there before. What was stored before a release is there
// once the host sees it.
DEVICE u64 load_host(const u64 *p) {
    u64 v;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
    return v;
}
DEVICE Words4 load4_host(const Words4 *p) {
    Words4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
DEVICE void store_release_host(u64 *p, u64 v) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}

#if __CUDA_ARCH__ >= 900
// Lets the next kernel begin, and waits for the results of the one before.
DEVICE void launch_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
DEVICE void await_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
DEVICE void launch_next() {}
DEVICE void await_previous() {}
#endif

// Blocks of a cluster see each other's shared memory. Each first lets the others see `shared`, and waits until all do; reads;
// says that it has read what it wanted; and waits, at its end, until all say so. Blocks that have ended are not waited for.
#if __CUDA_ARCH__ >= 900
#define CLUSTERS 1
DEVICE void end_cluster_reads() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void await_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
template <class T> DEVICE void share_with_cluster(const T &) {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    await_cluster();
}
// What the block `rank` of the cluster has where this one has `own`.
DEVICE u64 load_from_cluster(const void *own, u32 rank) {
    u32 at;
    u64 v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"((u32)__cvta_generic_to_shared(own)), "r"(rank));
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(v) : "r"(at) : "memory");
    return v;
}
#else
#define CLUSTERS 0
#endif

#if __CUDA_ARCH__ >= 800
// c (16 x 8) += a (16 x 32, rows) * b (32 x 8, columns), signed bytes.
DEVICE void mma(i32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

#if __CUDA_ARCH__ >= 900
// Copies of pieces of memory to shared memory, which the device makes by itself. All threads of a block make these calls;
// behind the first a barrier of the block stands before any wait. Copies are told their number of bytes together, then
// begun, then waited for, again and again: `phase` is how often before. Addresses and bytes are multiples of 16. A copy of a
// warp is begun by this warp alone.
struct PieceCopies {
    u64 barrier;
};
DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
DEVICE void prepare_copies(PieceCopies &copies) {
    if (thread_x() != 0) return;
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(&copies.barrier)) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void expect_copies(PieceCopies &copies, u32 bytes) {
    if (thread_x() != 0) return;
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(&copies.barrier)), "r"(bytes)
                 : "memory");
}
DEVICE void begin_warp_copy(PieceCopies &copies, void *to, const void *from, u32 bytes) {
    if (thread_x() % 32 != 0) return;
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(&copies.barrier))
                 : "memory");
}
DEVICE void begin_copy(PieceCopies &copies, void *to, const void *from, u32 bytes) {
    if (thread_x() < 32) begin_warp_copy(copies, to, from, bytes);
}
DEVICE void await_copies(PieceCopies &copies, u32 phase) {
    const u32 barrier = shared_address(&copies.barrier);
    u32 there = 0;
    while (there == 0) {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(there)
                     : "r"(barrier), "r"(phase % 2)
                     : "memory");
    }
}
#endif

#if __CUDA_ARCH__ >= 800
// Copies 16 bytes to shared memory in the background; zeros if not `valid`.
DEVICE void copy_async(void *to, const void *from, bool valid) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    u32 bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}
#else
DEVICE void copy_async(void *to, const void *from, bool valid) {
    Words4 zeros = {0, 0, 0, 0};
    *(Words4 *)to = valid ? *(const Words4 *)from : zeros;
}
DEVICE void copies_commit() {}
template <int pending> DEVICE void copies_wait() {}
#endif

#if __CUDA_ARCH__ < 900
// The same where the threads must do it: each waits for its own part before the block's next barrier.
struct PieceCopies {};
DEVICE void prepare_copies(PieceCopies &) {}
DEVICE void expect_copies(PieceCopies &, u32) {}
DEVICE void begin_copy(PieceCopies &, void *to, const void *from, u32 bytes) {
    for (u32 i = thread_x(); i < bytes / 16; i += threads()) copy_async((Words4 *)to + i, (const Words4 *)from + i, true);
    copies_commit();
}
DEVICE void begin_warp_copy(PieceCopies &, void *to, const void *from, u32 bytes) {
    for (u32 i = thread_x() % 32; i < bytes / 16; i += 32) copy_async((Words4 *)to + i, (const Words4 *)from + i, true);
    copies_commit();
}
DEVICE void await_copies(PieceCopies &, u32) { copies_wait<0>(); }
#endif

#endif
