//! The engine against the outputs of transformers for the bundled model.

use bitnet_inference::{ChatMessage, GenerateRequest, InferenceEngine, KvType, Prompt, SamplingOverrides};

use crate::support::{TESTDATA, builder, engine, reference_engine};
use crate::ties::{Tie, explain};

fn reference() -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{TESTDATA}/reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Steps whose token differs from the reference's although its best two logits are more than 1e-3 apart: prompt, step, and
/// the rounding ties that explain it (see [`ties`](crate::ties)).
const TIES: &[(usize, usize, &[Tie])] = &[
    (6, 3, &[Tie { layer: 8, projection: "o", position: 17, element: 389 }]),
    (
        7,
        2,
        &[
            Tie { layer: 7, projection: "q, k, v", position: 9, element: 305 },
            Tie { layer: 7, projection: "gate, up", position: 12, element: 47 },
            Tie { layer: 9, projection: "q, k, v", position: 28, element: 491 },
        ],
    ),
];

/// The first 64 greedy tokens of every prompt equal the reference's. Where the best two logits of the reference are within
/// 1e-3 of each other, or a proven rounding tie lies in between, a step may go the other way; the comparison then goes on
/// behind the reference's token.
#[test]
fn greedy_tokens_equal_the_reference() {
    let engine = reference_engine(2);
    let (reference, stop) = (reference(), &engine.defaults().stop_tokens);
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for (number, case) in cases.iter().enumerate() {
        let (prompt, want) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
        let margins = case["top2_margin"].as_array().unwrap();
        let margins: Vec<f32> = margins.iter().map(|m| m.as_f64().unwrap() as f32).collect();
        // 64 tokens, unless the reference ended its text before that.
        assert!(want.len() == 64 || stop.contains(want.last().unwrap()), "prompt {number}");
        assert_eq!(margins.len(), want.len());
        let mut known = 0;
        while let Some((step, token)) = first_difference(&engine, &prompt, &want, known) {
            if margins[step] > 1e-3 {
                let ties = TIES.iter().find(|(n, s, _)| (*n, *s) == (number, step)).map(|(.., ties)| *ties);
                let ties = ties.unwrap_or_else(|| {
                    panic!(
                        "prompt {number}, step {step}: {token} instead of {}, margin {}",
                        want[step], margins[step]
                    )
                });
                let text = [&prompt[..], &want[..=step]].concat();
                assert!(
                    explain(ties, prompt.len(), &text, &margins[..=step]),
                    "prompt {number}, step {step}"
                );
            }
            known = step + 1;
        }
    }
}

/// The first step from `known` on at which the engine, continuing the reference's text, takes another token.
fn first_difference(
    engine: &InferenceEngine,
    prompt: &[u32],
    want: &[u32],
    known: usize,
) -> Option<(usize, u32)> {
    if known == want.len() {
        return None;
    }
    let text = [prompt, &want[..known]].concat();
    let request = GenerateRequest {
        sampling: SamplingOverrides::greedy(),
        ignore_eos: true,
        ..GenerateRequest::new(Prompt::Tokens(text)).max_tokens(want.len() - known)
    };
    let got = engine.generate_blocking(&request).unwrap().tokens;
    assert_eq!(got.len(), want.len() - known);
    let differs = got.iter().zip(&want[known..]).position(|(a, b)| a != b)?;
    Some((known + differs, got[differs]))
}

/// Prompts are tokenized as the reference's were: raw text behind the token that begins a text, chats by the template.
#[test]
fn prompts_have_the_reference_tokens() {
    let engine = engine(1);
    let reference = reference();
    for case in reference["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let prompt = match case["kind"].as_str().unwrap() {
            "raw" => Prompt::text(text),
            _ => Prompt::Chat(vec![ChatMessage::user(text)]),
        };
        assert_eq!(engine.encode(&prompt).unwrap(), ids(&case["prompt_ids"]), "{text}");
    }
}

#[test]
fn perplexity_is_the_reference_figure() {
    let engine = reference_engine(2);
    let want = &reference()["perplexity"];
    let text = std::fs::read_to_string(format!("{TESTDATA}/eval.txt")).unwrap();
    let mut last = (0, 0);
    let got = engine.perplexity(&text, 511, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(got.tokens as u64, want["tokens"].as_u64().unwrap());
    assert_eq!(last, (got.tokens, got.tokens));
    let ppl = want["ppl"].as_f64().unwrap();
    assert!((got.value / ppl - 1.0).abs() < 0.005, "{got:?}, reference {ppl}");
    assert!((got.value - (got.nll / got.tokens as f64).exp()).abs() < 1e-12);
}

/// What rounding keys and values costs, over windows as long as the context.
#[test]
fn rounded_keys_and_values_hardly_change_the_perplexity() {
    let text = std::fs::read_to_string(format!("{TESTDATA}/eval.txt")).unwrap();
    let value = |kv_type| {
        let engine = builder(2).kv_type(kv_type).build().unwrap();
        assert_eq!(engine.info().kv_type, kv_type);
        engine.perplexity(&text, engine.context() - 1, &mut |_, _| {}).unwrap().value
    };
    let exact = value(KvType::F32);
    for (kv_type, allowed) in [(KvType::F16, 0.001), (KvType::Int8, 0.01)] {
        let change = value(kv_type) / exact - 1.0;
        assert!(change.abs() < allowed && change != 0.0, "{kv_type}: {change:+.5}");
    }
}
