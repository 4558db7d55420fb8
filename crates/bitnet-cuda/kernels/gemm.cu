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

// Tiles of 2 * `pairs` row blocks and 8 * `tiles` tokens. A warp has a pair of row blocks, all of the tile's tokens, and of
// the columns' groups those of its set: of each 8 / `pairs` in a row one. So the fragment of a weight serves all tokens and that
// of an activation two row blocks. Both come through shared memory in stages of a group for each set: weights already while the
// kernel before still runs, and each lane its own; of activations the eight 16-byte pieces of a token's group are permuted by
// the token's number, so that quads read without conflicts. At the end sets exchange their sums: each finishes those of some
// tiles of the product, two tokens and two rows a lane, as the tensor core leaves them.
#define GEMM_WARPS 8u
#define STAGES 3u

// What endings need of a tile's row blocks and tokens, in shared memory.
template <u32 pairs, u32 tiles> struct alignas(16) TileEnds {
    RowBlock blocks[2 * pairs];
    float scales[8 * tiles];
    i32 sums[8 * tiles];
    float factors[2 * pairs][8 * tiles][2]; // low and high
};

// A tile, and where a warp stands in it.
template <u32 pairs, u32 tiles> struct GemmTile {
    typedef TileEnds<pairs, tiles> Ends;
    static const u32 tokens = 8 * tiles, sets = GEMM_WARPS / pairs, blocks = 2 * pairs;
    static const u32 activations = sets * tokens * 128, stage = activations + GEMM_WARPS * 1024; // bytes
    static const u32 units = 2 * tiles >= sets ? 2 * tiles / sets : 1; // tiles of the product that a set finishes
    static const u32 at_once = units < 4 ? units : 4;
    u32 warp, lane, pair, set;
    u32 first_block, first; // the tile's first row block and token
};

template <class T> DEVICE T tile_of() {
    T t;
    t.warp = thread_x() / 32, t.lane = thread_x() % 32, t.pair = t.warp % (T::blocks / 2), t.set = t.warp / (T::blocks / 2);
    t.first_block = block_x() * T::blocks, t.first = block_y() * T::tokens;
    return t;
}

// Asks for the tile's weights, into the second cache.
template <class T> DEVICE void ask_for_weights(const Product &p, const T &tile) {
    const u32 rest = p.row_blocks - tile.first_block, blocks = rest < T::blocks ? rest : T::blocks;
    const u8 *from = (const u8 *)(p.weights + (u64)tile.first_block * p.groups * 128);
    for (u32 line = thread_x(); line < blocks * p.groups * 4; line += threads()) prefetch(from + line * 128);
}

// Where a lane's weights of both row blocks come from, one group of its set after the other.
template <class T> struct WeightCopies {
    const u8 *from;
    u32 to, block_bytes;
    i32 left; // groups
};

template <class T> DEVICE WeightCopies<T> weight_copies(const Product &p, const T &tile) {
    WeightCopies<T> c;
    const u32 own = tile.first_block + 2 * tile.pair, last = p.row_blocks - 1;
    c.from = (const u8 *)p.weights + (((u64)(own < last ? own : last) * p.groups + tile.set) * 32 + tile.lane) * 16;
    c.to = T::activations + tile.warp * 1024 + tile.lane * 16, c.block_bytes = own < last ? p.groups * 512 : 0;
    c.left = (i32)(p.groups - tile.set);
    return c;
}

// Copies those of the next group; zeros behind the last.
template <class T> DEVICE void copy_next(WeightCopies<T> &c, u8 *stage) {
    copy_async(stage + c.to, c.from, c.left > 0);
    copy_async(stage + c.to + 512, c.from + c.block_bytes, c.left > 0);
    c.from += T::sets * 512, c.left -= (i32)T::sets;
}

// The same with activations: a thread has one piece of each `step`-th token. There is room, though nothing of use, behind the
// last token.
template <class T> struct ActivationCopies {
    static const u32 step = GEMM_WARPS * 4 / T::sets, count = T::tokens / step;
    const u8 *from;
    u32 to, piece, step_bytes;
    i32 left;
};

template <class T> DEVICE ActivationCopies<T> activation_copies(const GemmArgs &a, const T &tile) {
    ActivationCopies<T> c;
    const u32 row = thread_x() / (8 * T::sets), set = thread_x() / 8 % T::sets, groups = a.product.groups;
    c.piece = (thread_x() % 8) ^ (row % 8), c.to = (set * T::tokens + row) * 128;
    c.from = (const u8 *)a.q + ((u64)(tile.first + row) * groups + set) * 128 + thread_x() % 8 * 16;
    c.step_bytes = c.step * groups * 128, c.left = (i32)(groups - set);
    return c;
}

template <class T> DEVICE void copy_next(ActivationCopies<T> &c, u8 *stage) {
    UNROLL for (u32 j = 0; j < c.count; j++)
        copy_async(stage + c.to + j * c.step * 128 + (c.piece ^ (j * c.step % 8)) * 16, c.from + j * c.step_bytes, c.left > 0);
    c.from += T::sets * 128, c.left -= (i32)T::sets;
}

// What endings need: of the row blocks while the kernel before still runs, of the tokens behind it.
template <class T> DEVICE void load_blocks(const GemmArgs &a, const T &tile, typename T::Ends &ends) {
    const u32 i = thread_x() / 2, half = thread_x() % 2, block = tile.first_block + i, last = a.product.row_blocks - 1;
    if (i >= T::blocks) return;
    copy_async((u8 *)(ends.blocks + i) + 16 * half, (const u8 *)(a.product.blocks + (block < last ? block : last)) + 16 * half, true);
}

template <class T> DEVICE void load_tokens(const GemmArgs &a, const T &tile, typename T::Ends &ends) {
    const u32 i = thread_x(), token = tile.first + i < a.tokens ? tile.first + i : a.tokens - 1;
    if (i < T::tokens) ends.scales[i] = a.scales[token], ends.sums[i] = a.sums[token];
}

// Adds the products of a pair of row blocks with a group of all tokens, which lie in `stage`. Two products of a sum stand
// apart: the tensor core needs the time of four for one.
template <u32 tiles> DEVICE void multiply_group(const Words4 (&w)[2], const Words4 *stage, u32 lane, i32 (&sums)[2][tiles][4]) {
    const u32 g = lane / 4, t = lane % 4;
    UNROLL for (u32 h = 0; h < 2; h++) {
        u32 f[2][2][4];
        UNROLL for (u32 r = 0; r < 2; r++) {
            UNROLL for (u32 s = 0; s < 2; s++) fragment(w[r], 2 * h + s, f[r][s]);
        }
        UNROLL for (u32 n = 0; n < tiles; n += 2) {
            Words4 b[2];
            UNROLL for (u32 m = 0; m < 2; m++) b[m] = stage[(8 * (n + m) + g) * 8 + ((2 * t + h) ^ g)];
            UNROLL for (u32 i = 0; i < 4; i++) mma(sums[i % 2][n + i / 2], f[i % 2][0], b[i / 2].x, b[i / 2].y);
            UNROLL for (u32 i = 0; i < 4; i++) mma(sums[i % 2][n + i / 2], f[i % 2][1], b[i / 2].z, b[i / 2].w);
        }
    }
}

template <u32 pairs, u32 tiles>
DEVICE void tile_products(const GemmArgs &a, const GemmTile<pairs, tiles> &tile, TileEnds<pairs, tiles> &ends, i32 (&sums)[2][tiles][4]) {
    typedef GemmTile<pairs, tiles> T;
    u8 *stages = (u8 *)dynamic_shared(); // [STAGES]: activations [set][token][128 bytes], weights [warp][row block][lane][16]
    const u32 steps = (a.product.groups + T::sets - 1) / T::sets;
    WeightCopies<T> weights = weight_copies(a.product, tile);
    ActivationCopies<T> activations = activation_copies(a, tile);
    load_blocks(a, tile, ends);
    UNROLL for (u32 s = 0; s < STAGES - 1; s++) copy_next(weights, stages + s * T::stage);
    if (block_y() == 0) ask_for_weights(a.product, tile);
    await_previous();
    UNROLL for (u32 s = 0; s < STAGES - 1; s++) {
        copy_next(activations, stages + s * T::stage);
        copies_commit();
    }
    load_tokens(a, tile, ends);
    u32 now = 0, next = (STAGES - 1) * T::stage;
    UNROLL_1 for (u32 step = 0; step < steps; step++) {
        copies_wait<(int)STAGES - 2>();
        sync_block();
        copy_next(weights, stages + next);
        copy_next(activations, stages + next);
        copies_commit();
        const Words4 *stage = (const Words4 *)(stages + now), *own = stage + T::activations / 16 + tile.warp * 64 + tile.lane;
        const Words4 w[2] = {own[0], own[32]};
        multiply_group<tiles>(w, stage + tile.set * T::tokens * 8, tile.lane, sums);
        next = now, now = now + T::stage < STAGES * T::stage ? now + T::stage : 0;
    }
    copies_wait<0>();
    sync_block();
}

// A set's `unit`-th tile of the product: which of its pair's row blocks, and this lane's first token of two.
struct Unit {
    u32 r, token;
};
template <class T> DEVICE Unit unit_of(const T &tile, u32 unit) {
    const u32 u = tile.set * T::units + unit;
    Unit made = {u % 2, u / 2 * 8 + tile.lane % 4 * 2};
    return made;
}

template <u32 epilogue, class T>
DEVICE void load_endings(const GemmArgs &a, const T &tile, const typename T::Ends &ends, u32 first, Ending (&e)[T::at_once][2]) {
    const u32 g = tile.lane / 4;
    UNROLL for (u32 i = 0; i < T::at_once; i++) {
        const Unit u = unit_of(tile, first + i);
        const RowBlock &b = ends.blocks[2 * tile.pair + u.r];
        UNROLL for (u32 n = 0; n < 2; n++) {
            const u32 asked = tile.first + u.token + n, token = asked < a.tokens ? asked : a.tokens - 1;
            e[i][n] = ending<epilogue>(a.product, b, g, token);
            load_old<epilogue>(a.product, b, g, token, e[i][n]);
        }
    }
}

// `parts`: sums of the set's tiles, [set][unit][lane][4].
template <u32 epilogue, class T>
DEVICE void finish_units(const GemmArgs &a, const T &tile, const typename T::Ends &ends, const Words4 *parts, u32 first, Ending (&e)[T::at_once][2]) {
    const u32 g = tile.lane / 4;
    UNROLL for (u32 i = 0; i < T::at_once; i++) {
        const Unit u = unit_of(tile, first + i);
        const u32 block = 2 * tile.pair + u.r;
        const RowBlock &b = ends.blocks[block];
        i32 sums[4] = {};
        UNROLL for (u32 set = 0; set < T::sets; set++) {
            const Words4 part = parts[(set * T::units + first + i) * 32 + tile.lane];
            sums[0] += (i32)part.x, sums[1] += (i32)part.y, sums[2] += (i32)part.z, sums[3] += (i32)part.w;
        }
        UNROLL for (u32 n = 0; n < 2; n++) {
            const u32 token = tile.first + u.token + n;
            if (token >= a.tokens || tile.first_block + block >= a.product.row_blocks) continue;
            const float *factors = ends.factors[block][u.token + n];
            e[i][n].low = factors[0], e[i][n].high = factors[1];
            finish<epilogue>(a.product, b, e[i][n], g, sums[n], sums[2 + n], token, ends.sums[u.token + n]);
        }
    }
}

// Finishes the tiles of this warp's set; a barrier stands behind the first loads.
template <u32 epilogue, class T>
DEVICE void finish_set(const GemmArgs &a, const T &tile, const typename T::Ends &ends, const Words4 *parts) {
    const bool finishes = tile.set * T::units < T::tokens / 4;
    UNROLL_1 for (u32 first = 0; first < T::units; first += T::at_once) {
        Ending e[T::at_once][2];
        if (finishes) load_endings<epilogue>(a, tile, ends, first, e);
        if (first == 0) sync_block();
        if (finishes) finish_units<epilogue>(a, tile, ends, parts, first, e);
    }
}

template <u32 pairs, u32 tiles> DEVICE void gemm_tile(const GemmArgs &a) {
    typedef GemmTile<pairs, tiles> T;
    SHARED typename T::Ends ends;
    const T tile = tile_of<T>();
    i32 sums[2][tiles][4] = {};
    launch_next();
    tile_products(a, tile, ends, sums);
    // [pair][set that finishes][set][unit][lane]
    Words4 *parts = (Words4 *)dynamic_shared() + tile.pair * T::sets * T::sets * T::units * 32;
    UNROLL for (u32 u = 0; u < 2 * tiles; u++) {
        const i32 *sum = sums[u % 2][u / 2];
        const Words4 part = {(u32)sum[0], (u32)sum[1], (u32)sum[2], (u32)sum[3]};
        parts[((u / T::units * T::sets + tile.set) * T::units + u % T::units) * 32 + tile.lane] = part;
    }
    for (u32 i = thread_x(); i < T::blocks * T::tokens; i += GEMM_WARPS * 32) {
        const u32 block = i / T::tokens, token = i % T::tokens;
        ends.factors[block][token][0] = divide(ends.blocks[block].scale_low, ends.scales[token]);
        ends.factors[block][token][1] = divide(ends.blocks[block].scale_high, ends.scales[token]);
    }
    parts += tile.set * T::sets * T::units * 32;
    switch (a.product.epilogue) {
    case EPILOGUE_STORE: return finish_set<EPILOGUE_STORE>(a, tile, ends, parts);
    case EPILOGUE_ADD: return finish_set<EPILOGUE_ADD>(a, tile, ends, parts);
    case EPILOGUE_GATED: return finish_set<EPILOGUE_GATED>(a, tile, ends, parts);
    default: return finish_set<EPILOGUE_QKV>(a, tile, ends, parts);
    }
}

// Rows and tokens of a tile; two blocks of threads fit a multiprocessor. bitnet_cuda::gemm tells which is used when.
KERNEL_FITTING(2, 256, gemm_64x16, GemmArgs) { gemm_tile<2, 2>(a); }
KERNEL_FITTING(2, 256, gemm_64x32, GemmArgs) { gemm_tile<2, 4>(a); }
KERNEL_FITTING(2, 256, gemm_128x32, GemmArgs) { gemm_tile<4, 4>(a); }
KERNEL_FITTING(2, 256, gemm_128x64, GemmArgs) { gemm_tile<4, 8>(a); }

#endif
