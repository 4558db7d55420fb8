// One workgroup a row: what comes in is added to the residual stream, normed and quantised for the next projection.
//
// ADD: the branch y is added to the stream first (POST: normed by itself before).
// ACT: the row is act(gate) * up, from `y` = [gate | up].
// NORM1, NORM2: RMS norms in turn. FINAL: rows are gathered, the result stays in floats. Otherwise it is quantised:
// q = round_half_even(h * 127 / max(|h|, 1e-5)), four to a word, rows padded with zeros, with 1/s and the sum of q.
//
// A thread owns STEPS quads of elements at most, in registers, so there is no barrier but those of the sums.
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
    // This thread's quads, and whether they are there. All are asked for at once, norms too: a turn of a loop would wait for
    // what it reads.
#each u STEPS
    let i$u = index + $uu * WG;
    let there$u = i$u < quads;
    let e$u = min(i$u, quads - 1u);
#end
#if NORM1
#each u STEPS
    let w$u = norms[site.weight + e$u];
#end
#endif
#if NORM2
#each u STEPS
    let second_w$u = norms[site.second + e$u];
#end
#endif
#if ACT
#each u STEPS
    let gate$u = y[2u * base + e$u];
    let up$u = y[2u * base + quads + e$u];
#end
#each u STEPS
    var v$u = activated(gate$u) * up$u;
#end
#else
#each u STEPS
    var v$u = x[base + e$u];
#end
#if ADD
#each u STEPS
    let y$u = y[base + e$u];
#end
#if POST
#each u STEPS
    let post_w$u = norms[site.post + e$u];
#end
    var post_squares = vec4<f32>();
#each u STEPS
    post_squares = fma(y$u, select(vec4<f32>(), y$u, there$u), post_squares);
#end
    let post_factor = factor(post_squares, place);
#each u STEPS
    v$u = v$u + (y$u * post_factor) * post_w$u;
#end
#else
#each u STEPS
    v$u = v$u + y$u;
#end
#endif
#endif
#endif
#if ADD
#if !FINAL
#each u STEPS
    if there$u {
        x[base + i$u] = v$u;
    }
#end
#endif
#endif

#if NORM1
    var squares = vec4<f32>();
#each u STEPS
    squares = fma(v$u, select(vec4<f32>(), v$u, there$u), squares);
#end
    let first = factor(squares, place);
#each u STEPS
    v$u = (v$u * first) * w$u;
#end
#endif
#if NORM2
    var second_squares = vec4<f32>();
#each u STEPS
    second_squares = fma(v$u, select(vec4<f32>(), v$u, there$u), second_squares);
#end
    let second = factor(second_squares, place);
#each u STEPS
    v$u = (v$u * second) * second_w$u;
#end
#endif

#if FINAL
#each u STEPS
    if there$u {
        hidden[group.x * quads + i$u] = v$u;
    }
#end
#else
    var most = 0.0;
#each u STEPS
    let a$u = select(vec4<f32>(), abs(v$u), there$u);
    most = max(most, max(max(a$u.x, a$u.y), max(a$u.z, a$u.w)));
#end
    let limit = max(largest(most, place), 1e-5);
    let scale = 127.0 / limit;
    var sum = 0;
#each u STEPS
    if i$u < site.words {
        let scaled = clamp(v$u * scale, vec4<f32>(-128.0), vec4<f32>(127.0));
        let rounded = select(vec4<i32>(), vec4<i32>(round(scaled)), there$u);
        sum += rounded.x + rounded.y + rounded.z + rounded.w;
        let bytes = vec4<u32>(rounded & vec4<i32>(255));
        q[row * site.words + i$u] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
    }
#end
    let all = total_int(sum, place);
    if index == 0u {
        info[row] = vec2<u32>(bitcast<u32>(1.0 / scale), bitcast<u32>(all));
    }
#endif
}
