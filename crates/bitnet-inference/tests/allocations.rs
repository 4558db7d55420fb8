//! Steady decoding allocates nothing.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::bytes::ByteView;
use bitnet_inference::{Event, GenerateRequest, InferenceEngine, KvType, ModelSource, Prompt};

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

#[test]
fn tokens_after_the_first_few_allocate_nothing_but_kv_blocks() {
    const TOKENS: usize = 200;
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    // The text's own buffer doubles now and then; with these keys and values the text does not do so late.
    let engine = InferenceEngine::builder().model(source).threads(2).kv_type(KvType::F32).build().unwrap();
    let mut request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(TOKENS).seed(1);
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
    let allocating = |from: usize| counts[from..].windows(2).filter(|w| w[0] != w[1]).count();
    // KV blocks, tables of rotary angles and scratch grow a few times, each time to twice the size; in between, and
    // from position 128 to 255 altogether, nothing is allocated.
    assert!(allocating(20) <= 20, "{} tokens allocated", allocating(20));
    assert_eq!(allocating(140), 0);
}
