// One workgroup a row: what comes in is added to the residual stream, normed and quantised for the next projection.
//
// ADD: the branch y is added to the stream first (POST: normed by itself before).
// ACT: the row is act(gate) * up, from `y` = [gate | up]; it is kept in `x`.
// NORM1, NORM2: RMS norms in turn. FINAL: rows are gathered, the result stays in floats. Otherwise it is quantised:
// q = round_half_even(h * 127 / max(|h|, 1e-5)), four to a word, rows padded with zeros, with 1/s and the sum of q.
//
// A thread owns quads of elements, the same in each loop, so the loops need no barrier but those of the sums.
// site: n = columns, words = words of a quantised row; weight, second, post = where norms begin, in quads; eps.

@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> norms: array<vec4<f32>>;
#if FINAL
@group(0) @binding(5) var<storage, read_write> hidden: array<vec4<f32>>;
#else
@group(0) @binding(5) var<storage, read_write> q: array<u32>;
#endif
@group(0) @binding(6) var<storage, read_write> info: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read> inputs: array<u32>;

const WG: u32 = 256u;

var<workgroup> shared_values: array<f32, WG>;
var<workgroup> shared_sums: array<i32, WG>;

#if SUBGROUPS
// The lanes of a subgroup are reduced by the hardware; what subgroups give is reduced by each of them in the same way.
fn total(value: f32, place: Place) -> f32 {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if place.lane == 0u {
        shared_values[place.subgroup] = part;
    }
    workgroupBarrier();
    var all: f32 = 0.0;
    for (var i = place.lane; i < place.subgroups; i += place.lanes) {
        all = all + shared_values[i];
    }
    return subgroupAdd(all);
}

fn largest(value: f32, place: Place) -> f32 {
    let part = subgroupMax(value);
    workgroupBarrier();
    if place.lane == 0u {
        shared_values[place.subgroup] = part;
    }
    workgroupBarrier();
    var all: f32 = 0.0;
    for (var i = place.lane; i < place.subgroups; i += place.lanes) {
        all = max(all, shared_values[i]);
    }
    return subgroupMax(all);
}

fn total_int(value: i32, place: Place) -> i32 {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if place.lane == 0u {
        shared_sums[place.subgroup] = part;
    }
    workgroupBarrier();
    var all: i32 = 0;
    for (var i = place.lane; i < place.subgroups; i += place.lanes) {
        all = all + shared_sums[i];
    }
    return subgroupAdd(all);
}
#else
fn total(value: f32, place: Place) -> f32 {
    workgroupBarrier();
    shared_values[place.index] = value;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if place.index < width {
            shared_values[place.index] += shared_values[place.index + width];
        }
    }
    workgroupBarrier();
    return shared_values[0];
}

fn largest(value: f32, place: Place) -> f32 {
    workgroupBarrier();
    shared_values[place.index] = value;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if place.index < width {
            shared_values[place.index] = max(shared_values[place.index], shared_values[place.index + width]);
        }
    }
    workgroupBarrier();
    return shared_values[0];
}

fn total_int(value: i32, place: Place) -> i32 {
    workgroupBarrier();
    shared_sums[place.index] = value;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if place.index < width {
            shared_sums[place.index] += shared_sums[place.index + width];
        }
    }
    workgroupBarrier();
    return shared_sums[0];
}
#endif

struct Place {
    index: u32,
    lane: u32,
    lanes: u32,
    subgroup: u32,
    subgroups: u32,
}

fn fold(v: vec4<f32>) -> f32 {
    return (v.x + v.z) + (v.y + v.w);
}

// The factor of an RMS norm from the sum of squares.
fn factor(squares: vec4<f32>, place: Place) -> f32 {
    return 1.0 / sqrt(total(fold(squares), place) / f32(site.n) + site.eps);
}

fn activated(gate: vec4<f32>) -> vec4<f32> {
#if ACT_RELU2
    let p = max(gate, vec4<f32>());
    return p * p;
#else
#if ACT_GELU
    let e = -(gate * fma(gate * gate, vec4<f32>(0.071354814), vec4<f32>(1.5957692)));
#else
    let e = -gate;
#endif
    let power = vec4<f32>(exponential(e.x), exponential(e.y), exponential(e.z), exponential(e.w));
    return gate / (1.0 + power);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
#endif
) {
#if SUBGROUPS
    let place = Place(index, lane, lanes, subgroup, subgroups);
#else
    let place = Place(index, 0u, 0u, 0u, 0u);
#endif
    let quads = site.n / 4u;
#if FINAL
    let row = inputs[call.logit_at + group.x];
#else
    let row = group.x;
#endif
    let base = row * quads;

#if POST
    var post_squares = vec4<f32>();
    for (var i = index; i < quads; i += WG) {
        let v = y[base + i];
        post_squares = fma(v, v, post_squares);
    }
    let post_factor = factor(post_squares, place);
#endif

    var squares = vec4<f32>();
    for (var i = index; i < quads; i += WG) {
#if ACT
        let v = activated(y[2u * base + i]) * y[2u * base + quads + i];
        x[base + i] = v;
#else
        var v = x[base + i];
#if ADD
#if POST
        v = v + (y[base + i] * post_factor) * norms[site.post + i];
#else
        v = v + y[base + i];
#endif
        x[base + i] = v;
#endif
#endif
        squares = fma(v, v, squares);
    }
#if NORM1
    let first = factor(squares, place);
#endif
#if NORM2
    var second_squares = vec4<f32>();
    for (var i = index; i < quads; i += WG) {
        let v = (x[base + i] * first) * norms[site.weight + i];
        second_squares = fma(v, v, second_squares);
    }
    let second = factor(second_squares, place);
#endif

#if FINAL
    for (var i = index; i < quads; i += WG) {
        hidden[group.x * quads + i] = (x[base + i] * first) * norms[site.weight + i];
    }
#else
    var most = 0.0;
    for (var i = index; i < quads; i += WG) {
        var v = x[base + i];
#if NORM1
        v = (v * first) * norms[site.weight + i];
#endif
#if NORM2
        v = (v * second) * norms[site.second + i];
#endif
        let a = abs(v);
        most = max(most, max(max(a.x, a.y), max(a.z, a.w)));
    }
    let limit = max(largest(most, place), 1e-5);
    let scale = 127.0 / limit;
    var sum = 0;
    for (var i = index; i < site.words; i += WG) {
        if i >= quads {
            q[row * site.words + i] = 0u;
            continue;
        }
        var v = x[base + i];
#if NORM1
        v = (v * first) * norms[site.weight + i];
#endif
#if NORM2
        v = (v * second) * norms[site.second + i];
#endif
        let rounded = vec4<i32>(round(clamp(v * scale, vec4<f32>(-128.0), vec4<f32>(127.0))));
        sum += rounded.x + rounded.y + rounded.z + rounded.w;
        let bytes = vec4<u32>(rounded & vec4<i32>(255));
        q[row * site.words + i] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
    }
    let all = total_int(sum, place);
    if index == 0u {
        info[row] = vec2<u32>(bitcast<u32>(1.0 / scale), bitcast<u32>(all));
    }
#endif
}
