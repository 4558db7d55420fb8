// What every kernel sees: parameters, number formats, float functions in the oracle's order of operations.
//
// Sums are written with `fma` wherever a product meets an addition, so that no compiler has a choice that it could make
// differently in two kernels: the bits of a row must not depend on the kernel that its batch size chooses.

// Parameters of a call; a call has several of these in one buffer, chosen by a dynamic offset.
struct Call {
    // Rows (new tokens) of the pass.
    rows: u32,
    // Where `inputs` has the record of each row, 8 words: token, position, where its block table begins, place of its
    // first partial result in layers without and with a window.
    rows_at: u32,
    // Where `inputs` has the rows whose logits are wanted.
    logit_at: u32,
    // Where `inputs` has the cosines and sines of each row, for layers without and with a window.
    rope_full: u32,
    rope_sliding: u32,
    // Attention: where `inputs` has the work items, and the first row of this slice.
    work_at: u32,
    slice_row: u32,
    // Output layer: the first hidden row of this slice, how many it has, and the row of `logits` they begin at.
    out_first: u32,
    out_rows: u32,
    out_to: u32,
    // Selection: where `inputs` has the record of each row, 4 words: row of logits, k, where its mask is (0: no mask),
    // hidden row; and the largest k.
    top_at: u32,
    top_k: u32,
}

// Parameters of a place in the model; each kernel says what they mean to it.
struct Site {
    n: u32,
    words: u32,
    stride: u32,
    offset: u32,
    first: u32,
    count: u32,
    window: u32,
    weight: u32,
    second: u32,
    post: u32,
    eps: f32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<uniform> site: Site;

const TOKEN: u32 = 0u;
const POSITION: u32 = 1u;
const TABLE: u32 = 2u;
const PARTIAL_FULL: u32 = 3u;
const PARTIAL_SLIDING: u32 = 4u;
const ROW_WORDS: u32 = 8u;

// Whether a number is infinite or none. By its bits: compilers may assume that there are no such numbers.
fn not_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
}

// e^x by the polynomial of the CPU; 0 below -87.
fn exponential(x: f32) -> f32 {
    let c = clamp(x, -87.0, 88.0);
    let n = round(c * 1.4426950408889634);
    let r = fma(n, 2.1219444e-4, fma(n, -0.693359375, c));
    var p = 1.0 / 5040.0;
    p = fma(r, p, 1.0 / 720.0);
    p = fma(r, p, 1.0 / 120.0);
    p = fma(r, p, 1.0 / 24.0);
    p = fma(r, p, 1.0 / 6.0);
    p = fma(r, p, 0.5);
    p = fma(r, p, 1.0);
    p = fma(r, p, 1.0);
    let power = bitcast<f32>(u32(i32(n) + 127) << 23u);
    return select(p * power, 0.0, x < -87.0);
}

// Bits of x in half precision, rounded half to even, saturated. `pack2x16float` may round as it likes.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return sign | 0x7e00u;
    }
    let magnitude = min(bits & 0x7fffffffu, 0x477fe000u); // 65504
    if magnitude < 0x38800000u {
        return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
    }
    return sign | (((magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u) - 0x1c000u);
}

fn half_pair(a: f32, b: f32) -> u32 {
    return half_bits(a) | (half_bits(b) << 16u);
}

// Two neighbouring elements of a dense table from one word of it.
fn bf16_pair(word: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

// Four codes 0, 1, 2 (or bytes 0..127) times four int8.
#if DOT4
fn dot4(a: u32, b: u32) -> i32 {
    return dot4I8Packed(a, b);
}
#else
fn dot4(a: u32, b: u32) -> i32 {
    let x = bitcast<i32>(a);
    let y = bitcast<i32>(b);
    return ((x << 24u) >> 24u) * ((y << 24u) >> 24u) + ((x << 16u) >> 24u) * ((y << 16u) >> 24u)
        + ((x << 8u) >> 24u) * ((y << 8u) >> 24u) + (x >> 24u) * (y >> 24u);
}
#endif
