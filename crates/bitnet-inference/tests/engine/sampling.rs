//! Sampling as a request asks for it: banned strings, bias, log probabilities, several completions.

use std::ops::ControlFlow;

use crate::support::{builder, engine};
use bitnet_inference::sampling::BiasTarget;
use bitnet_inference::{
    EngineError, Event, FinishReason, GenerateRequest, Generation, InferenceEngine, LogitBias, Mirostat,
    OutputStorage, Prompt, SamplerOrder, SamplingOverrides,
};

fn story(seed: u64, tokens: usize) -> GenerateRequest {
    let request = GenerateRequest::new(Prompt::text("Once upon a time, a small fox"));
    GenerateRequest { ignore_eos: true, ..request.seed(seed).max_tokens(tokens) }
}

fn greedy(tokens: usize) -> GenerateRequest {
    story(0, tokens).sampling(SamplingOverrides::greedy())
}

/// Runs a request and checks that what was streamed is what came out.
fn run(engine: &InferenceEngine, request: &GenerateRequest) -> Generation {
    let (mut ids, mut text, mut logprobs) = (Vec::new(), String::new(), Vec::new());
    let mut session = engine.session();
    let result = engine.generate_with(&mut session, request, &mut |event| {
        match event {
            Event::Token { id, text: piece, logprobs: at } => {
                ids.push(id);
                text.push_str(piece);
                logprobs.extend(at.map(|at| at.chosen));
            }
            Event::Tail { text: piece } => text.push_str(piece),
            Event::Prefill { .. } => {}
        }
        ControlFlow::Continue(())
    });
    let result = result.unwrap();
    assert_eq!((&ids, &text), (&result.tokens, &result.text), "tokens given out are never taken back");
    assert!(session.tokens().ends_with(&ids));
    if let Some(kept) = &result.logprobs {
        assert_eq!(kept.iter().map(|at| at.chosen).collect::<Vec<_>>(), logprobs);
        assert_eq!(logprobs.iter().map(|l| l.token).collect::<Vec<_>>(), ids);
    }
    result
}

#[test]
fn banned_strings_never_appear() {
    let engine = engine(2);
    for (seed, mirostat) in [(1, Mirostat::Off), (2, Mirostat::V2), (3, Mirostat::Off), (4, Mirostat::Off)] {
        let base = story(seed, 60);
        let sampling = SamplingOverrides { mirostat: Some(mirostat), ..base.sampling };
        let mut request = GenerateRequest { sampling, ..base };
        let plain = run(&engine, &request);
        // What would come is banned, piece after piece: parts of a word, words, and texts over several words.
        for length in [1, 3, 9, 17] {
            let text = run(&engine, &request).text;
            let from = text.char_indices().nth(8).unwrap().0;
            let banned: String = text[from..].chars().take(length).collect();
            request = request.ban(banned);
        }
        let got = run(&engine, &request);
        for banned in &request.banned {
            assert!(!got.text.contains(banned), "{banned:?} in {:?}", got.text);
        }
        assert_ne!(got.text, plain.text);
        assert_eq!(got.tokens.len(), 60);
        assert_eq!(got.tokens, run(&engine, &request).tokens, "the seed still decides");
    }
}

#[test]
fn what_is_not_met_changes_nothing() {
    let engine = engine(1);
    let plain = run(&engine, &story(7, 40));
    // Each beginning of a word is held back for a while.
    let text = &plain.text;
    let word = text.split(' ').find(|word| word.len() > 2).unwrap();
    let request = story(7, 40).ban("no such text").ban(format!("{word}\u{1f40b}"));
    let held = run(&engine, &request);
    assert_eq!((held.text, held.tokens), (plain.text, plain.tokens));
}

#[test]
fn a_greedy_text_takes_the_next_best_way_around_a_banned_string() {
    let engine = engine(1);
    let plain = run(&engine, &greedy(30));
    let banned: String = plain.text.chars().skip(10).take(12).collect();
    let got = run(&engine, &greedy(30).ban(&*banned).logprobs(2));
    let common = plain.tokens.iter().zip(&got.tokens).take_while(|(a, b)| a == b).count();
    assert!(common < 30 && !got.text.contains(&banned), "{got:?}");
    // The token at the fork is the second best: the best is where the banned string began.
    let fork = got.logprobs.as_ref().unwrap().get(common).unwrap();
    assert_eq!((fork.top[0].token, fork.top[1].token), (plain.tokens[common], got.tokens[common]));
}

#[test]
fn stop_strings_work_beside_banned_ones() {
    let engine = engine(1);
    let plain = run(&engine, &story(7, 40));
    let at = plain.text.char_indices().nth(20).unwrap().0;
    let stop: String = plain.text[at..].chars().take(4).collect();
    let want = &plain.text[..plain.text.find(&stop).unwrap()];
    // The stop string is held back, as more text after it would make a banned one.
    let got = run(&engine, &story(7, 40).stop(&*stop).ban(format!("{stop}\u{1f40b}")));
    assert_eq!((got.text.as_str(), got.finish), (want, FinishReason::StopString(stop)));
}

#[test]
fn a_text_of_which_everything_is_banned_is_an_error() {
    let engine = engine(1);
    let all: Vec<LogitBias> = (0..engine.spec().vocab_size as u32)
        .map(|token| LogitBias { target: BiasTarget::Token(token), bias: f32::NEG_INFINITY })
        .collect();
    let error = engine.generate_blocking(&GenerateRequest { logit_bias: all, ..story(1, 4) }).unwrap_err();
    assert!(matches!(error, EngineError::Sampling(_)) && error.to_string().contains("banned"), "{error}");
}

#[test]
fn biases_force_and_forbid() {
    let engine = engine(1);
    let text = |text: &str, bias| LogitBias { target: BiasTarget::Text(text.to_owned()), bias };
    let forced = run(&engine, &greedy(5).bias(text(" sea", 1e6)));
    assert_eq!(forced.text, " sea".repeat(5));
    let plain = run(&engine, &greedy(20));
    let forbid = LogitBias { target: BiasTarget::Token(plain.tokens[0]), bias: f32::NEG_INFINITY };
    let other = run(&engine, &greedy(20).bias(forbid));
    assert!(!other.tokens.contains(&plain.tokens[0]));
    let outside = LogitBias { target: BiasTarget::Token(9_000_000), bias: 1.0 };
    assert!(
        matches!(engine.generate_blocking(&greedy(5).bias(outside)), Err(EngineError::Parameter(p)) if p.name == "logit_bias")
    );
}

#[test]
fn every_sampler_gives_the_same_text_from_few_logits_as_from_all() {
    let full = builder(2).output_storage(OutputStorage::Full).build().unwrap();
    let scan = builder(1).output_storage(OutputStorage::Scan).build().unwrap();
    let base = SamplingOverrides { seed: Some(5), temperature: Some(1.1), ..SamplingOverrides::default() };
    let ways = [
        SamplingOverrides { samplers: Some(SamplerOrder::LLAMA), min_p: Some(0.05), ..base },
        SamplingOverrides { presence_penalty: Some(0.5), frequency_penalty: Some(0.2), ..base },
        SamplingOverrides { dry_multiplier: Some(0.8), top_k: Some(10), ..base },
        SamplingOverrides { xtc_probability: Some(0.7), typical_p: Some(0.9), ..base },
        SamplingOverrides { dynatemp_range: Some(0.5), top_n_sigma: Some(2.0), ..base },
        SamplingOverrides { dynatemp_range: Some(0.5), samplers: Some(SamplerOrder::LLAMA), ..base },
        SamplingOverrides { mirostat: Some(Mirostat::V1), ..base },
        SamplingOverrides {
            dry_multiplier: Some(0.8),
            presence_penalty: Some(0.3),
            ..SamplingOverrides::greedy()
        },
    ];
    for sampling in ways {
        let request = story(5, 40)
            .sampling(sampling)
            .ban("the")
            .bias(LogitBias { target: BiasTarget::Text(" was".to_owned()), bias: -1.5 });
        let (want, got) = (run(&full, &request), run(&scan, &request));
        assert_eq!(want.tokens, got.tokens, "{sampling:?}");
        assert!(!want.text.contains("the"));
    }
}

#[test]
fn logprobs_are_of_the_models_own_distribution() {
    let engine = engine(1);
    let plain = run(&engine, &story(3, 20));
    let told = run(&engine, &story(3, 20).logprobs(4));
    assert_eq!((plain.logprobs, &plain.tokens), (None, &told.tokens), "telling changes nothing");
    let told = told.logprobs.unwrap();
    for at in told.iter() {
        assert_eq!(at.top.len(), 4);
        assert!(at.top.is_sorted_by(|a, b| a.logprob >= b.logprob) && at.chosen.logprob <= at.top[0].logprob);
        let sum: f64 = at.top.iter().map(|t| f64::from(t.logprob).exp()).sum();
        assert!(sum > 0.0 && sum < 1.0 + 1e-5, "{sum}");
    }
    // The mean is what the perplexity of the same tokens says.
    let every = run(&engine, &story(3, 1).logprobs(100)).logprobs.unwrap();
    assert_eq!(every.get(0).unwrap().top.len(), 100);
    assert!(
        matches!(engine.generate_blocking(&story(3, 1).logprobs(101)), Err(EngineError::Parameter(p)) if p.name == "logprobs")
    );
}

#[test]
fn several_completions_are_those_of_their_seeds() {
    let engine = engine(2);
    let want: Vec<_> =
        (40..43).map(|seed| engine.generate_blocking(&story(seed, 12)).unwrap().tokens).collect();
    let mut events = [0; 3];
    engine.forget_cached();
    let got = engine.generate_n(&mut engine.session(), &story(40, 12).n(3), &mut |number, event| {
        events[number] += usize::from(matches!(event, Event::Token { .. }));
        ControlFlow::Continue(())
    });
    let got = got.unwrap();
    assert_eq!(got.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>(), want);
    assert_eq!((events, got.iter().map(|g| g.stats.seed).collect::<Vec<_>>()), ([12; 3], vec![40, 41, 42]));
    let prompt = got[0].stats.prompt_tokens;
    assert_eq!(got.iter().map(|g| g.stats.cached_tokens).collect::<Vec<_>>(), [0, prompt - 1, prompt - 1]);

    let mut seen = 0;
    let some = engine.generate_n(&mut engine.session(), &story(40, 12).n(3), &mut |number, _| {
        seen = number;
        if number == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let some = some.unwrap();
    assert_eq!((some.len(), some[1].finish.clone(), seen), (2, FinishReason::Cancelled, 1));
}

#[test]
fn the_best_of_several_are_the_most_probable() {
    let engine = engine(1);
    let run = |n, best_of| {
        let request = GenerateRequest { best_of, ..story(40, 12).n(n) };
        engine.generate_n(&mut engine.session(), &request, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let mut all: Vec<(f64, u64)> = (40..45)
        .map(|seed| {
            (engine.generate_blocking(&story(seed, 12).logprobs(0)).unwrap().logprobs.unwrap().mean(), seed)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = run(2, Some(5));
    assert_eq!(best.iter().map(|g| g.stats.seed).collect::<Vec<_>>(), [all[0].1, all[1].1]);
    assert!(best.iter().all(|g| g.logprobs.is_none()), "they were not asked for");
    for (n, best_of, name) in
        [(0, None, "n"), (129, None, "n"), (3, Some(2), "best_of"), (1, Some(129), "best_of")]
    {
        let request = GenerateRequest { best_of, ..story(1, 1).n(n) };
        let error = engine.generate_n(&mut engine.session(), &request, &mut |_, _| ControlFlow::Continue(()));
        assert!(matches!(error, Err(EngineError::Parameter(p)) if p.name == name), "{name}");
    }
    assert!(
        matches!(engine.generate_blocking(&story(1, 1).n(2)), Err(EngineError::Parameter(p)) if p.name == "n")
    );
}
