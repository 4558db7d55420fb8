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

/// How far a rounding tie moves logits at most, as far as was seen (see [`ties`](crate::ties)).
const TIE_MOVES: f32 = 0.1;

/// Rounding ties of prompt 4, and how many of its tokens they explain.
const TIES: (usize, usize, &[Tie]) = (
    4,
    20,
    &[
        Tie { layer: 7, projection: "gate, up", position: 3, element: 235 },
        Tie { layer: 5, projection: "gate, up", position: 14, element: 233 },
        Tie { layer: 5, projection: "o", position: 21, element: 36 },
    ],
);

/// Prompt, greedy tokens and their margins of a case of the reference.
fn greedy_case(case: &serde_json::Value) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let margins = case["top2_margin"].as_array().unwrap();
    let margins: Vec<f32> = margins.iter().map(|m| m.as_f64().unwrap() as f32).collect();
    let want = ids(&case["greedy_ids"]);
    assert_eq!(margins.len(), want.len());
    (ids(&case["prompt_ids"]), want, margins)
}

/// The first 64 greedy tokens of every prompt equal the reference's. Where the best two logits of the reference are within
/// 1e-3 of each other a step may go the other way, and 1 % of all steps may where they are no further apart than a rounding
/// tie moves them; the comparison then goes on behind the reference's token.
#[test]
fn greedy_tokens_equal_the_reference() {
    let engine = reference_engine(2);
    let (reference, stop) = (reference(), &engine.defaults().stop_tokens);
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    let (mut steps, mut tied) = (0, 0);
    for (number, case) in cases.iter().enumerate() {
        let (prompt, want, margins) = greedy_case(case);
        // 64 tokens, unless the reference ended its text before that.
        assert!(want.len() == 64 || stop.contains(want.last().unwrap()), "prompt {number}");
        let mut known = 0;
        while let Some((step, token)) = first_difference(&engine, &prompt, &want, known) {
            let margin = margins[step];
            let place = format!("prompt {number}, step {step}: {token} instead of {}", want[step]);
            assert!(margin < TIE_MOVES, "{place}, margin {margin}");
            tied += usize::from(margin > 1e-3);
            known = step + 1;
        }
        steps += want.len();
    }
    assert!(tied * 100 <= steps, "{tied} of {steps} steps differ");
}

/// That rounding ties are all that differs: with those of a text turned, the margins of the reference come out, digit by digit.
#[test]
fn turned_ties_give_the_margins_of_the_reference() {
    let (number, tokens, ties) = TIES;
    let (prompt, want, margins) = greedy_case(&reference()["cases"][number]);
    let text = [&prompt[..], &want[..tokens]].concat();
    assert!(explain(ties, prompt.len(), &text, &margins[..tokens]));
    assert!(!explain(&ties[1..], prompt.len(), &text, &margins[..tokens]), "each of them counts");
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
