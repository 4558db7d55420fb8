//! Two streams: the tokens of one text as they are drawn, and the results of a source of inputs as they are ready.
#![allow(clippy::print_stdout)]

use bitnet_inference::stream::sources;
use bitnet_inference::{
    EngineError, GenerateRequest, InferRequest, InferenceEngine, InferenceStream, Prompt, StreamEvent,
    StreamingConfig,
};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;

    // Token by token. Dropping the stream would cancel the request.
    let request = GenerateRequest::new(Prompt::text("The little girl")).max_tokens(24).seed(7);
    let mut tokens = engine.generate_stream(request)?;
    while let Some(event) = tokens.next().await {
        match event? {
            StreamEvent::Token { text, .. } | StreamEvent::Tail { text, .. } => print!("{text}"),
            StreamEvent::Finished { generation, .. } => println!(" [{}]", generation.finish.name()),
            _ => {}
        }
    }

    // Input by input: those that arrive within ten milliseconds are computed together, in order.
    let texts = ["A dog", "A cat", "The sun", "The end"];
    let inputs = sources::from_iter(texts.into_iter().map(InferRequest::new));
    let config = StreamingConfig { buffer_size: 4, max_latency_ms: 10, ..StreamingConfig::default() };
    let mut results = InferenceStream::timed(engine.clone(), inputs, config)?;
    while let Some(item) = results.next().await {
        // An input that fails is an error here, and the stream goes on.
        let logits = item.result?;
        let next = engine.tokenizer()?.decode(&[logits.best() as u32], false);
        println!("{} -> {next:?}", texts[item.index as usize]);
    }
    Ok(())
}
