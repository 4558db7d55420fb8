//! Requests that need different logits in one batch: constraints, log probabilities, few or all of them.

use bitnet_inference::{
    Constraint, GenerateRequest, GenerationStream, InferenceEngine, OutputStorage, Prompt, SamplingOverrides,
};

use crate::support::builder;

/// Requests with and without constraints and log probabilities, that few or all logits decide.
fn requests() -> Vec<GenerateRequest> {
    let greedy = SamplingOverrides::greedy();
    let best = SamplingOverrides { temperature: Some(0.9), top_k: Some(20), ..Default::default() };
    let wide = SamplingOverrides { temperature: Some(1.5), top_k: Some(0), ..Default::default() };
    let penal = SamplingOverrides { repeat_penalty: Some(1.2), presence_penalty: Some(0.4), ..best };
    let choice = Constraint::Choice(vec!["the red fox".into(), "the blue fox".into(), "a dog".into()]);
    let constraints = [
        None,
        Some(choice),
        Some(Constraint::Regex("[A-Z][a-z]+( [a-z]+){2,6}\\.".into())),
        Some(Constraint::JsonObject),
    ];
    let mut requests = Vec::new();
    for (i, constraint) in constraints.into_iter().enumerate() {
        for (j, sampling) in [greedy, best, wide, penal].into_iter().enumerate() {
            let prompt = Prompt::text(["Once upon a time", "The sea is", "My dog said"][(i + j) % 3]);
            let request = GenerateRequest::new(prompt).sampling(sampling).seed((4 * i + j) as u64);
            let request = GenerateRequest { constraint: constraint.clone(), ..request }.max_tokens(18);
            requests.push(if j == i { request.logprobs(2) } else { request });
        }
    }
    requests
}

fn with_output(storage: OutputStorage) -> InferenceEngine {
    builder(2).output_storage(storage).build().unwrap()
}

#[test]
fn neighbours_that_need_all_logits_change_nothing() {
    let (scan, full) = (with_output(OutputStorage::Scan), with_output(OutputStorage::Full));
    let requests = requests();
    let streams: Vec<GenerationStream> =
        requests.iter().map(|request| scan.generate_stream(request.clone()).unwrap()).collect();
    for (request, stream) in requests.iter().zip(streams) {
        let together = stream.blocking_finish().unwrap().remove(0);
        for engine in [&scan, &full] {
            let alone = engine.generate_blocking(request).unwrap();
            assert_eq!(together.text, alone.text, "{request:?}");
            assert_eq!(together.tokens, alone.tokens, "{request:?}");
            assert_eq!(
                (&together.finish, &together.logprobs),
                (&alone.finish, &alone.logprobs),
                "{request:?}"
            );
        }
    }
}
