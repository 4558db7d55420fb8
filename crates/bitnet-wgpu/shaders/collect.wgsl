// Collects the tokens whose intervals reach the k-th largest lower end; see interval.wgsl. How they are ordered depends on
// who is faster.
//
// site: n = vocabulary.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read> near: array<f32>;
@group(0) @binding(4) var<storage, read_write> results: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read> images: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> hidden: array<vec4<f32>>;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let record = call.top_at + 4u * group.y;
    let row = inputs[record];
    let mask = inputs[record + 2u];
    let out = group.y * near_words(call.top_k);
    let threshold = atomicLoad(&results[out + 2u]);
    let image = hidden[row];
    let end = min((group.x + 1u) * CHUNK, site.n);
    for (var token = group.x * CHUNK + index; token < end; token += WG) {
        if mask != 0u && ((inputs[mask + token / 32u] >> (token % 32u)) & 1u) == 0u {
            continue;
        }
        if ends(near[row * site.n + token], images[token], image).high < threshold {
            continue;
        }
        let place = atomicAdd(&results[out], 1u);
        if place < near_room(call.top_k) {
            atomicStore(&results[out + 4u + 2u * place], token);
        }
    }
}
