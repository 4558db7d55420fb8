//! `infer`: the same bits whatever it is computed from and beside, faults of single inputs, and memory.

use bitnet_inference::{
    BatchConfig, BatchProcessor, EngineError, InferOutput, InferRequest, Inference, InferenceEngine,
    InferenceStream, KvType, MemorySize, ParallelConfig, ParallelInferenceProcessor, StreamingConfig,
};

use crate::support::{builder, engine};

const TEXTS: [&str; 4] =
    ["Once upon a time there was a little dog", "The", "A cat sat on the mat and looked at the moon.", "Tom"];

fn tokens(engine: &InferenceEngine, text: &str) -> Vec<u32> {
    engine.tokenizer().unwrap().encode(text, Default::default()).unwrap()
}

/// A text of more tokens than one forward call takes.
fn long(engine: &InferenceEngine) -> Vec<u32> {
    let once = tokens(engine, TEXTS[0]);
    once.iter().copied().cycle().take(engine.info().max_batch_tokens + 40).collect()
}

fn bits(inference: &Inference) -> Vec<u32> {
    inference.values().iter().map(|value| value.to_bits()).collect()
}

fn requests(engine: &InferenceEngine) -> Vec<InferRequest> {
    let mut all = Vec::new();
    for text in TEXTS {
        let ids = tokens(engine, text);
        let rows = engine.embedding_rows(&ids).unwrap();
        all.extend([
            InferRequest::new(text),
            InferRequest::new(ids.clone()).all_rows(),
            InferRequest::new(ids).hidden(),
            InferRequest::new(text).embedding(),
            InferRequest::new(rows.clone()),
            InferRequest::new(rows).hidden().all_rows(),
        ]);
    }
    all.push(InferRequest::new(long(engine)).hidden().all_rows());
    all.push(InferRequest::new(engine.embedding_rows(&long(engine)).unwrap()).hidden().all_rows());
    all
}

#[test]
fn a_batch_gives_the_bits_of_single_calls() {
    let (one, two) = (engine(1), engine(2));
    let requests = requests(&one);
    let together = one.infer_batch_blocking(&requests);
    let others = two.infer_batch_blocking(&requests);
    for ((request, batched), other) in requests.iter().zip(together).zip(others) {
        let (alone, batched) = (one.infer_blocking(request.clone()).unwrap(), batched.unwrap());
        assert_eq!(bits(&alone), bits(&batched));
        assert_eq!(bits(&alone), bits(&other.unwrap()), "threads change nothing");
        assert_eq!(
            (alone.rows(), alone.width(), alone.tokens()),
            (batched.rows(), batched.width(), batched.tokens())
        );
    }
}

#[test]
fn rows_of_the_embedding_give_the_bits_of_tokens() {
    let engine = engine(2);
    for ids in [tokens(&engine, TEXTS[0]), long(&engine)] {
        let rows = engine.embedding_rows(&ids).unwrap();
        let (from_tokens, from_rows) =
            (engine.infer_blocking(ids.clone()).unwrap(), engine.infer_blocking(rows.clone()).unwrap());
        assert_eq!(bits(&from_tokens), bits(&from_rows));
        let all = |request: InferRequest| engine.infer_blocking(request.hidden().all_rows()).unwrap();
        let (states, others) = (all(InferRequest::new(ids.clone())), all(InferRequest::new(rows)));
        assert_eq!((states.rows(), bits(&states)), (ids.len(), bits(&others)));
    }
}

#[test]
fn results_are_those_of_the_executor_and_of_embed() {
    let engine = engine(1);
    let ids = tokens(&engine, TEXTS[2]);
    let logits = engine.infer_blocking(InferRequest::new(ids.clone()).all_rows()).unwrap();
    assert_eq!((logits.output(), logits.rows(), logits.width()), (InferOutput::Logits, ids.len(), 8192));
    let last = engine.infer_blocking(ids.clone()).unwrap();
    assert_eq!(logits.last(), last.values());
    // The greedy continuation of the same tokens.
    let request = bitnet_inference::GenerateRequest::new(bitnet_inference::Prompt::Tokens(ids.clone()));
    let greedy = bitnet_inference::SamplingOverrides { temperature: Some(0.0), ..Default::default() };
    let generated = engine.generate_blocking(&request.sampling(greedy).max_tokens(1)).unwrap();
    assert_eq!(generated.tokens, [last.best() as u32]);
    let embedding = engine.infer_blocking(InferRequest::new(TEXTS[2]).embedding()).unwrap();
    assert_eq!(embedding.values(), engine.embed(&[TEXTS[2]]).unwrap()[0]);
}

#[test]
fn one_bad_input_fails_alone() {
    let engine = engine(1);
    let width = engine.spec().hidden_size;
    let mut holed = vec![0.5; 2 * width];
    holed[width + 3] = f32::NAN;
    let too_long = vec![1u32; engine.context() + 1];
    let requests = [
        InferRequest::new(TEXTS[0]),
        InferRequest::new(vec![8192u32]),
        InferRequest::new(vec![0.0f32; width + 1]),
        InferRequest::new(holed),
        InferRequest::new(too_long),
        InferRequest::new(Vec::<u32>::new()),
        InferRequest::new(Vec::<f32>::new()),
        InferRequest::new(TEXTS[1]),
    ];
    let results = engine.infer_batch_blocking(&requests);
    assert!(matches!(results[1], Err(EngineError::BadToken { token: 8192, .. })));
    assert!(matches!(results[2], Err(EngineError::RowSize { .. })));
    assert!(matches!(results[3], Err(EngineError::RowValue { row: 1, column: 3, .. })));
    assert!(matches!(results[4], Err(EngineError::TextTooLong { index: 4, .. })));
    assert!(matches!(results[5], Err(EngineError::EmptyPrompt)));
    assert!(matches!(results[6], Err(EngineError::RowSize { given: 0, .. })));
    for good in [0, 7] {
        let alone = engine.infer_blocking(requests[good].clone()).unwrap();
        assert_eq!(bits(results[good].as_ref().unwrap()), bits(&alone));
    }
}

#[test]
fn memory_comes_from_the_pool_and_its_limit_holds() {
    let engine = builder(1).memory_pool_size(MemorySize::MB(48)).build().unwrap();
    let budget = MemorySize::MB(12);
    assert_eq!(engine.memory_stats().budget, budget);
    let ids = tokens(&engine, TEXTS[0]);
    let before = engine.memory_stats();
    let held = engine.infer_blocking(ids.clone()).unwrap();
    let stats = engine.memory_stats();
    assert!(stats.requested.as_bytes() >= before.requested.as_bytes() + 4 * 8192);
    drop(held);
    assert!(engine.memory_stats().in_use < stats.in_use);
    for _ in 0..60 {
        engine.infer_blocking(ids.clone()).unwrap();
    }
    assert!(engine.memory_stats().hit_rate() > 0.5, "{}", engine.memory_stats());
    // 500 rows of 8192 logits take 16 MB.
    let many: Vec<u32> = ids.iter().copied().cycle().take(500).collect();
    let error = engine.infer_blocking(InferRequest::new(many).all_rows()).unwrap_err();
    assert!(error.to_string().contains("memory pool"), "{error}");
    assert!(engine.memory_stats().peak <= budget);
    // The engine goes on.
    engine.infer_blocking(ids).unwrap();
}

#[test]
fn a_batch_processor_splits_what_does_not_fit() {
    let engine = builder(1).memory_pool_size(MemorySize::MB(64)).build().unwrap();
    let ids: Vec<u32> = tokens(&engine, TEXTS[0]).into_iter().cycle().take(100).collect();
    // Each takes 3.3 MB: together they do not fit 16 MB.
    let requests = vec![InferRequest::new(ids.clone()).all_rows(); 6];
    let processor = BatchProcessor::new(engine.clone(), BatchConfig::default()).unwrap();
    let want = bits(&engine.infer_blocking(requests[0].clone()).unwrap());
    // Results hold memory too, so they are reduced as they come.
    let reducing = {
        let engine = engine.clone();
        move |request: &InferRequest| engine.infer_blocking(request.clone()).map(|result| bits(&result))
    };
    let reduced =
        BatchProcessor::new(reducing, BatchConfig { parallel_workers: 2, ..BatchConfig::default() });
    for result in reduced.unwrap().process_blocking(&requests) {
        assert_eq!(result.unwrap(), want);
    }
    let results = processor.process_blocking(&requests);
    let good = results.iter().filter(|result| result.is_ok()).count();
    assert!(good > 0 && good < 6, "{good} results fit at the same time");
    for result in results {
        match result {
            Ok(result) => assert_eq!(bits(&result), want),
            Err(error) => assert!(error.to_string().contains("memory pool"), "{error}"),
        }
    }
    assert!(processor.stats().splits > 0, "{:?}", processor.stats());
}

#[tokio::test]
async fn every_way_gives_the_bits_of_a_direct_call() {
    let engine = builder(2).kv_type(KvType::F32).build().unwrap();
    let requests = requests(&engine);
    let want: Vec<_> = requests.iter().map(|r| bits(&engine.infer_blocking(r.clone()).unwrap())).collect();
    let direct = engine.infer_batch(requests.clone()).await.unwrap();
    let batches = BatchProcessor::new(engine.clone(), BatchConfig::default()).unwrap();
    let batched = batches.process(requests.clone()).await.unwrap();
    for (results, way) in [(direct, "infer_batch"), (batched, "batch processor")] {
        let found: Vec<_> = results.into_iter().map(|result| bits(&result.unwrap())).collect();
        assert!(found == want, "{way}");
    }
    let config = StreamingConfig { buffer_size: 5, max_latency_ms: 1, ..StreamingConfig::default() };
    let inputs = || requests.clone();
    let streams = [
        InferenceStream::sequential(engine.clone(), inputs(), config).unwrap(),
        InferenceStream::parallel(engine.clone(), inputs(), 3, config).unwrap(),
        InferenceStream::timed(engine.clone(), inputs(), config).unwrap(),
    ];
    for mut stream in streams {
        let mut index = 0;
        while let Some(item) = stream.next().await {
            assert_eq!(item.index, index as u64);
            assert!(bits(&item.result.unwrap()) == want[index]);
            index += 1;
        }
        assert_eq!(index, want.len());
    }
    let parallel = ParallelInferenceProcessor::new(engine.clone(), ParallelConfig::default()).unwrap();
    for request in requests {
        parallel.submit(request).await.unwrap();
    }
    parallel.close();
    for want in &want {
        assert!(bits(&parallel.next().await.unwrap().result.unwrap()) == *want);
    }
    assert!(parallel.next().await.is_none());
    assert_eq!(bits(&engine.infer(TEXTS[0]).await.unwrap()), want[0]);
}
