// One workgroup a row and head: queries and keys are normed (HEAD_NORMS) and rotated, queries go back to where they
// were, keys and values to their slot of the cache, rounded as the cache keeps them.
//
// Heads in order: queries, keys, values, as the projection gives them.
// site: stride = floats of a row of `qkv`; weight, second = where the norms of query and key heads begin; eps;
// window: whether the layer has a sliding window, and with it angles of its own.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(4) var<storage, read_write> kv: array<u32>;
@group(0) @binding(5) var<storage, read> norms: array<f32>;

const WG: u32 = 64u;
const HALF: u32 = HEAD_DIM / 2u;

var<workgroup> head_values: array<f32, HEAD_DIM>;
var<workgroup> lanes: array<f32, 16>;

#if HEAD_NORMS
// The factor of an RMS norm over the head, summed in sixteen lanes.
fn head_factor(index: u32) -> f32 {
    if index < 16u {
        var sum = 0.0;
        for (var i = index; i < HEAD_DIM; i += 16u) {
            sum = fma(head_values[i], head_values[i], sum);
        }
        lanes[index] = sum;
    }
    workgroupBarrier();
    var l = lanes;
    for (var width = 8u; width > 0u; width /= 2u) {
        for (var i = 0u; i < width; i++) {
            l[i] += l[i + width];
        }
    }
    return 1.0 / sqrt(l[0] / f32(HEAD_DIM) + site.eps);
}
#endif

#if KV_INT8
// The largest magnitude of the head.
fn head_amax() -> f32 {
    var most = 0.0;
    for (var i = 0u; i < HEAD_DIM; i++) {
        most = max(most, abs(head_values[i]));
    }
    return most;
}
#endif

fn store(base: u32, is_key: bool, slot: u32, index: u32) {
#if KV_INT8
    let most = head_amax();
    let inverse = 127.0 / most;
    let there = most > 0.0 && !not_finite(inverse);
    let factor = select(0.0, inverse, there);
    if index == 0u {
        let at = select(VALUE_SCALES, KEY_SCALES, is_key);
        kv[base + at + slot] = bitcast<u32>(select(0.0, most / 127.0, there));
    }
#endif
    for (var i = index; i < KV_WORDS; i += WG) {
#if KV_F32
        let word = bitcast<u32>(head_values[i]);
#else
#if KV_INT8
        var word = 0u;
        for (var b = 0u; b < 4u; b++) {
            let x = clamp(head_values[4u * i + b] * factor, -127.0, 127.0);
            word |= (bitcast<u32>(i32(round(x))) & 255u) << (8u * b);
        }
#else
        let word = half_pair(head_values[2u * i], head_values[2u * i + 1u]);
#endif
#endif
        kv[base + select(VALUES + slot * KV_WORDS + i, i * BLOCK + slot, is_key)] = word;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.x;
    let head = group.y;
    let record = call.rows_at + row * ROW_WORDS;
    let position = inputs[record + POSITION];
    let at = row * site.stride + head * HEAD_DIM;
    let is_query = head < HEADS;
    let is_key = !is_query && head < HEADS + KV_HEADS;
    for (var i = index; i < HEAD_DIM; i += WG) {
        head_values[i] = qkv[at + i];
    }
    workgroupBarrier();
    if is_query || is_key {
#if HEAD_NORMS
        let factor = head_factor(index);
        let weight = select(site.second, site.weight, is_query);
        for (var i = index; i < HEAD_DIM; i += WG) {
            head_values[i] = (head_values[i] * factor) * norms[weight + i];
        }
        workgroupBarrier();
#endif
        let angles = select(call.rope_full, call.rope_sliding, site.window != 0u) + row * HEAD_DIM;
        for (var i = index; i < HALF; i += WG) {
            let c = bitcast<f32>(inputs[angles + i]);
            let s = bitcast<f32>(inputs[angles + HALF + i]);
            let a = head_values[i];
            let b = head_values[i + HALF];
            head_values[i] = a * c - b * s;
            head_values[i + HALF] = b * c + a * s;
        }
        workgroupBarrier();
    }
    if is_query {
        for (var i = index; i < HEAD_DIM; i += WG) {
            qkv[at + i] = head_values[i];
        }
    } else {
        let block = inputs[inputs[record + TABLE] + position / BLOCK];
        let kv_head = select(head - HEADS - KV_HEADS, head - HEADS, is_key);
        store(piece_at(block, kv_head), is_key, position % BLOCK, index);
    }
}
