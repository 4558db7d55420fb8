// Rows of the embedding for the tokens of a pass: x[row] = table[token] * scale.
//
// A table that is too large for one binding is cut by rows; each part answers for the tokens that it has.
// site: n = columns, words = words of a row, first and count = rows of this part, scale.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    let row = id.y;
    let token = inputs[call.rows_at + row * ROW_WORDS + TOKEN];
    if i >= site.words || token < site.first || token - site.first >= site.count {
        return;
    }
    let word = table[(token - site.first) * site.words + i];
#if TABLE_F32
    x[row * site.n + i] = bitcast<f32>(word) * site.scale;
#else
#if TABLE_F16
    let pair = unpack2x16float(word) * site.scale;
#else
    let pair = bf16_pair(word) * site.scale;
#endif
    x[row * site.n + 2u * i] = pair.x;
    x[row * site.n + 2u * i + 1u] = pair.y;
#endif
}
