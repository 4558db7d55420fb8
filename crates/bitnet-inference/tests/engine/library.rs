//! The builder's settings, the simple calls, generation through processors and streams, custom samplers.

use bitnet_inference::benchmark::{BenchmarkPlan, BenchmarkTest};
use bitnet_inference::{
    BatchConfig, BatchProcessor, CustomSampler, Device, DeviceSelector, EngineError, GenerateRequest,
    InferenceEngine, InferenceStream, KvType, MemorySize, OptimizationLevel, OutputStorage, ParallelConfig,
    ParallelInferenceProcessor, Prompt, QuantizationConfig, SamplingOverrides, StreamingConfig,
};

use crate::support::{builder, engine, source};

fn story(seed: u64) -> GenerateRequest {
    GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(12).seed(seed)
}

#[test]
fn levels_do_what_they_say_and_explicit_settings_count_more() {
    let build = |level| builder(1).optimization_level(level);
    let kv = |engine: InferenceEngine| engine.info().kv_type;
    assert_eq!(kv(build(OptimizationLevel::Conservative).build().unwrap()), KvType::F32);
    assert_eq!(kv(build(OptimizationLevel::Balanced).build().unwrap()), KvType::F16);
    let aggressive = build(OptimizationLevel::Aggressive).build().unwrap();
    assert_eq!(aggressive.scheduler().stats().max_running, 128);
    assert_eq!(kv(aggressive), KvType::Int8);
    let explicit = build(OptimizationLevel::Aggressive).kv_type(KvType::F16).batch_size(3);
    let explicit = explicit.output_storage(OutputStorage::Scan).build().unwrap();
    assert_eq!((explicit.info().kv_type, explicit.scheduler().stats().max_running), (KvType::F16, 3));
    // The same keys and values give the same text at any level.
    let text = |level| {
        let engine = build(level).kv_type(KvType::F16).build().unwrap();
        engine.generate_blocking(&story(3)).unwrap().text
    };
    assert_eq!(text(OptimizationLevel::Conservative), text(OptimizationLevel::Aggressive));
    assert!(builder(1).batch_size(0).build().is_err());
}

#[test]
fn devices_that_are_not_there_are_refused_or_replaced() {
    let error = builder(1).device(Device::Cuda(999)).build().unwrap_err();
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("cuda:999"), "{error}");
    let engine = builder(1).device(Device::Cpu).enable_gpu_acceleration(true).build().unwrap();
    assert!(engine.model().warnings.is_empty());
    let engine = builder(1).enable_gpu_acceleration(true).build().unwrap();
    let on_processor = DeviceSelector::new().select_gpu().fallback.is_some();
    assert_eq!(engine.model().warnings.iter().any(|warning| warning.contains("processor")), on_processor);
    assert_eq!(engine.gpu_memory().is_none(), on_processor);
}

#[test]
fn quantisation_is_what_the_engine_computes_with() {
    let with = |config| builder(1).quantization(config).build();
    let base = QuantizationConfig::default();
    let want = engine(1).generate_blocking(&story(1)).unwrap().tokens;
    for (weight_bits, form) in [(1.6, "1.6-bit"), (2.0, "2-bit")] {
        let engine = with(QuantizationConfig { weight_bits, ..base }).unwrap();
        let description = engine.info().description.clone();
        assert!(description.contains(form), "{description}");
        assert_eq!(engine.generate_blocking(&story(1)).unwrap().tokens, want);
    }
    let error = with(QuantizationConfig { activation_bits: 16, ..base }).unwrap_err();
    assert!(matches!(error, EngineError::Quantization(_)), "{error}");
}

#[test]
fn a_pool_limits_keys_and_values_too() {
    let engine = builder(1).memory_pool_size(MemorySize::MB(8)).build().unwrap();
    let stats = engine.scheduler().stats();
    let bytes = stats.blocks_total as u64 * engine.info().block_bytes.as_bytes();
    assert!(bytes <= MemorySize::MB(6).as_bytes(), "{bytes}");
    assert_eq!(engine.generate_blocking(&story(5)).unwrap().tokens.len(), 12);
    assert!(builder(1).memory_pool_size(MemorySize::bytes(1000)).build().is_err());
}

#[tokio::test]
async fn generation_by_processors_and_streams_is_that_of_direct_calls() {
    let engine = engine(2);
    let requests: Vec<GenerateRequest> = (0..9).map(story).collect();
    let want: Vec<_> = requests.iter().map(|r| engine.generate_blocking(r).unwrap().tokens).collect();
    let config = BatchConfig { parallel_workers: 2, ..BatchConfig::default() };
    let batches = BatchProcessor::new(engine.clone(), config).unwrap();
    let batched = batches.process(requests.clone()).await.unwrap();
    assert_eq!(batched.into_iter().map(|result| result.unwrap().tokens).collect::<Vec<_>>(), want);
    let mut inputs = requests.clone();
    inputs[4] = GenerateRequest::new(Prompt::Tokens(vec![]));
    let mut stream =
        InferenceStream::timed(engine.clone(), inputs.clone(), StreamingConfig::default()).unwrap();
    while let Some(item) = stream.next().await {
        match item.index {
            4 => assert!(matches!(item.result, Err(EngineError::EmptyPrompt))),
            index => assert_eq!(item.result.unwrap().tokens, want[index as usize]),
        }
    }
    let parallel =
        ParallelInferenceProcessor::new(engine, ParallelConfig { workers: 3, ..Default::default() });
    let parallel = parallel.unwrap();
    for request in inputs {
        parallel.submit(request).await.unwrap();
    }
    let report = parallel.shutdown(bitnet_inference::ShutdownMode::Finish).await.unwrap();
    assert_eq!(report.results.len(), 9);
    for done in report.results {
        match done.id {
            4 => assert!(done.result.is_err()),
            id => assert_eq!(done.result.unwrap().tokens, want[id as usize]),
        }
    }
}

#[tokio::test]
async fn dropping_a_stream_ends_its_requests() {
    let engine = engine(1);
    let endless = GenerateRequest { ignore_eos: true, ..GenerateRequest::new(Prompt::text("The")) };
    let mut stream =
        InferenceStream::sequential(engine.clone(), vec![endless; 3], StreamingConfig::default()).unwrap();
    let first = futures_util::FutureExt::now_or_never(stream.next());
    assert!(first.is_none());
    drop(stream);
    // A request behind it gets its turn, and the engine comes to rest.
    engine.generate(story(1)).await.unwrap();
    engine.scheduler().shutdown(bitnet_inference::Shutdown::Drain);
    let stats = engine.scheduler().stats();
    assert_eq!((stats.running, stats.queued), (0, 0));
    assert!(stats.generated_tokens_total < engine.context() as u64 * 3);
}

#[test]
fn custom_samplers_choose_and_change() {
    let engine = engine(1);
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        repeat_penalty: Some(1.0),
        ..SamplingOverrides::default()
    };
    let base = story(1).sampling(greedy);
    let plain = engine.generate_blocking(&base).unwrap().tokens;
    let best = CustomSampler::new(|logits, _| {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        logits.iter().position(|&logit| logit == best).map(|token| token as u32)
    });
    assert_eq!(engine.generate_blocking(&base.clone().custom_sampler(best)).unwrap().tokens, plain);
    let idle = base.clone().custom_sampler(CustomSampler::new(|_, _| None));
    assert_eq!(engine.generate_blocking(&idle).unwrap().tokens, plain);
    let fixed = base.clone().custom_sampler(CustomSampler::new(|_, _| Some(300)));
    assert_eq!(engine.generate_blocking(&fixed).unwrap().tokens, [300; 12]);
    for token in [8192, u32::MAX] {
        let bad = base.clone().custom_sampler(CustomSampler::new(move |_, _| Some(token)));
        let error = engine.generate_blocking(&bad).unwrap_err();
        assert!(matches!(error, EngineError::Sampling(_)), "{error}");
    }
    let broken = base.custom_sampler(CustomSampler::new(|logits, _| {
        logits[5] = f32::NAN;
        None
    }));
    assert!(engine.generate_blocking(&broken).is_err());
}

#[tokio::test]
async fn the_simple_calls_work() {
    let engine = InferenceEngine::balanced().await.unwrap();
    let text = engine.quick_infer("Once upon a time").await.unwrap();
    assert_eq!(text, engine.quick_infer("Once upon a time").await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let bitnet_inference::ModelSource::Memory { files, .. } = source() else { unreachable!() };
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes.as_slice()).unwrap();
    }
    let path = folder.path().to_str().unwrap().to_owned();
    let loaded = InferenceEngine::load_model(path).await.unwrap();
    assert_eq!(loaded.quick_infer("Once upon a time").await.unwrap(), text);
    let error = InferenceEngine::load_model("no-such-org/no-such-model").await.unwrap_err();
    assert!(matches!(error, EngineError::ModelNotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_report_shows_its_tests() {
    let tests = vec![BenchmarkTest::prompt(8), BenchmarkTest { sequences: 2, ..BenchmarkTest::generate(2) }];
    let plan = BenchmarkPlan { tests, repetitions: 1, limits: false, ..BenchmarkPlan::default() };
    let report = engine(1).benchmark(plan).await.unwrap();
    let text = report.display().to_string();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("pp8") && text.contains("tg2 x 2"), "{text}");
}
