// The k largest of a row of logits: first of each CHUNK of the vocabulary (SCAN), then of what the chunks found.
//
// Which is the k-th largest is found by its bits, eight at a time from the top, with a histogram; of equal ones the first
// tokens are taken. So what is found depends on the logits alone, and comes out in the order of tokens.
// NEAR: the same for lower ends of the intervals of logits, of which only the k-th largest is wanted; see interval.wgsl.
// site: n = vocabulary, stride = chunks.
// A chunk's (and a row's) result: how many, whether a logit is not a number, then k tokens, then the bits of k logits.

@group(0) @binding(2) var<storage, read> inputs: array<u32>;
#if SCAN
@group(0) @binding(3) var<storage, read> logits: array<f32>;
#else
@group(0) @binding(3) var<storage, read> found: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> results: array<u32>;
#if SCAN
#if NEAR
@group(0) @binding(5) var<storage, read> images: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> hidden: array<vec4<f32>>;
#endif

var<workgroup> keys: array<u32, CHUNK>;
#endif

const WG: u32 = 256u;

var<workgroup> histogram: array<atomic<u32>, WG>;
var<workgroup> scanned: array<u32, WG>;
var<workgroup> bin: u32;
var<workgroup> above: u32;
var<workgroup> broken: atomic<u32>;

struct Candidates {
    // Where they begin in `logits` or `found`, and how many there are.
    start: u32,
    count: u32,
    // Of the chunk: its first token; and where the mask of the row is, or 0.
    first: u32,
    mask: u32,
}

// The logit of a candidate, or none: then the key is 0.
struct Candidate {
    key: u32,
    token: u32,
    bits: u32,
}

fn candidate(c: Candidates, i: u32) -> Candidate {
#if SCAN
    let key = keys[i];
    return Candidate(key, c.first + i, unordered(key));
#else
    let chunk = c.start + i / call.top_k * (2u + 2u * call.top_k);
    if i % call.top_k >= found[chunk] {
        return Candidate(0u, 0u, 0u);
    }
    let bits = found[chunk + 2u + call.top_k + i % call.top_k];
    return Candidate(ordered(bitcast<f32>(bits)), found[chunk + 2u + i % call.top_k], bits);
#endif
}

// Sum of the values of all threads before this one; `scanned[WG - 1]` is the sum of all.
fn before(value: u32, index: u32) -> u32 {
    workgroupBarrier();
    scanned[index] = value;
    for (var step = 1u; step < WG; step *= 2u) {
        workgroupBarrier();
        var other = 0u;
        if index >= step {
            other = scanned[index - step];
        }
        workgroupBarrier();
        scanned[index] += other;
    }
    workgroupBarrier();
    return scanned[index] - value;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let record = call.top_at + 4u * group.y;
    let width = 2u + 2u * call.top_k;
    var c: Candidates;
#if SCAN
    c.first = group.x * CHUNK;
    c.count = min(CHUNK, site.n - c.first);
    c.start = inputs[record] * site.n + c.first;
    c.mask = inputs[record + 2u];
    let out = (group.y * site.stride + group.x) * width;
#else
    c.count = site.stride * call.top_k;
    c.start = group.y * site.stride * width;
#if NEAR
    let out = group.y * near_words(call.top_k);
#else
    let out = group.y * width;
#endif
#endif
    let share = (c.count + WG - 1u) / WG;
    let first = min(index * share, c.count);
    let end = min(first + share, c.count);

#if SCAN
#if NEAR
    let image = hidden[inputs[record]];
    if index == 0u && image.w != 0.0 {
        atomicOr(&broken, 1u);
    }
#endif
    for (var i = index; i < c.count; i += WG) {
        let token = c.first + i;
        let x = logits[c.start + i];
#if NEAR
        var key = ends(x, images[token], image).low;
#else
        var key = ordered(x);
        if not_finite(x) {
            atomicOr(&broken, 1u);
        }
#endif
        if c.mask != 0u && ((inputs[c.mask + token / 32u] >> (token % 32u)) & 1u) == 0u {
            key = 0u;
        }
        keys[i] = key;
    }
    workgroupBarrier();
#endif

    var mine = 0u;
    for (var i = first; i < end; i++) {
        mine += select(0u, 1u, candidate(c, i).key != 0u);
    }
#if !SCAN
    for (var i = index; i < site.stride; i += WG) {
        atomicOr(&broken, found[c.start + i * width + 1u]);
    }
#endif
    _ = before(mine, index);
    let wanted = min(inputs[record + 1u], workgroupUniformLoad(&scanned[WG - 1u]));

    // The bits of the smallest that is taken, and how many of those that equal it.
    var least = 0u;
    var known = 0u;
    var equal = wanted;
    for (var shift = 24u; shift <= 24u; shift -= 8u) {
        atomicStore(&histogram[index], 0u);
        workgroupBarrier();
        for (var i = first; i < end; i++) {
            let key = candidate(c, i).key;
            if key != 0u && (key & known) == least {
                atomicAdd(&histogram[255u - ((key >> shift) & 255u)], 1u);
            }
        }
        workgroupBarrier();
        let count = atomicLoad(&histogram[index]);
        let larger = before(count, index);
        if larger < equal && larger + count >= equal {
            bin = 255u - index;
            above = larger;
        }
        workgroupBarrier();
        least |= bin << shift;
        known |= 255u << shift;
        equal -= above;
        workgroupBarrier();
    }

#if THRESHOLD
    // What is to be found has no place yet; without anything to look for nothing is.
    if index == 0u {
        results[out] = 0u;
        results[out + 1u] = atomicLoad(&broken);
        results[out + 2u] = select(HIGHEST, least, wanted > 0u);
    }
}
#else
    var ties = 0u;
    for (var i = first; i < end; i++) {
        ties += select(0u, 1u, candidate(c, i).key == least);
    }
    var tie = before(ties, index);
    var taken = 0u;
    let first_tie = tie;
    for (var i = first; i < end; i++) {
        let key = candidate(c, i).key;
        taken += select(0u, 1u, key > least || (key == least && key != 0u && tie < equal));
        tie += select(0u, 1u, key == least);
    }
    var place = before(taken, index);
    tie = first_tie;
    for (var i = first; i < end; i++) {
        let it = candidate(c, i);
        if wanted > 0u && (it.key > least || (it.key == least && it.key != 0u && tie < equal)) {
            results[out + 2u + place] = it.token;
            results[out + 2u + call.top_k + place] = it.bits;
            place++;
        }
        tie += select(0u, 1u, it.key == least);
    }
    if index == 0u {
        results[out] = wanted;
        results[out + 1u] = atomicLoad(&broken);
    }
}
#endif
