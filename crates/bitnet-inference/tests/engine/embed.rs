//! Embeddings of texts.

use bitnet_inference::{EmbedOptions, EngineError, InferenceEngine, Pooling, cosine_similarity};
use bitnet_text::EncodeOptions;

use crate::support::engine;

const TEXTS: [&str; 4] =
    ["Once upon a time", "The sky is blue", "a", "Tom had a red ball. He liked to play."];

fn bits(vectors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    vectors.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect()
}

fn with(engine: &InferenceEngine, texts: &[&str], options: &EmbedOptions) -> Vec<Vec<f32>> {
    engine.embed_with(texts, options, &mut |_, _| {}).unwrap().vectors
}

#[test]
fn batches_give_the_bits_of_single_texts() {
    let engine = engine(2);
    let together = engine.embed(&TEXTS).unwrap();
    for pooling in Pooling::ALL {
        let options = EmbedOptions { pooling: Some(pooling), ..EmbedOptions::default() };
        let all = with(&engine, &TEXTS, &options);
        let alone: Vec<Vec<f32>> = TEXTS.iter().flat_map(|t| with(&engine, &[t], &options)).collect();
        assert_eq!(bits(&all), bits(&alone), "{pooling}");
        assert_eq!(all == together, pooling == Pooling::Last, "{pooling}");
        for vector in &all {
            assert_eq!(vector.len(), engine.spec().hidden_size);
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
    assert!((cosine_similarity(&together[0], &together[0]) - 1.0).abs() < 1e-12);
}

#[test]
fn long_texts_in_parts_and_many_texts_at_once() {
    let engine = engine(2);
    // Longer than a batch, shorter than the context.
    let long = "Once upon a time there was a little girl. ".repeat(40);
    let count = engine.tokenizer().unwrap().encode(&long, EncodeOptions::PROMPT).unwrap().len();
    assert!(count > engine.info().max_batch_tokens && count <= engine.context());
    let mut texts: Vec<&str> = vec![&TEXTS[1], &long, &TEXTS[0], &long];
    texts.extend(std::iter::repeat_n("b", 300));
    let mut heard = Vec::new();
    let options = EmbedOptions { pooling: Some(Pooling::Mean), ..EmbedOptions::default() };
    let result = engine.embed_with(&texts, &options, &mut |done, total| heard.push((done, total))).unwrap();
    assert_eq!(result.tokens[1], count);
    assert_eq!(bits(&result.vectors[1..2]), bits(&with(&engine, &[&long], &options)));
    assert_eq!(bits(&result.vectors[1..2]), bits(&result.vectors[3..4]));
    assert_eq!(bits(&result.vectors[303..]), bits(&with(&engine, &["b"], &options)));
    assert_eq!(heard.last(), Some(&(304, 304)));
    assert!(heard.windows(2).all(|w| w[0].0 <= w[1].0));
}

#[test]
fn pooling_is_over_the_states_behind_the_final_norm() {
    let engine = engine(2);
    let raw = |pooling| {
        let options = EmbedOptions { pooling: Some(pooling), normalize: false, ..EmbedOptions::default() };
        with(&engine, &["Once upon a time"], &options).remove(0)
    };
    let (last, mean, first) = (raw(Pooling::Last), raw(Pooling::Mean), raw(Pooling::Cls));
    // A text of its first token alone has the first state as its last and as its mean.
    let options = EmbedOptions { normalize: false, ..EmbedOptions::default() };
    assert_eq!(with(&engine, &[""], &options).remove(0), first, "the token that begins a text");
    assert_ne!(last, mean);
    assert!(last.iter().map(|x| x * x).sum::<f32>() > 1.5, "not normalised");
}

#[test]
fn instructions_and_limits() {
    let engine = engine(2);
    let options = EmbedOptions { instruct: Some("Find it".to_owned()), ..EmbedOptions::default() };
    let spelled = engine.embed(&["Instruct: Find it\nQuery: a ball"]).unwrap();
    assert_eq!(with(&engine, &["a ball"], &options), spelled);
    let endless = "word ".repeat(5000);
    let error = engine.embed(&["short", &endless]).unwrap_err();
    assert!(matches!(error, EngineError::TextTooLong { index: 1, .. }), "{error}");
    let cut = EmbedOptions { truncate: true, ..EmbedOptions::default() };
    let result = engine.embed_with(&[&endless], &cut, &mut |_, _| {}).unwrap();
    assert_eq!(result.tokens, [engine.context()]);
    assert!(engine.embed::<&str>(&[]).unwrap().is_empty());
    // Blocks go back: this would exhaust them otherwise.
    for _ in 0..20 {
        engine.embed(&TEXTS).unwrap();
    }
}

#[test]
fn tokens_are_embedded_as_they_are() {
    let engine = engine(1);
    let tokenizer = engine.tokenizer().unwrap();
    let options = EmbedOptions::default();
    let texts = &TEXTS[..2];
    let lists: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| {
            let mut list = tokenizer.encode(text, EncodeOptions::PROMPT).unwrap();
            list.extend(tokenizer.end().filter(|end| list.last() != Some(end)));
            list
        })
        .collect();
    let by_ids = engine.embed_ids(lists, &options, &mut |_, _| {}).unwrap().vectors;
    assert_eq!(bits(&by_ids), bits(&with(&engine, texts, &options)));
    let failed = |lists: Vec<Vec<u32>>| engine.embed_ids(lists, &options, &mut |_, _| {}).unwrap_err();
    assert!(matches!(failed(vec![vec![1], vec![]]), EngineError::EmptyText { index: 1 }));
    assert!(matches!(failed(vec![vec![8192]]), EngineError::BadToken { token: 8192, .. }));
    assert!(matches!(failed(vec![vec![1; 513]]), EngineError::TextTooLong { tokens: 513, .. }));
}
