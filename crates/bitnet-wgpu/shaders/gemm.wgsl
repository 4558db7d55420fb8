// Ternary product of many rows: tiles of TM rows times 64 rows of the matrix, 64 columns at a time through workgroup
// memory; each thread has four by four sums. Codes, sums and result as in gemv.wgsl: the same bits.
// site: as there.

@group(0) @binding(2) var<storage, read> weights: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> info: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

const TN: u32 = 64u;
const WG: u32 = TM * TN / 16u;
// Words of four int8 in 64 columns.
const DEPTH: u32 = 16u;

// [word of the depth][row], so that the four rows of a thread lie together.
var<workgroup> tile_q: array<u32, DEPTH * TM>;
var<workgroup> tile_w: array<u32, DEPTH * TN>;

// Four results of a row.
fn put(m: u32, n: u32, sums: vec4<i32>) {
    if m < call.rows {
        let row = info[m];
#each j 4
        if n + $ju < site.n {
            let factor = scales[n + $ju] * bitcast<f32>(row.x);
            out[m * site.stride + site.offset + n + $ju] = f32(sums[$j] - bitcast<i32>(row.y)) * factor;
        }
#end
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let first_n = group.x * TN;
    let first_m = group.y * TM;
    let n4 = (index % 16u) * 4u;
    let m4 = (index / 16u) * 4u;
    let q_row = min(first_m + index / 4u, call.rows - 1u) * site.words;
#each i 4
    var acc$i = vec4<i32>();
#end
    for (var k = 0u; k < site.words; k += 4u) {
        // WG = 4 TM: each thread brings one quad of words of the rows.
        let a = q[q_row + k + index % 4u];
        let at = (index % 4u) * 4u * TM + index / 4u;
        tile_q[at] = a.x;
        tile_q[at + TM] = a.y;
        tile_q[at + 2u * TM] = a.z;
        tile_q[at + 3u * TM] = a.w;
        for (var i = index; i < 4u * TN; i += WG) {
            let n = min(first_n + i / 4u, site.n - 1u);
            let w = weights[n * site.words + k + i % 4u];
            let place = (i % 4u) * 4u * TN + i / 4u;
            tile_w[place] = w & 0x03030303u;
            tile_w[place + TN] = (w >> 2u) & 0x03030303u;
            tile_w[place + 2u * TN] = (w >> 4u) & 0x03030303u;
            tile_w[place + 3u * TN] = (w >> 6u) & 0x03030303u;
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let pa = d * TM + m4;
            let pb = d * TN + n4;
#each j 4
            let b$j = tile_w[pb + $ju];
#end
#each i 4
            let v$i = tile_q[pa + $iu];
            acc$i += vec4<i32>(dot4(b0, v$i), dot4(b1, v$i), dot4(b2, v$i), dot4(b3, v$i));
#end
        }
        workgroupBarrier();
    }
#each i 4
    put(first_m + m4 + $iu, first_n + n4, acc$i);
#end
}
