// One token: as many blocks of threads as the device has multiprocessors, each with an equal share of the row blocks.
//
// Generating is a chain of short products, so what counts is the time from one result to the next. Whatever does not depend
// on the kernel before is asked for first: a block's weights, which are one piece of memory, come to shared memory while
// that kernel still runs. It is let begin only when this one's row has come, since the row would have to wait behind
// weights. Every block norms and quantises the row for itself, which is less work than another launch; the row stays in
// registers.
//
// The four codes of a byte are taken out by masks alone, so they count 1, 4, 16 and 64 times: as unsigned bytes they are
// factors of products that have sums of their own, shifted right at the end. Integer sums are exact in any order.
#include "product.cuh"

struct WaveArgs {
    const float *x, *weight; // the row, and its norm's weights or null
    u32 len;                 // columns, WAVE_COLUMNS for each thread at most
    float eps;
    u32 sets;                // warps that share the columns of two row blocks; the others have other row blocks
    u32 staged;              // pairs of row block and group that there is room for in shared memory, whole row blocks
    Product product;
};

// Threads of a block, bitnet_cuda::gpu::GpuFacts::row_threads.
#ifdef BITNET_EMULATE
#define WAVE_THREADS 64u
#else
#define WAVE_THREADS 256u
#endif
#define WAVE_WARPS (WAVE_THREADS / 32)
#define WAVE_LANES (NORM_LANES / WAVE_THREADS) // of the sum of squares, of a thread
#define WAVE_COLUMNS 32u                       // of a row, that a thread has at most

// What a block of threads has, and where it lies in shared memory.
struct WaveShare {
    u32 first, count; // row blocks
    Words4 *weights;  // [pair of row block and group][lane]
    u32 *q;           // [32 * groups] words of four int8
    i32 *parts;       // [row block][set][row of 16]
};

struct WaveScratch {
    PieceCopies copies;
    float lanes[NORM_LANES], maxima[WAVE_WARPS];
    i32 sums[WAVE_WARPS];
};

DEVICE WaveShare wave_share(const WaveArgs &a) {
    WaveShare s;
    const u32 groups = a.product.groups, blocks = a.product.row_blocks;
    s.first = (u32)((u64)block_x() * blocks / grid_x());
    s.count = (u32)((u64)(block_x() + 1) * blocks / grid_x()) - s.first;
    s.weights = (Words4 *)dynamic_shared();
    s.q = (u32 *)(s.weights + a.staged * 32);
    s.parts = (i32 *)(s.q + groups * 32);
    return s;
}

// Where s.q has a word: the two words of a group that a product takes together lie side by side.
DEVICE u32 paired(u32 word) { return (word & ~7u) | (word & 3u) << 1 | (word >> 2 & 1u); }

// A row in registers: a thread has each WAVE_THREADS-th column.
struct WaveRow {
    float v[WAVE_COLUMNS];
};

// What all threads do for four columns of theirs at a time, as many as a row of `len` has.
#define EACH_COLUMN(n, len)                                                                                            \
    UNROLL for (u32 first_ = 0; first_ < WAVE_COLUMNS && first_ * WAVE_THREADS < len; first_ += 4)                     \
        UNROLL for (u32 n = first_; n < first_ + 4; n++)

DEVICE void load_columns(const float *from, u32 len, WaveRow &row) {
    EACH_COLUMN(n, len) {
        const u32 at = n * WAVE_THREADS + thread_x();
        row.v[n] = at < len ? from[at] : 0.0f;
    }
}

// Norms and quantises the row into s.q. Gives the scale it was multiplied by; the sums of warps are in the scratch behind the
// next barrier.
DEVICE float wave_quantize(const WaveArgs &a, const WaveShare &s, const WaveRow &weights, WaveScratch &scratch) {
    WaveRow x;
    load_columns(a.x, a.len, x);
    if (a.weight != 0) {
        float sums[WAVE_LANES] = {};
        EACH_COLUMN(n, a.len) sums[n % WAVE_LANES] = fma_(x.v[n], x.v[n], sums[n % WAVE_LANES]);
        UNROLL for (u32 i = 0; i < WAVE_LANES; i++) scratch.lanes[i * WAVE_THREADS + thread_x()] = sums[i];
        launch_next();
        sync_block();
        const float factor = rms_of_lanes(scratch.lanes, a.len, a.eps);
        EACH_COLUMN(n, a.len) x.v[n] = (x.v[n] * factor) * weights.v[n];
    }
    u32 amax = 0;
    EACH_COLUMN(n, a.len) {
        const u32 bits = float_bits(magnitude(x.v[n]));
        amax = bits > amax ? bits : amax;
    }
    if (a.weight == 0) launch_next();
    const float scale = activation_scale(block_max_magnitude(bits_float(amax), scratch.maxima));
    i32 own = 0;
    u8 *q = (u8 *)s.q + 4 * paired(thread_x() / 4) + thread_x() % 4;
    EACH_COLUMN(n, a.len) {
        // No product is beyond 127 by more than it is rounded away: there is nothing to clamp.
        const u32 code = float_bits(x.v[n] * scale + MAGIC);
        if (n * WAVE_THREADS + thread_x() < 128 * a.product.groups) q[n * WAVE_THREADS] = (u8)code;
        own += (i32)(code - float_bits(MAGIC));
    }
    own = warp_sum(own);
    if (thread_x() % 32 == 0) scratch.sums[thread_x() / 32] = own;
    return scale;
}

// What a lane multiplies in a group: of the weights of two row blocks, and of the row.
struct WaveFactors {
    Words4 w[2], x, y;
};

// Adds the products of rows g and g + 8 with a group: of row g to even sums. Those of a mask count 4^i times. Tensor cores would
// not be faster.
DEVICE void wave_multiply(const Words4 &w, const Words4 &x, const Words4 &y, i32 (&sums)[8]) {
    const u32 first[4] = {x.x, x.z, y.x, y.z}, second[4] = {x.y, x.w, y.y, y.w};
    UNROLL for (u32 i = 0; i < 4; i++) {
        const u32 mask = CODES << (2 * i);
        sums[2 * i] = dot4_unsigned(w.y & mask, second[i], dot4_unsigned(w.x & mask, first[i], sums[2 * i]));
        sums[2 * i + 1] = dot4_unsigned(w.w & mask, second[i], dot4_unsigned(w.z & mask, first[i], sums[2 * i + 1]));
    }
}

// `pitch` is from one row block to the next, of those that are there.
template <bool here> DEVICE void load_factors(const Words4 *w, const u32 *q, u32 pitch, WaveFactors &f) {
    f.x = load4(q), f.y = load4(q + 4);
    f.w[0] = here ? w[0] : load_weights(w), f.w[1] = here ? w[pitch] : load_weights(w + pitch);
}

DEVICE void multiply_factors(const WaveFactors &f, i32 (&sums)[2][8]) {
    wave_multiply(f.w[0], f.x, f.y, sums[0]);
    wave_multiply(f.w[1], f.x, f.y, sums[1]);
}

// Adds the products of two row blocks with `count` groups, each `sets` behind the last. `w` and `q` are where this lane's part
// of the first lies; weights are in shared memory (`here`) or in the device's. The next ones are asked for before one is multiplied.
template <bool here> DEVICE void wave_groups(const Words4 *w, const u32 *q, u32 pitch, u32 sets, u32 count, i32 (&sums)[2][8]) {
    WaveFactors f[2];
    const u32 step = sets * 32;
    if (count > 0) load_factors<here>(w, q, pitch, f[0]);
    UNROLL_1 for (u32 n = 0; n < count; n += 2) {
        w += step, q += step;
        if (n + 1 < count) load_factors<here>(w, q, pitch, f[1]);
        multiply_factors(f[0], sums);
        if (n + 1 >= count) break;
        w += step, q += step;
        if (n + 2 < count) load_factors<here>(w, q, pitch, f[0]);
        multiply_factors(f[1], sums);
    }
}

// All products of this warp, into s.parts: of a pair of row blocks with each `sets`-th group.
DEVICE void wave_products(const WaveArgs &a, const WaveShare &s) {
    const u32 warp = thread_x() / 32, lane = thread_x() % 32, g = lane / 4, t = lane % 4;
    const u32 set = warp % a.sets, at_once = WAVE_WARPS / a.sets * 2, groups = a.product.groups;
    const u32 count = set < groups ? (groups - set + a.sets - 1) / a.sets : 0;
    UNROLL_1 for (u32 r = warp / a.sets * 2; r < s.count; r += at_once) {
        i32 sums[2][8] = {};
        const u32 rows = s.count - r < 2 ? s.count - r : 2, pitch = rows < 2 ? 0 : groups * 32, at = (r * groups + set) * 32 + lane;
        const u32 *q = s.q + set * 32 + 8 * t;
        if ((r + rows) * groups <= a.staged)
            wave_groups<true>(s.weights + at, q, pitch, a.sets, count, sums);
        else
            wave_groups<false>((const Words4 *)a.product.weights + (u64)s.first * groups * 32 + at, q, pitch, a.sets, count, sums);
        UNROLL for (u32 j = 0; j < 2; j++) {
            UNROLL for (u32 n = 0; n < 2; n++) {
                const i32 sum = quad_sum(sums[j][n] + (sums[j][2 + n] >> 2) + (sums[j][4 + n] >> 4) + (sums[j][6 + n] >> 6));
                if (t == 0 && j < rows) s.parts[((r + j) * a.sets + set) * 16 + g + n * 8] = sum;
            }
        }
    }
}

// The sums of rows g and g + 8 of a row block.
DEVICE void wave_sums(const WaveArgs &a, const WaveShare &s, u32 r, u32 g, i32 &low, i32 &high) {
    const i32 *part = s.parts + r * a.sets * 16 + g;
    low = 0, high = 0;
    UNROLL_4 for (u32 set = 0; set < a.sets; set++) low += part[set * 16], high += part[set * 16 + 8];
}

DEVICE u32 begin_weights(const WaveArgs &a, const WaveShare &s, PieceCopies &copies) {
    const u32 *weights = a.product.weights + (u64)s.first * a.product.groups * 128;
    const u32 pairs = s.count * a.product.groups, staged = pairs < a.staged ? pairs : a.staged;
    if (staged == 0) return 0;
    prepare_copies(copies);
    expect_copies(copies, staged * 512);
    begin_copy(copies, s.weights, weights, staged * 512);
    return staged;
}

// A row that is normed and quantised on the way. Grid: blocks of threads that share the row blocks, such that a thread has
// two results at most.
KERNEL_FITTING(2, 256, wave_row, WaveArgs) {
    SHARED WaveScratch scratch;
    const WaveShare s = wave_share(a);
    const u32 staged = begin_weights(a, s, scratch.copies);
    WaveRow norm;
    if (a.weight != 0) load_columns(a.weight, a.len, norm);
    const u32 g = thread_x() % 8, r = thread_x() / 8;
    RowBlock block = {};
    Ending end = {};
    if (r < s.count) block = a.product.blocks[s.first + r], end = ending<EPILOGUE_ANY>(a.product, block, g, 0);
    sync_block();
    await_previous();
    if (r < s.count) load_old<EPILOGUE_ANY>(a.product, block, g, 0, end);
    const float scale = wave_quantize(a, s, norm, scratch);
    if (staged != 0) await_copies(scratch.copies, 0);
    sync_block();
    wave_products(a, s);
    const i32 row_sum = warp_sum(thread_x() % 32 < WAVE_WARPS ? scratch.sums[thread_x() % 32] : 0);
    if (r < s.count) end.low = divide(block.scale_low, scale), end.high = divide(block.scale_high, scale);
    sync_block();
    if (r >= s.count) return;
    i32 low, high;
    wave_sums(a, s, r, g, low, high);
    finish<EPILOGUE_ANY>(a.product, block, end, g, low, high, 0, row_sum);
}
