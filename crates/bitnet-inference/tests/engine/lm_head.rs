//! The ways to keep the output layer: the exact ones give the same tokens, int8 rows alone nearly the same text.

use crate::support::builder;
use bitnet_inference::{
    GenerateRequest, InferenceEngine, OutputStorage, PenaltyWindow, Prompt, SamplingOverrides,
};

fn engine(threads: usize, storage: OutputStorage) -> InferenceEngine {
    builder(threads).output_storage(storage).build().unwrap()
}

/// Greedy, few and many candidates, punished tokens, and all logits.
fn ways_to_sample() -> Vec<SamplingOverrides> {
    let drawn = |top_k| SamplingOverrides {
        temperature: Some(1.1),
        top_k: Some(top_k),
        top_p: Some(0.95),
        ..SamplingOverrides::default()
    };
    let punished =
        SamplingOverrides { repeat_penalty: Some(1.3), repeat_last_n: Some(PenaltyWindow::All), ..drawn(40) };
    let lifted = SamplingOverrides { repeat_penalty: Some(0.9), ..drawn(40) };
    vec![SamplingOverrides::greedy(), drawn(1), drawn(40), drawn(300), drawn(0), punished, lifted]
}

#[test]
fn the_sampler_sees_the_same_token_as_with_the_full_layer() {
    let full = engine(2, OutputStorage::Full);
    for scan in [engine(1, OutputStorage::Scan), engine(3, OutputStorage::Scan)] {
        for (i, sampling) in ways_to_sample().into_iter().enumerate() {
            let mut request = GenerateRequest::new(Prompt::text("One day, the girl found"))
                .sampling(sampling)
                .seed(i as u64)
                .max_tokens(60);
            request.ignore_eos = true;
            let (want, found) =
                (full.generate_blocking(&request).unwrap(), scan.generate_blocking(&request).unwrap());
            assert_eq!(found.tokens, want.tokens, "way {i}, on {}", scan.info().description);
        }
    }
}

#[test]
fn int8_rows_alone_predict_nearly_as_well() {
    let text = "The old lighthouse keeper walked along the shore and told the children a story. ".repeat(4);
    let perplexity = |storage| engine(2, storage).perplexity(&text, 64, &mut |_, _| {}).unwrap().value;
    let (full, scan, int8) =
        (perplexity(OutputStorage::Full), perplexity(OutputStorage::Scan), perplexity(OutputStorage::Int8));
    assert_eq!(scan, full);
    assert!(int8 != full && (int8 / full - 1.0).abs() < 0.01, "{int8} instead of {full}");
}
