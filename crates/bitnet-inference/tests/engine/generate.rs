//! Generation with the bundled model: determinism, sessions, stops, limits, errors.

use std::ops::ControlFlow;

use crate::support::{builder, engine};
use bitnet_inference::{
    ChatMessage, EngineError, Event, FinishReason, GenerateRequest, Generation, InferenceEngine, Prompt,
    SamplingOverrides, Session,
};

fn story(seed: u64, tokens: usize) -> GenerateRequest {
    GenerateRequest::new(Prompt::text("Once upon a time, a small fox")).seed(seed).max_tokens(tokens)
}

fn greedy(prompt: Prompt, tokens: usize) -> GenerateRequest {
    GenerateRequest::new(prompt).sampling(SamplingOverrides::greedy()).max_tokens(tokens)
}

/// Runs a request to its end.
fn run(engine: &InferenceEngine, session: &mut Session, request: &GenerateRequest) -> Generation {
    engine.generate_with(session, request, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Runs a request in an engine that knows nothing of its prompt.
fn without_cache(engine: &InferenceEngine, request: &GenerateRequest) -> Generation {
    engine.forget_cached();
    let generation = engine.generate_blocking(request).unwrap();
    assert_eq!(generation.stats.cached_tokens, 0);
    generation
}

#[test]
fn a_seed_alone_determines_the_text() {
    let (one, two) = (engine(1), engine(2));
    let first = one.generate_blocking(&story(7, 48)).unwrap();
    assert_eq!(first.stats.seed, 7);
    assert!(first.text.len() > 20 && first.tokens.len() > 10, "{first:?}");
    assert_eq!(first.text, one.generate_blocking(&story(7, 48)).unwrap().text);
    assert_eq!(first.tokens, two.generate_blocking(&story(7, 48)).unwrap().tokens, "threads change nothing");
    assert_ne!(first.text, one.generate_blocking(&story(8, 48)).unwrap().text);
}

#[test]
fn without_a_seed_every_text_is_another_and_tells_its_seed() {
    let engine = engine(1);
    let mut request = story(0, 32);
    request.sampling.seed = None;
    let first = engine.generate_blocking(&request).unwrap();
    let again = engine.generate_blocking(&request.clone().seed(first.stats.seed)).unwrap();
    assert_eq!(first.tokens, again.tokens);
    assert!((0..3).any(|_| engine.generate_blocking(&request).unwrap().tokens != first.tokens));
}

#[test]
fn a_long_prompt_in_chunks_is_the_prompt_as_a_whole() {
    let engine = engine(2);
    let text = "The old lighthouse keeper walked along the shore and told the children a story. ".repeat(20);
    let tokens = engine.encode(&Prompt::text(text)).unwrap();
    assert!(tokens.len() > engine.info().max_batch_tokens, "{} tokens make no chunks", tokens.len());
    let request = greedy(Prompt::Tokens(tokens.clone()), 24);
    let whole = engine.generate_blocking(&request).unwrap();
    let mut session = engine.session();
    // Any split of the same prompt over several calls computes the same keys and values.
    for end in [1, 2, 40, 41, tokens.len() - 1] {
        run(&engine, &mut session, &greedy(Prompt::Tokens(tokens[..end].to_vec()), 1));
    }
    let split = run(&engine, &mut session, &request);
    assert_eq!(split.tokens, whole.tokens);
    assert!(split.stats.cached_tokens >= tokens.len() - 2, "{:?}", split.stats);
}

#[test]
fn events_report_prefill_tokens_and_text() {
    let engine = engine(2);
    let tokens = engine.encode(&Prompt::text("The sun is warm. ".repeat(60))).unwrap();
    let request = greedy(Prompt::Tokens(tokens.clone()), 12);
    let (mut ids, mut text, mut prefills) = (Vec::new(), String::new(), Vec::new());
    let result = engine.generate_with(&mut engine.session(), &request, &mut |event| {
        match event {
            Event::Prefill { done, total } => {
                assert_eq!(total, tokens.len());
                prefills.push(done);
            }
            Event::Token { id, text: piece, .. } => {
                ids.push(id);
                text.push_str(piece);
            }
            Event::Tail { text: piece } => text.push_str(piece),
        }
        ControlFlow::Continue(())
    });
    let result = result.unwrap();
    assert!(!prefills.is_empty() && prefills.is_sorted() && prefills.iter().all(|&d| d < tokens.len()));
    assert_eq!((ids, text), (result.tokens, result.text));
}

#[test]
fn a_session_gives_what_a_fresh_run_gives() {
    let (engine, other) = (engine(2), engine(2));
    let mut session = engine.session();
    let mut messages = Vec::new();
    for (turn, text) in ["Hello!", "Tell me about the sea.", "And the moon?"].into_iter().enumerate() {
        messages.push(ChatMessage::user(text));
        let request = GenerateRequest::new(Prompt::Chat(messages.clone())).seed(turn as u64).max_tokens(40);
        let kept = run(&engine, &mut session, &request);
        // A fresh session of the same engine finds what this one computed; another engine computes it all.
        let found = engine.generate_blocking(&request).unwrap();
        assert_eq!(found.tokens, kept.tokens, "turn {turn}");
        let fresh = without_cache(&other, &request);
        assert_eq!((&kept.text, &kept.tokens), (&fresh.text, &fresh.tokens), "turn {turn}");
        if turn > 0 {
            assert!(kept.stats.cached_tokens > kept.stats.prompt_tokens / 2, "{:?}", kept.stats);
        }
        messages.push(ChatMessage::assistant(kept.text.trim()));
    }
}

#[test]
fn a_session_follows_a_changed_past() {
    let engine = engine(1);
    let mut session = engine.session();
    for text in ["The cat sat on the mat and", "The cat sat on the hill and", "The", "A dog ran home because"]
    {
        let request = greedy(Prompt::text(text), 16);
        assert_eq!(
            run(&engine, &mut session, &request).tokens,
            engine.generate_blocking(&request).unwrap().tokens,
            "{text}"
        );
    }
}

#[test]
fn stop_strings_end_the_text_before_themselves() {
    let engine = engine(1);
    let whole = engine.generate_blocking(&story(7, 60)).unwrap().text;
    // A string in the middle of the text, cut without regard to tokens.
    let at = whole.char_indices().nth(20).unwrap().0;
    let stop: String = whole[at..].chars().take(7).collect();
    let want = &whole[..whole.find(&stop).unwrap()];
    let mut streamed = String::new();
    let request = story(7, 60).stop("no such text").stop(stop.clone());
    let got = engine.generate_with(&mut engine.session(), &request, &mut |event| {
        if let Event::Token { text, .. } | Event::Tail { text } = event {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    });
    let got = got.unwrap();
    assert_eq!(got.finish, FinishReason::StopString(stop));
    assert_eq!((got.text.as_str(), streamed.as_str()), (want, want));
}

#[test]
fn text_held_back_for_a_stop_string_comes_out_at_the_end() {
    let engine = engine(1);
    let plain = engine.generate_blocking(&story(7, 20)).unwrap();
    let last: String = plain.text.chars().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
    let got = engine.generate_blocking(&story(7, 20).stop(format!("{last}\u{1f40b}"))).unwrap();
    assert_eq!((got.text, got.finish), (plain.text, FinishReason::Length));
}

#[test]
fn the_callback_can_cancel_at_any_event() {
    let engine = engine(1);
    let whole = engine.generate_blocking(&story(7, 30)).unwrap();
    let mut seen = 0;
    let mut session = engine.session();
    let cancelled = engine.generate_with(&mut session, &story(7, 30), &mut |event| {
        seen += usize::from(matches!(event, Event::Token { .. }));
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cancelled = cancelled.unwrap();
    assert_eq!(cancelled.finish, FinishReason::Cancelled);
    assert_eq!(cancelled.tokens, whole.tokens[..5]);
    assert!(whole.text.starts_with(&cancelled.text));
    assert_eq!(
        run(&engine, &mut session, &story(7, 30)).tokens,
        whole.tokens,
        "the session is fine afterwards"
    );

    let long = greedy(Prompt::text("The sun is warm. ".repeat(60)), 5);
    let early = engine.generate_with(&mut session, &long, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((early.finish, early.tokens.len()), (FinishReason::Cancelled, 0));
    assert_eq!(run(&engine, &mut session, &long).tokens, engine.generate_blocking(&long).unwrap().tokens);
}

#[test]
fn generation_ends_at_the_stop_token_unless_told_otherwise() {
    let engine = engine(1);
    let chat = Prompt::Chat(vec![ChatMessage::user("Hello!")]);
    let request = GenerateRequest::new(chat).seed(5);
    let answer = engine.generate_blocking(&request).unwrap();
    assert_eq!(answer.finish, FinishReason::Stop, "{answer:?}");
    assert!(!answer.tokens.iter().any(|t| engine.defaults().stop_tokens.contains(t)));
    let more = GenerateRequest { ignore_eos: true, ..request }.max_tokens(answer.tokens.len() + 10);
    let more = engine.generate_blocking(&more).unwrap();
    assert_eq!(more.finish, FinishReason::Length);
    assert!(engine.defaults().stop_tokens.contains(&more.tokens[answer.tokens.len()]));
    assert!(!more.text.contains("<|"), "special tokens are no text: {}", more.text);
}

#[test]
fn the_context_is_a_limit() {
    let engine = builder(1).context_size(24).build().unwrap();
    let request =
        GenerateRequest { ignore_eos: true, ..GenerateRequest::new(Prompt::text("Once upon a time")) };
    let full = engine.generate_blocking(&request).unwrap();
    assert_eq!(full.finish, FinishReason::ContextFull);
    assert_eq!(full.stats.prompt_tokens + full.tokens.len(), 24);

    let long = GenerateRequest::new(Prompt::text("word ".repeat(40)));
    let error = engine.generate_blocking(&long).unwrap_err();
    assert!(matches!(error, EngineError::PromptTooLong { context: 24, limit: 512, .. }), "{error}");
    assert!(error.to_string().contains("shorten the prompt"), "{error}");
}

#[test]
fn an_echo_comes_before_the_text() {
    let engine = engine(1);
    let plain = engine.generate_blocking(&story(3, 10)).unwrap();
    let echo = engine.generate_blocking(&GenerateRequest { echo: true, ..story(3, 10) }).unwrap();
    assert_eq!(echo.text, format!("Once upon a time, a small fox{}", plain.text));
}

#[test]
fn an_empty_prompt_begins_a_text_of_its_own() {
    let engine = engine(1);
    let free = engine.generate_blocking(&greedy(Prompt::text(""), 8)).unwrap();
    assert_eq!((free.stats.prompt_tokens, free.tokens.len()), (1, 8));
    assert!(matches!(
        engine.generate_blocking(&greedy(Prompt::Tokens(vec![]), 8)),
        Err(EngineError::EmptyPrompt)
    ));
}

#[test]
fn impossible_requests_are_named() {
    let engine = engine(1);
    let parameter = |request: &GenerateRequest| match engine.generate_blocking(request) {
        Err(EngineError::Parameter(error)) => error.name,
        other => panic!("{other:?}"),
    };
    assert_eq!(parameter(&story(1, 0)), "max_tokens");
    assert_eq!(parameter(&story(1, 5).stop("")), "stop");
    let hot = SamplingOverrides { temperature: Some(f32::NAN), ..Default::default() };
    assert_eq!(parameter(&story(1, 5).sampling(hot)), "temperature");
    let bad = engine.generate_blocking(&greedy(Prompt::Tokens(vec![1, 9_000_000]), 1));
    assert!(matches!(bad, Err(EngineError::BadToken { token: 9_000_000, vocab_size: 8192 })));
    let mut foreign = crate::support::engine(1).session();
    let mixed = engine.generate_with(&mut foreign, &story(1, 1), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(mixed, Err(EngineError::ForeignSession)));
}

#[test]
fn impossible_engines_are_named() {
    let error = |builder: bitnet_inference::EngineBuilder| builder.build().map(|_| ()).unwrap_err();
    assert!(matches!(error(builder(0)), EngineError::Parameter(p) if p.name == "threads"));
    assert!(
        matches!(error(builder(1).context_size(1)), EngineError::Parameter(p) if p.name == "context_size")
    );
    let far = error(builder(1).context_size(1_000_000_000_000));
    assert!(matches!(far, EngineError::ContextTooLong { limit: 512, .. }), "{far}");
    assert!(matches!(error(InferenceEngine::builder()), EngineError::NoModel));
}

#[test]
fn more_sessions_than_allowed_are_refused_and_come_back() {
    let engine = builder(1).context_size(64).sessions(2).build().unwrap();
    let full = |text| GenerateRequest { ignore_eos: true, ..greedy(Prompt::text(text), 1000) };
    let mut sessions = [engine.session(), engine.session(), engine.session()];
    // What the texts have in common is in memory once, so they are different ones.
    for (session, text) in sessions.iter_mut().zip(["Once upon a time", "The sea is"]) {
        assert_eq!(run(&engine, session, &full(text)).finish, FinishReason::ContextFull);
    }
    let full = full("My dog");
    let third = engine.generate_with(&mut sessions[2], &full, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(third, Err(EngineError::Sessions(_))), "{third:?}");
    sessions[0].clear();
    assert_eq!(run(&engine, &mut sessions[2], &full).finish, FinishReason::ContextFull);
}

#[test]
fn an_engine_is_shared_by_threads() {
    let engine = engine(1);
    let want: Vec<_> =
        (0..3).map(|seed| engine.generate_blocking(&story(seed, 20)).unwrap().tokens).collect();
    let got: Vec<_> = std::thread::scope(|scope| {
        let spawn = |seed| {
            scope.spawn({
                let engine = &engine;
                move || engine.generate_blocking(&story(seed, 20)).unwrap().tokens
            })
        };
        let handles: Vec<_> = (0..3).map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(got, want);
}

#[test]
fn memory_for_keys_and_values_is_taken_as_needed() {
    let engine = engine(1);
    assert_eq!(engine.kv_memory().as_bytes(), 0);
    engine.generate_blocking(&story(1, 4)).unwrap();
    let few = engine.kv_memory();
    let block = engine.info().block_bytes.as_bytes();
    assert!(few.as_bytes() > 0 && few.as_bytes() <= 2 * block, "{few}");
    engine.generate_blocking(&story(1, 4)).unwrap();
    let more = engine.kv_memory();
    assert!(more.as_bytes() <= few.as_bytes() + block, "{more}: a copy beside what the first knows");
    engine.generate_blocking(&story(1, 4)).unwrap();
    assert_eq!(engine.kv_memory(), more, "blocks that came back are used again");
}
