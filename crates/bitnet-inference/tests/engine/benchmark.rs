//! `InferenceEngine::benchmark` runs what it is told to, and says so.

use std::ops::ControlFlow;

use bitnet_inference::EngineError;
use bitnet_inference::benchmark::{BenchmarkEvent, BenchmarkOptions, BenchmarkResult, BenchmarkTest};
use bitnet_inference::{GenerateRequest, InferenceEngine, Prompt};

use crate::support::{builder, engine};

fn options(repetitions: usize) -> BenchmarkOptions<'static> {
    BenchmarkOptions { repetitions, ..BenchmarkOptions::default() }
}

fn run(engine: &InferenceEngine, tests: &[BenchmarkTest]) -> Result<Vec<BenchmarkResult>, EngineError> {
    engine.benchmark_with(tests, options(2), &mut |_| ControlFlow::Continue(()))
}

#[test]
fn every_test_is_repeated_and_every_token_is_timed() {
    let engine = builder(2).sessions(3).build().unwrap();
    let tests = [
        BenchmarkTest::prompt(20),
        BenchmarkTest { depth: 40, ..BenchmarkTest::generate(5) },
        BenchmarkTest { prompt: 7, generate: 3, depth: 33, sequences: 3 },
        // Exactly as much as the context holds.
        BenchmarkTest { prompt: 30, generate: 2, depth: 480, sequences: 1 },
    ];
    let (mut progress, mut told) = (Vec::new(), 0);
    let results = engine.benchmark_with(&tests, options(2), &mut |event| {
        match event {
            BenchmarkEvent::Progress { done, total } => progress.push((done, total)),
            BenchmarkEvent::Result(_) => told += 1,
        }
        ControlFlow::Continue(())
    });
    let results = results.unwrap();
    assert_eq!((results.len(), told), (4, 4));
    assert!(progress.is_sorted() && progress.iter().all(|(done, total)| done <= total));
    for (result, test) in results.iter().zip(tests) {
        assert_eq!((result.test, result.repetitions.len()), (test, 2));
        for repetition in &result.repetitions {
            assert_eq!(repetition.steps.len(), test.generate);
            assert_eq!(repetition.prompt.is_zero(), test.prompt == 0);
            assert_eq!(repetition.limits, None);
        }
        assert_eq!(result.first_token().is_some(), test.prompt > 0);
        assert_eq!(result.latency().is_some(), test.generate > 0);
        assert!(result.tokens_per_second().mean > 0.0 && result.work.bytes() > 0.0);
    }
    // The context of every sequence is read.
    let deep = results[1].work.generate.bytes;
    let flat = run(&engine, &[BenchmarkTest::generate(5)]).unwrap()[0].work.generate.bytes;
    let info = engine.info();
    let kv = info.block_bytes.as_bytes() as f64 / info.block_size as f64;
    assert_eq!(deep - flat, 5.0 * 40.0 * kv);
}

#[test]
fn an_engine_is_as_before_afterwards() {
    let engine = engine(1);
    let request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(8).seed(3);
    let before = engine.generate_blocking(&request).unwrap().tokens;
    run(&engine, &[BenchmarkTest { prompt: 9, generate: 3, depth: 20, sequences: 2 }]).unwrap();
    assert_eq!(engine.generate_blocking(&request).unwrap().tokens, before);
}

#[test]
fn breaking_off_keeps_whole_repetitions() {
    let engine = engine(1);
    let tests = [BenchmarkTest::generate(4), BenchmarkTest::prompt(8)];
    // A warm-up of four steps, four of the first repetition, two of the second.
    let mut steps = 0;
    let results = engine.benchmark_with(&tests, options(5), &mut |event| {
        steps += usize::from(matches!(event, BenchmarkEvent::Progress { .. }));
        if steps == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let results = results.unwrap();
    assert_eq!((results.len(), results[0].repetitions.len()), (1, 1));
    let none = engine.benchmark_with(&tests, options(5), &mut |_| ControlFlow::Break(()));
    assert!(none.unwrap().is_empty());
}

#[test]
fn impossible_tests_are_refused_before_anything_runs() {
    let engine = engine(1);
    let nothing = BenchmarkTest { prompt: 0, generate: 0, depth: 8, sequences: 1 };
    let nobody = BenchmarkTest { sequences: 0, ..BenchmarkTest::prompt(4) };
    for test in [nothing, nobody] {
        let error = run(&engine, &[BenchmarkTest::prompt(4), test]).unwrap_err();
        assert!(matches!(error, EngineError::Parameter(_)), "{error}");
    }
    for test in [
        BenchmarkTest::prompt(513),
        BenchmarkTest { prompt: 1, generate: 1, depth: 511, sequences: 1 },
        BenchmarkTest { depth: usize::MAX, ..BenchmarkTest::generate(1) },
    ] {
        let error = run(&engine, &[test]).unwrap_err();
        assert!(matches!(error, EngineError::ContextTooLong { limit: 512, .. }), "{error}");
    }
    let error = engine.benchmark_with(&[], options(0), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("repetitions"), "{error}");
    // More sequences than the engine has room for.
    let crowd = BenchmarkTest { depth: 400, sequences: 9, ..BenchmarkTest::generate(4) };
    assert!(matches!(run(&engine, &[crowd]).unwrap_err(), EngineError::Sessions(_)));
    assert_eq!(run(&engine, &[BenchmarkTest::prompt(4)]).unwrap().len(), 1);
}
