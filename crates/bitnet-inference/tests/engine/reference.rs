//! The engine against the outputs of transformers for the bundled model.

use std::ops::ControlFlow;

use bitnet_inference::{ChatMessage, GenerateRequest, Prompt, SamplingOverrides};

use crate::support::{TESTDATA, engine};

fn reference() -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{TESTDATA}/reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The first 64 greedy tokens of every prompt equal the reference's. A step whose best two logits the reference has within
/// 1e-3 of each other may fall either way; the comparison then goes on behind the reference's token.
#[test]
fn greedy_tokens_equal_the_reference() {
    let engine = engine(2);
    let (reference, stop) = (reference(), &engine.defaults().stop_tokens);
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (prompt, want) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
        let margins = case["top2_margin"].as_array().unwrap();
        // 64 tokens, unless the reference ended its text before that.
        assert!(want.len() == 64 || stop.contains(want.last().unwrap()), "{}", case["text"]);
        assert_eq!(margins.len(), want.len());
        let mut session = engine.session();
        let mut known = 0;
        let mut ties = 0;
        while known < want.len() {
            let text = [&prompt[..], &want[..known]].concat();
            let request = GenerateRequest {
                sampling: SamplingOverrides::greedy(),
                ignore_eos: true,
                ..GenerateRequest::new(Prompt::Tokens(text)).max_tokens(want.len() - known)
            };
            let got = engine
                .generate_with(&mut session, &request, &mut |_| ControlFlow::Continue(()))
                .unwrap()
                .tokens;
            let Some(differs) = got.iter().zip(&want[known..]).position(|(a, b)| a != b) else { break };
            let step = known + differs;
            let margin = margins[step].as_f64().unwrap();
            assert!(
                margin <= 1e-3,
                "{}: step {step} gives {} with margin {margin}",
                case["text"],
                got[differs]
            );
            known = step + 1;
            ties += 1;
        }
        eprintln!("TIES {} of {}", ties, want.len());
    }
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
    let engine = engine(2);
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
