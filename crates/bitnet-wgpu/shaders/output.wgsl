// The output layer for up to M hidden rows: logits[m][v] = h[m] . table[v], summed in the oracle's sixteen lanes.
//
// Eight threads share a row of the table, two lanes each. A table that is too large for one binding is cut by rows.
// PICKED: only the tokens that were found near the largest logits of one row (see interval.wgsl), in the same way.
// site: n = columns, words = words of a row of the table, stride = vocabulary, offset = first token of this part, count =
// its rows.

@group(0) @binding(2) var<storage, read> hidden: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
#if PICKED
@group(0) @binding(4) var<storage, read_write> results: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read> inputs: array<u32>;

var<workgroup> found: u32;
#else
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
#endif

const WG: u32 = 256u;
const ROWS: u32 = WG / 8u;

var<workgroup> lanes: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let pairs = site.n / 2u;
#if PICKED
    let out = group.y * near_words(call.top_k);
    if index == 0u {
        found = min(atomicLoad(&results[out]), near_room(call.top_k));
    }
    let count = workgroupUniformLoad(&found);
    let start = inputs[call.top_at + 4u * group.y + 3u] * pairs;
    for (var first = group.x * ROWS; first < count; first += groups.x * ROWS) {
        let place = out + 4u + 2u * min(first + index / 8u, count - 1u);
        let token = atomicLoad(&results[place]);
        let mine = first + index / 8u < count && token >= site.offset && token - site.offset < site.count;
        let row = select(0u, token - site.offset, mine) * site.words;
#else
    {
        let first = (group.x + group.y * groups.x) * ROWS;
        let local = first + index / 8u;
        let row = min(local, site.count - 1u) * site.words;
#endif
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
#if PICKED
            acc0 = fma(hidden[start + i], w, acc0);
#else
#each m M
            acc$m = fma(hidden[(call.out_first + min($mu, call.out_rows - 1u)) * pairs + i], w, acc$m);
#end
#endif
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
#if PICKED
        if index % 8u == 0u && mine {
            let both = lanes[index] + lanes[index + 1u];
            let logit = both.x + both.y;
            atomicStore(&results[place + 1u], bitcast<u32>(logit));
            if not_finite(logit) {
                atomicOr(&results[out + 1u], 1u);
            }
        }
#else
        if index % 8u == 0u && local < site.count && $mu < call.out_rows {
            let both = lanes[index] + lanes[index + 1u];
            logits[(call.out_to + $mu) * site.stride + site.offset + local] = both.x + both.y;
        }
#endif
        workgroupBarrier();
#end
    }
}
