//! Models shared under a budget.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::MemorySize;
use bitnet_inference::model_cache::{CacheError, ModelCache};
use bitnet_inference::{EngineError, InferenceEngine, ModelSource};

use crate::support::builder;

fn load() -> Result<InferenceEngine, EngineError> {
    builder(1).build()
}

/// Memory of one bundled model.
fn size() -> u64 {
    load().unwrap().info().weight_bytes.as_bytes()
}

#[test]
fn a_model_is_loaded_once_for_all_who_ask_at_the_same_time() {
    let cache = ModelCache::new(MemorySize::GB(1));
    let (loads, barrier) = (AtomicUsize::new(0), Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let model = cache
                    .get("m", || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        load()
                    })
                    .unwrap();
                assert_eq!(model.name(), "m");
            });
        }
    });
    let stats = cache.stats();
    assert_eq!((loads.into_inner(), stats.loads, stats.misses, stats.hits), (1, 1, 1, 7));
    assert_eq!((stats.models, stats.in_use), (1, 0));
    assert!(stats.resident_bytes >= size());
}

#[test]
fn the_least_recently_used_idle_model_goes_first_and_none_in_use() {
    let cache = ModelCache::new(MemorySize::bytes(size() * 5 / 2));
    let a = cache.get("a", load).unwrap();
    cache.get("b", load).unwrap();
    cache.get("c", load).unwrap();
    assert_eq!(cache.names(), ["c", "a"], "b was idle");
    cache.get("a", || unreachable!("it is there")).unwrap();
    assert_eq!(cache.names(), ["a", "c"]);
    let d = cache.get("d", load).unwrap();
    assert_eq!(cache.names(), ["d", "a"]);

    let error = cache.get("e", load).unwrap_err();
    assert!(
        matches!(&error, CacheError::OverBudget { in_use, .. } if in_use.as_bytes() >= 2 * size()),
        "{error}"
    );
    assert_eq!(cache.names(), ["d", "a"], "what does not fit leaves the others alone");
    assert!(!cache.evict("a"));
    drop(a);
    assert!(cache.evict("a") && !cache.evict("a"));
    cache.make_room(MemorySize::bytes(size() * 5 / 2));
    assert_eq!(cache.names(), ["d"]);
    drop(d);
    cache.make_room(MemorySize::bytes(size() * 5 / 2));
    let stats = cache.stats();
    assert_eq!((stats.models, stats.resident_bytes, stats.evictions, stats.failures), (0, 0, 4, 1));
}

#[test]
fn a_failed_load_is_told_to_all_and_tried_again() {
    let cache = ModelCache::new(MemorySize::GB(1));
    let missing = || InferenceEngine::builder().model(ModelSource::Path("/no/such/model".into())).build();
    let error = cache.get("m", missing).unwrap_err();
    assert!(
        matches!(error, CacheError::Load { .. }) && error.to_string().contains("/no/such/model"),
        "{error}"
    );
    assert_eq!(cache.stats().models, 0);
    cache.get("m", load).unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get("p", || panic!("in the loader")).map(|_| ())
    }));
    assert!(panics.is_err());
    cache.get("p", load).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.failures, stats.loads, stats.models), (1, 2, 2));
}
