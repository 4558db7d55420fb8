// Numbers of the search for the largest logits: logits in an order that integers have, and the intervals that hold them.
//
// Of a row W of the output layer there is an int8 image (see src/image.rs), of a hidden row h one of two int8 parts
// (split.wgsl). By Cauchy-Schwarz the product of the images, which scan.wgsl computes, is within
//     |h| |W - image(W)| + |h - image(h)| |image(W)| + rounding
// of the logit: an interval. The k largest logits are among those whose upper end reaches the k-th largest lower end.
// These are collected (collect.wgsl) and computed in full (output.wgsl), in the order of operations of all logits.
//
// What a row found, `near_words` words: how many, whether a logit is not a number, the key of the k-th largest lower end,
// nothing, then tokens and bits of their logits in pairs, as many as there is room for.

// Tokens that a workgroup looks at.
const CHUNK: u32 = 2048u;
// Keys of ends that are nowhere: the least that a number has, and more than any has.
const LOWEST: u32 = 0x00800000u;
const HIGHEST: u32 = 0xffffffffu;

// Bits of a number in an order that integers have; never 0.
fn ordered(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// And back.
fn unordered(key: u32) -> u32 {
    return select(~key, key ^ 0x80000000u, (key & 0x80000000u) != 0u);
}

struct Ends {
    low: u32,
    high: u32,
}

// Keys of the ends. image: scale, |W - image(W)|, |image(W)|, rounding for each |h|; hidden: unit, |h|, |h - image(h)|,
// whether it is broken. What is not a number reaches everything.
fn ends(near: f32, image: vec4<f32>, hidden: vec4<f32>) -> Ends {
    let off = ((hidden.y * image.y + hidden.z * image.z) + hidden.y * image.w) * 1.001 + 1e-30;
    let low = near - off;
    let high = near + off;
    if not_finite(low) || not_finite(high) {
        return Ends(LOWEST, HIGHEST);
    }
    return Ends(ordered(low), ordered(high));
}

// Room for what is found of a row.
fn near_room(k: u32) -> u32 {
    return clamp(16u * k, 1024u, 4096u);
}

fn near_words(k: u32) -> u32 {
    return 4u + 2u * near_room(k);
}
