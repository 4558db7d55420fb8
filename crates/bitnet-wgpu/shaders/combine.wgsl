// Merges the ranges of attention in order and divides by the sum of the weights. One workgroup a row of the slice and head.
//
// Constants of the model: HEAD_DIM, HEADS. site: window.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read> partials: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const WG: u32 = 64u;
const RANGE: u32 = 256u;
const WIDTH: u32 = HEAD_DIM + 2u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = call.slice_row + group.x;
    let head = group.y;
    let record = call.rows_at + row * ROW_WORDS;
    let position = inputs[record + POSITION];
    let lowest = select(0u, position + 1u - min(position + 1u, site.window), site.window != 0u);
    let ranges = position / RANGE - lowest / RANGE + 1u;
    let first = inputs[record + select(PARTIAL_FULL, PARTIAL_SLIDING, site.window != 0u)];
    for (var i = index; i < HEAD_DIM; i += WG) {
        var at = (first * HEADS + head) * WIDTH;
        var value = partials[at + i];
        var most = partials[at + HEAD_DIM];
        var sum = partials[at + HEAD_DIM + 1u];
        for (var r = 1u; r < ranges; r++) {
            at += HEADS * WIDTH;
            let next = partials[at + HEAD_DIM];
            let larger = max(most, next);
            let before = exponential(most - larger);
            let after = exponential(next - larger);
            sum = fma(partials[at + HEAD_DIM + 1u], after, sum * before);
            value = fma(partials[at + i], after, value * before);
            most = larger;
        }
        out[(row * HEADS + head) * HEAD_DIM + i] = value * (1.0 / sum);
    }
}
