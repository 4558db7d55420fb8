// The image of a hidden row, one workgroup a row: h = unit * (128 a + b) but for a little, with int8 a and b.
//
// Lengths come from the integers, which cannot underflow: of the row, by the triangle inequality, and of what is missing,
// which is half a unit in each element at most. Both are made a little larger for the rounding on the way.
// site: n = columns, words = words of a part.

@group(0) @binding(2) var<storage, read> hidden: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<u32>;
@group(0) @binding(4) var<storage, read_write> images: array<vec4<f32>>;

const WG: u32 = 256u;

var<workgroup> values: array<f32, WG>;
var<workgroup> broken: atomic<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let start = (call.out_first + group.x) * site.n;
    let row = call.out_to + group.x;
    var most = 0.0;
    for (var i = index; i < site.n; i += WG) {
        let value = hidden[start + i];
        if not_finite(value) {
            atomicOr(&broken, 1u);
        }
        most = max(most, abs(value));
    }
    values[index] = most;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if index < width {
            values[index] = max(values[index], values[index + width]);
        }
    }
    workgroupBarrier();
    most = max(values[0], 1e-30);
    workgroupBarrier();
    let unit = most / 16256.0;
    let inverse = 16256.0 / most;

    var squares = 0.0;
    for (var w = index; w < site.words; w += WG) {
        var upper = 0u;
        var lower = 0u;
#each b 4
        if 4u * w + $bu < site.n {
            let whole = round(clamp(hidden[start + 4u * w + $bu] * inverse, -16256.0, 16256.0));
            let high = round(whole * 0.0078125);
            squares = fma(whole, whole, squares);
            upper |= (bitcast<u32>(i32(high)) & 255u) << (8u * $bu);
            lower |= (bitcast<u32>(i32(whole - 128.0 * high)) & 255u) << (8u * $bu);
        }
#end
        parts[2u * row * site.words + w] = upper;
        parts[(2u * row + 1u) * site.words + w] = lower;
    }
    values[index] = squares;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if index < width {
            values[index] += values[index + width];
        }
    }
    workgroupBarrier();
    if index == 0u {
        let missing = 0.52 * sqrt(f32(site.n)) * unit + 1e-34;
        let length = unit * sqrt(values[0]) * 1.0001 + missing;
        images[row] = vec4<f32>(unit, length, missing, f32(atomicLoad(&broken)));
    }
}
