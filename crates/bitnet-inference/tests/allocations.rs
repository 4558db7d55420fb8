//! Steady decoding allocates nothing.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::bytes::ByteView;
use bitnet_inference::{
    Event, GenerateRequest, InferenceEngine, KvType, Mirostat, ModelSource, Prompt, SamplingOverrides,
};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TOKENS: usize = 200;

/// For each token of a text the number of allocations so far.
fn counts(kv_type: KvType, seed: u64) -> Vec<usize> {
    let prompt = Prompt::text("Once upon a time");
    counts_of(kv_type, GenerateRequest::new(prompt).max_tokens(TOKENS).seed(seed))
}

fn counts_of(kv_type: KvType, mut request: GenerateRequest) -> Vec<usize> {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    let engine = InferenceEngine::builder().model(source).threads(2).kv_type(kv_type).build().unwrap();
    request.ignore_eos = true;
    let mut counts = Vec::with_capacity(TOKENS);
    engine
        .generate_with(&mut engine.session(), &request, &mut |event| {
            if let Event::Token { .. } = event {
                counts.push(ALLOCATIONS.load(Ordering::Relaxed));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(counts.len(), TOKENS);
    counts
}

#[test]
fn tokens_after_the_first_few_allocate_nothing_but_kv_blocks() {
    for kv_type in KvType::ALL {
        for seed in 1..=4 {
            let counts = counts(kv_type, seed);
            let allocating = |from: usize| -> Vec<usize> {
                (from + 1..counts.len()).filter(|&i| counts[i] != counts[i - 1]).collect()
            };
            // KV blocks, tables of rotary angles and scratch grow a few times, each time to twice the size; in between,
            // and from position 128 to 255 altogether, nothing is allocated.
            let early = allocating(20);
            assert!(early.len() <= 20, "{kv_type}, seed {seed}: tokens {early:?} allocated");
            let late = allocating(140);
            assert!(late.is_empty(), "{kv_type}, seed {seed}: tokens {late:?} allocated");
        }
    }
}

#[test]
fn no_way_of_sampling_allocates_for_each_token() {
    let all = SamplingOverrides {
        top_k: Some(0),
        typical_p: Some(0.9),
        top_n_sigma: Some(3.0),
        dynatemp_range: Some(0.3),
        xtc_probability: Some(0.5),
        repeat_penalty: Some(1.1),
        frequency_penalty: Some(0.1),
        dry_multiplier: Some(0.5),
        seed: Some(3),
        ..SamplingOverrides::default()
    };
    let mirostat = |version| SamplingOverrides { mirostat: Some(version), ..all };
    let few = SamplingOverrides { top_k: Some(40), top_n_sigma: Some(0.0), dynatemp_range: Some(0.0), ..all };
    for sampling in [all, few, mirostat(Mirostat::V1), mirostat(Mirostat::V2)] {
        let request = GenerateRequest::new(Prompt::text("Once upon a time"))
            .max_tokens(TOKENS)
            .sampling(sampling)
            .logprobs(5)
            .ban("the little girl");
        let counts = counts_of(KvType::F16, request);
        let allocating: Vec<usize> = (141..counts.len()).filter(|&i| counts[i] != counts[i - 1]).collect();
        assert!(allocating.is_empty(), "{sampling:?}: tokens {allocating:?} allocated");
    }
}
