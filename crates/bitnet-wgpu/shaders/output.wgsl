// The output layer for up to M hidden rows: logits[m][v] = h[m] . table[v], summed in the oracle's sixteen lanes.
//
// Eight threads share a row of the table, two lanes each. A table that is too large for one binding is cut by rows.
// site: n = columns, words = words of a row of the table, stride = vocabulary, first and count = rows of this part.

@group(0) @binding(2) var<storage, read> hidden: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

const WG: u32 = 256u;
const ROWS: u32 = WG / 8u;

var<workgroup> lanes: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = (group.x + group.y * groups.x) * ROWS;
    let local = first + index / 8u;
    let row = min(local, site.count - 1u) * site.words;
    let pairs = site.n / 2u;
#each m M
    var acc$m = vec2<f32>();
#end
    for (var i = index % 8u; i < pairs; i += 8u) {
#if TABLE_F32
        let w = vec2<f32>(bitcast<f32>(table[row + 2u * i]), bitcast<f32>(table[row + 2u * i + 1u]));
#else
#if TABLE_F16
        let w = unpack2x16float(table[row + i]);
#else
        let w = bf16_pair(table[row + i]);
#endif
#endif
#each m M
        acc$m = fma(hidden[(call.out_first + min($mu, call.out_rows - 1u)) * pairs + i], w, acc$m);
#end
    }
#each m M
    lanes[index] = acc$m;
    workgroupBarrier();
    if index % 8u < 4u {
        lanes[index] += lanes[index + 4u];
    }
    workgroupBarrier();
    if index % 8u < 2u {
        lanes[index] += lanes[index + 2u];
    }
    workgroupBarrier();
    if index % 8u == 0u && local < site.count && $mu < call.out_rows {
        let both = lanes[index] + lanes[index + 1u];
        logits[(call.out_to + $mu) * site.stride + site.offset + local] = both.x + both.y;
    }
    workgroupBarrier();
#end
}
