//! Vectors of texts, and which of them are alike.
#![allow(clippy::print_stdout)]

use bitnet_inference::{EngineError, InferRequest, InferenceEngine, cosine_similarity};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;
    let texts = ["The dog ran to the park.", "A puppy played in the garden.", "Mom cooked some soup."];
    let requests = texts.iter().map(|&text| InferRequest::new(text).embedding()).collect();
    let vectors = engine.infer_batch(requests).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (i, a) in vectors.iter().enumerate() {
        for (j, b) in vectors.iter().enumerate().skip(i + 1) {
            println!("{:.3}  {:?} ~ {:?}", cosine_similarity(a.values(), b.values()), texts[i], texts[j]);
        }
    }
    Ok(())
}
