//! A sampler of your own: here one that writes without the letter `e`.
#![allow(clippy::print_stdout)]

use bitnet_inference::{CustomSampler, EngineError, GenerateRequest, InferenceEngine, Prompt};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;
    let tokenizer = engine.tokenizer()?;
    let with_e: Vec<usize> = (0..engine.spec().vocab_size)
        .filter(|&token| tokenizer.decode(&[token as u32], false).to_lowercase().contains('e'))
        .collect();
    // Changes logits and leaves the choice to the request's own parameters; it could return a token instead.
    let without_e = CustomSampler::new(move |logits, _tokens| {
        for &token in &with_e {
            logits[token] = f32::NEG_INFINITY;
        }
        None
    });
    let request = GenerateRequest::new(Prompt::text("A bird")).max_tokens(24).seed(3);
    let text = engine.generate(request.custom_sampler(without_e)).await?.text;
    println!("A bird{text}");
    assert!(!text.to_lowercase().contains('e'), "{text}");
    Ok(())
}
