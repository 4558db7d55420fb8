// Ternary product for up to M rows: out[m][n] = (sum of (code - 1) * q) * scale[n] / s[m].
//
// LANES threads share four rows of the matrix; each thread takes every LANES-th word of them, sixteen codes trit + 1 a
// word: bits 2j and 2j + 1 of byte b are element 4j + b, so that a shift and a mask give what `dot4` takes. The sums are
// exact, so their order is free; the sum of q is taken off at the end.
// site: n = rows of the matrix in this part, words = words of one, stride = floats of an output row, offset = where this
// part begins in it, first = row of the quantised input, in quads of words.

@group(0) @binding(2) var<storage, read> weights: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> info: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

const WG: u32 = 128u;
const GROUP_ROWS: u32 = 4u;
const ROWS: u32 = WG / LANES * GROUP_ROWS;

// Sixteen codes times sixteen int8.
fn dot16(w: u32, a: vec4<u32>) -> i32 {
    return dot4(w & 0x03030303u, a.x) + dot4((w >> 2u) & 0x03030303u, a.y)
        + dot4((w >> 4u) & 0x03030303u, a.z) + dot4((w >> 6u) & 0x03030303u, a.w);
}

var<workgroup> sums: array<atomic<i32>, ROWS * M>;

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
    let local_row = index / LANES * GROUP_ROWS;
#each i 4
    let start$i = min(first + local_row + $iu, site.n - 1u) * site.words;
#each m M
    var acc$i_$m = 0;
#end
#end
    for (var k = index % LANES; k < site.words; k += LANES) {
#each i 4
        let w$i = weights[start$i + k];
#end
#each m M
        let a$m = q[min($mu, call.rows - 1u) * site.words + k];
#each i 4
        acc$i_$m += dot16(w$i, a$m);
#end
#end
    }
    // Sums by rows of the matrix, then rows of the batch.
#each i 4
#each m M
#if SUBGROUPS
    // A subgroup is no larger than LANES, so all of it has the same rows.
    let part$i_$m = subgroupAdd(acc$i_$m);
    if lane_of_subgroup == 0u {
        atomicAdd(&sums[(local_row + $iu) * M + $mu], part$i_$m);
    }
#else
    atomicAdd(&sums[(local_row + $iu) * M + $mu], acc$i_$m);
#endif
#end
#end
    workgroupBarrier();
    for (var i = index; i < ROWS * M; i += WG) {
        let n = first + i / M;
        let m = i % M;
        if n < site.n && m < call.rows {
            let row = info[m];
            let sum = atomicLoad(&sums[i]) - bitcast<i32>(row.y);
            out[m * site.stride + site.offset + n] = f32(sum) * (scales[n] * bitcast<f32>(row.x));
        }
    }
}
