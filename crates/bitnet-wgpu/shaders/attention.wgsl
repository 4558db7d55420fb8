// Attention of some queries over one range of 256 positions: a softmax of its own, merged with others by combine.wgsl.
//
// A workgroup has TILE rows of one text and G query heads that share a key head: T = TILE * G queries. Thread j has
// position j of the range for the scores; for the values threads have a query and a word of its result. Sums go in the
// oracle's order: scores over the head, values over positions, weights in sixteen lanes. So neither the tile nor the
// neighbours change a bit, and ranges depend on positions alone.
// Constants of the model: HEAD_DIM, HEADS, KV_HEADS, GROUP, G, TILE, T.
// site: stride = floats of a row of `qkv`, window (0: none), scale.
// A work item has 4 words: first row, rows, range.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read> qkv: array<f32>;
@group(0) @binding(4) var<storage, read> kv: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

const WG: u32 = 256u;
const RANGE: u32 = 256u;
const WIDTH: u32 = HEAD_DIM + 2u;
const LOWEST: f32 = -3.4e38;

var<workgroup> queries: array<f32, T * HEAD_DIM>;
var<workgroup> weights: array<f32, T * RANGE>;
var<workgroup> folded: array<f32, WG>;
var<workgroup> maxima: array<f32, T>;
var<workgroup> sums: array<f32, T>;
var<workgroup> blocks: array<u32, 8>;
#if KV_INT8
var<workgroup> query_words: array<u32, T * KV_WORDS>;
var<workgroup> query_scales: array<f32, T>;
// Of each query and block of positions.
var<workgroup> factors: array<f32, T * 8u>;

fn quantized(x: f32, inverse: f32) -> u32 {
    return bitcast<u32>(i32(round(clamp(x * inverse, -127.0, 127.0)))) & 255u;
}

fn signed_byte(word: u32, byte: u32) -> i32 {
    return bitcast<i32>(word << (24u - 8u * byte)) >> 24u;
}

// Queries become integers like keys. Thread t has query t.
fn quantize_queries(index: u32) {
    if index < T {
        var most = 0.0;
        for (var e = 0u; e < HEAD_DIM; e++) {
            most = max(most, abs(queries[index * HEAD_DIM + e]));
        }
        let inverse = 127.0 / most;
        let there = most > 0.0 && !not_finite(inverse);
        query_scales[index] = select(0.0, most / 127.0, there);
        let factor = select(0.0, inverse, there);
        for (var i = 0u; i < KV_WORDS; i++) {
            let at = index * HEAD_DIM + 4u * i;
            query_words[index * KV_WORDS + i] = quantized(queries[at], factor) | (quantized(queries[at + 1u], factor) << 8u)
                | (quantized(queries[at + 2u], factor) << 16u) | (quantized(queries[at + 3u], factor) << 24u);
        }
    }
    workgroupBarrier();
}

// The weights of a block of positions times the scales of their values become integers 0..=255 with one factor.
fn quantize_weights(index: u32, kv_head: u32, used: u32) {
    if index < T * 8u && index % 8u * BLOCK < used {
        let at = index / 8u * RANGE + index % 8u * BLOCK;
        let scales = piece_at(blocks[index % 8u], kv_head) + VALUE_SCALES;
        var most = 0.0;
        for (var j = 0u; j < BLOCK; j++) {
            if weights[at + j] != 0.0 {
                weights[at + j] *= bitcast<f32>(kv[scales + j]);
            }
            most = max(most, weights[at + j]);
        }
        let inverse = 255.0 / most;
        let there = most > 0.0 && !not_finite(inverse);
        factors[index] = select(0.0, most / 255.0, there);
        let factor = select(0.0, inverse, there);
        for (var j = 0u; j < BLOCK; j++) {
            weights[at + j] = round(clamp(weights[at + j] * factor, 0.0, 255.0));
        }
    }
    workgroupBarrier();
}
#endif

// Scores of all queries with the key of one position, which go to `weights` behind `at`. Words of the key are asked for several
// at a time: a turn of a loop waits for what it reads.
fn scores(key: u32, at: u32) {
#each t T
#if KV_INT8
    var s$t = 0;
#else
    var s$t = 0.0;
#endif
#end
    for (var i = 0u; i < KV_WORDS; i += 16u) {
#each u 16
        let w$u = kv[key + min(i + $uu, KV_WORDS - 1u) * BLOCK];
#end
#each u 16
        if i + $uu < KV_WORDS {
#if KV_INT8
#each t T
            s$t += dot4(query_words[$tu * KV_WORDS + i + $uu], w$u);
#end
#else
#if KV_F32
            let k = bitcast<f32>(w$u);
#each t T
            s$t = fma(queries[$tu * HEAD_DIM + i + $uu], k, s$t);
#end
#else
            let k = unpack2x16float(w$u);
            let e = 2u * (i + $uu);
#each t T
            s$t = fma(queries[$tu * HEAD_DIM + e + 1u], k.y, fma(queries[$tu * HEAD_DIM + e], k.x, s$t));
#end
#endif
#endif
        }
#end
    }
#if KV_INT8
    let scale = bitcast<f32>(kv[key + KEY_SCALES]);
#each t T
    weights[$tu * RANGE + at] = f32(s$t) * ((query_scales[$t] * site.scale) * scale);
#end
#else
#each t T
    weights[$tu * RANGE + at] = s$t * site.scale;
#end
#endif
}

fn weigh(query: u32, word: u32, count: u32, kv_head: u32, out: u32) {
#if KV_F32
    var acc = 0.0;
#else
#if KV_INT8
    var acc = vec4<f32>();
#else
    var acc = vec2<f32>();
#endif
#endif
    for (var start = 0u; start < count; start += BLOCK) {
        let values = piece_at(blocks[start / BLOCK], kv_head) + VALUES + word;
        let end = min(BLOCK, count - start);
        let at = query * RANGE + start;
#if KV_INT8
        var sum = vec4<i32>();
        for (var j = 0u; j < end; j += 8u) {
#each u 8
            let v$u = kv[values + min(j + $uu, end - 1u) * KV_WORDS];
#end
#each u 8
            if j + $uu < end {
                let w = i32(weights[at + j + $uu]);
                sum += w * vec4<i32>(signed_byte(v$u, 0u), signed_byte(v$u, 1u), signed_byte(v$u, 2u), signed_byte(v$u, 3u));
            }
#end
        }
        acc = fma(vec4<f32>(sum), vec4<f32>(factors[query * 8u + start / BLOCK]), acc);
#else
        for (var j = 0u; j < end; j += 8u) {
#each u 8
            let v$u = kv[values + min(j + $uu, end - 1u) * KV_WORDS];
#end
#each u 8
            if j + $uu < end {
#if KV_F32
                acc = fma(weights[at + j + $uu], bitcast<f32>(v$u), acc);
#else
                acc = fma(vec2<f32>(weights[at + j + $uu]), unpack2x16float(v$u), acc);
#endif
            }
#end
        }
#endif
    }
#if KV_F32
    partials[out + word] = acc;
#else
#if KV_INT8
    for (var b = 0u; b < 4u; b++) {
        partials[out + 4u * word + b] = acc[b];
    }
#else
    partials[out + 2u * word] = acc.x;
    partials[out + 2u * word + 1u] = acc.y;
#endif
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let item = call.work_at + 4u * group.x;
    let first_row = inputs[item];
    let rows = inputs[item + 1u];
    let range = inputs[item + 2u];
    let first_head = group.y * G;
    let kv_head = first_head / GROUP;
    let record = call.rows_at + first_row * ROW_WORDS;
    let first_position = inputs[record + POSITION];
    let start = range * RANGE;
    let count = min(first_position + rows - start, RANGE);
    // Whole blocks; what lies behind them has no weight, and adding nothing changes no bit.
    let used = (count + BLOCK - 1u) / BLOCK * BLOCK;

    for (var i = index; i < T * HEAD_DIM; i += WG) {
        let t = i / HEAD_DIM;
        let row = min(t / G, rows - 1u) + first_row;
        queries[i] = qkv[row * site.stride + (first_head + t % G) * HEAD_DIM + i % HEAD_DIM];
    }
    if index < 8u {
        // Blocks behind the last position are not in the table; nothing of them is used.
        let last = (count - 1u) / BLOCK;
        blocks[index] = inputs[inputs[record + TABLE] + start / BLOCK + min(index, last)];
    }
    workgroupBarrier();
#if KV_INT8
    quantize_queries(index);
#endif

    if index < count {
        // The key scale of a position lies at the same distance behind its piece as its first word.
        scores(piece_at(blocks[index / BLOCK], kv_head) + index % BLOCK, index);
        for (var t = 0u; t < T; t++) {
            let position = first_position + min(t / G, rows - 1u);
            let seen = start + index <= position && (site.window == 0u || start + index + site.window > position);
            if !seen {
                weights[t * RANGE + index] = LOWEST;
            }
        }
    } else if index < used {
        for (var t = 0u; t < T; t++) {
            weights[t * RANGE + index] = LOWEST;
        }
    }
    workgroupBarrier();

    // Eight queries at most have 32 threads each.
    let t = index / 32u;
    let lane = index % 32u;
    var most = LOWEST;
    if t < T {
        for (var j = lane; j < used; j += 32u) {
            most = max(most, weights[t * RANGE + j]);
        }
    }
    folded[index] = most;
    workgroupBarrier();
    if t < T && lane == 0u {
        for (var j = 1u; j < 32u; j++) {
            most = max(most, folded[index + j]);
        }
        maxima[t] = most;
    }
    workgroupBarrier();
    for (var t = 0u; t < T && index < used; t++) {
        let score = weights[t * RANGE + index];
        weights[t * RANGE + index] = select(exponential(score - maxima[t]), 0.0, score == LOWEST);
    }
    workgroupBarrier();
    if t < T && lane < 16u {
        var sum = 0.0;
        for (var j = lane; j < used; j += 16u) {
            sum += weights[t * RANGE + j];
        }
        folded[index] = sum;
    }
    workgroupBarrier();
    for (var width = 8u; width > 0u; width /= 2u) {
        if t < T && lane < width {
            folded[index] += folded[index + width];
        }
        workgroupBarrier();
    }
    if t < T && lane == 0u {
        sums[t] = folded[index];
    }
    workgroupBarrier();
#if KV_INT8
    quantize_weights(index, kv_head, used);
#endif

    let partial = select(PARTIAL_FULL, PARTIAL_SLIDING, site.window != 0u);
    for (var i = index; i < T * KV_WORDS; i += WG) {
        let query = i / KV_WORDS;
        let row = query / G;
        // A tile may have rows that do not reach into this range, or fewer rows than a full tile.
        let position = first_position + row;
        let lowest = select(0u, position + 1u - min(position + 1u, site.window), site.window != 0u);
        if row < rows && start <= position && lowest / RANGE <= range {
            let record = call.rows_at + (first_row + row) * ROW_WORDS;
            let place = inputs[record + partial] + range - lowest / RANGE;
            let out = (place * HEADS + first_head + query % G) * WIDTH;
            weigh(query, i % KV_WORDS, count, kv_head, out);
            if i % KV_WORDS == 0u {
                partials[out + HEAD_DIM] = maxima[query];
                partials[out + HEAD_DIM + 1u] = sums[query];
            }
        }
    }
}
