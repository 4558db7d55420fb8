//! Many inputs: in batches whose size finds itself, and on worker threads behind a bounded queue.
#![allow(clippy::print_stdout)]

use bitnet_inference::{
    BatchConfig, BatchProcessor, EngineError, GenerateRequest, InferRequest, InferenceEngine, ParallelConfig,
    ParallelInferenceProcessor, Prompt, ShutdownMode,
};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;

    // Embeddings of forty texts. Batches follow the memory that is free and the throughput that was measured.
    let processor =
        BatchProcessor::new(engine.clone(), BatchConfig { max_batch_size: 16, ..BatchConfig::default() })?;
    let texts = (0..40).map(|n| InferRequest::new(format!("Sentence number {n}")).embedding()).collect();
    let vectors = processor.process(texts).await?;
    println!("{} vectors, {} failed", vectors.len(), vectors.iter().filter(|v| v.is_err()).count());
    println!("{:?}", processor.stats());

    // Texts all at once: the scheduler computes them together, each as if it were alone.
    let story = |text: &str, seed| GenerateRequest::new(Prompt::text(text)).max_tokens(8).seed(seed);
    for text in engine.generate_batch(vec![story("A bird", 1), story("A fish", 2)]).await {
        println!("{:?}", text?.text);
    }

    // Workers with a queue of eight: submitting waits for room, and nothing that was taken is lost at the end.
    let parallel =
        ParallelInferenceProcessor::new(engine, ParallelConfig { queue_capacity: 8, ..Default::default() })?;
    for seed in 0..6 {
        parallel.submit(story("One day", seed)).await?;
    }
    let report = parallel.shutdown(ShutdownMode::Finish).await?;
    for done in report.results {
        println!("{}: {:?}", done.id, done.result?.text);
    }
    Ok(())
}
