// Products of the images of the output layer and of up to M hidden rows: near what their logits are, see interval.wgsl.
//
// LANES threads share four rows of the output layer; each thread takes every LANES-th quad of words of them, sixteen int8 a
// quad. The sums are exact, so their order is free.
// site: words = quads of a row, stride = vocabulary, offset = first token of this part, count = its rows.

@group(0) @binding(2) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> images: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> parts: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> hidden: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> near: array<f32>;

const WG: u32 = 128u;
const ROWS: u32 = WG / LANES * 4u;

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4(a.x, b.x) + dot4(a.y, b.y) + dot4(a.z, b.z) + dot4(a.w, b.w);
}

// [row of the output layer][hidden row][upper and lower part]
var<workgroup> sums: array<atomic<i32>, ROWS * M * 2u>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
#if SUBGROUPS
    @builtin(subgroup_invocation_id) lane_of_subgroup: u32,
#endif
) {
    let first = (group.x + group.y * groups.x) * ROWS;
    let local_row = index / LANES * 4u;
#each i 4
    let start$i = min(first + local_row + $iu, site.count - 1u) * site.words;
#each m M
    var high$i_$m = 0;
    var low$i_$m = 0;
#end
#end
    for (var k = index % LANES; k < site.words; k += LANES) {
#each i 4
        let w$i = codes[start$i + k];
#end
#each m M
        let at$m = 2u * (call.out_to + min($mu, call.out_rows - 1u)) * site.words + k;
        let a$m = parts[at$m];
        let b$m = parts[at$m + site.words];
#each i 4
        high$i_$m += dot16(w$i, a$m);
        low$i_$m += dot16(w$i, b$m);
#end
#end
    }
#each i 4
#each m M
#if SUBGROUPS
    // A subgroup is no larger than LANES, so all of it has the same rows.
    let high_sum$i_$m = subgroupAdd(high$i_$m);
    let low_sum$i_$m = subgroupAdd(low$i_$m);
    if lane_of_subgroup == 0u {
        atomicAdd(&sums[((local_row + $iu) * M + $mu) * 2u], high_sum$i_$m);
        atomicAdd(&sums[((local_row + $iu) * M + $mu) * 2u + 1u], low_sum$i_$m);
    }
#else
    atomicAdd(&sums[((local_row + $iu) * M + $mu) * 2u], high$i_$m);
    atomicAdd(&sums[((local_row + $iu) * M + $mu) * 2u + 1u], low$i_$m);
#endif
#end
#end
    workgroupBarrier();
    for (var i = index; i < ROWS * M; i += WG) {
        let n = first + i / M;
        let m = i % M;
        if n < site.count && m < call.out_rows {
            let token = site.offset + n;
            let whole = fma(128.0, f32(atomicLoad(&sums[2u * i])), f32(atomicLoad(&sums[2u * i + 1u])));
            let row = call.out_to + m;
            near[row * site.stride + token] = (whole * hidden[row].x) * images[token].x;
        }
    }
}
