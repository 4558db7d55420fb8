//! The shortest way: the bundled model, a prompt, a text.
#![allow(clippy::print_stdout)]

use bitnet_inference::{EngineError, InferenceEngine};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;
    println!("{} on {}", engine.model().name, engine.info().description);
    let text = engine.quick_infer("Once upon a time").await?;
    println!("Once upon a time{text}");
    Ok(())
}
