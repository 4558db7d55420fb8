//! Constrained generation with the bundled model: whatever is drawn, the text is what was asked for.

mod schema;

use bitnet_inference::{
    Constraint, EngineError, FinishReason, GenerateRequest, Generation, InferenceEngine, Prompt,
    SamplingOverrides,
};
use regex::Regex;
use serde_json::{Value, json};

use crate::support::engine;

/// A request at a temperature at which the model writes nonsense.
fn wild(constraint: Constraint, seed: u64) -> GenerateRequest {
    let sampling = SamplingOverrides {
        temperature: Some(2.0),
        top_k: Some(0),
        top_p: Some(1.0),
        repeat_penalty: Some(1.0),
        ..SamplingOverrides::default()
    };
    let request = GenerateRequest::new(Prompt::text("Once upon a time")).sampling(sampling);
    request.seed(seed).max_tokens(120).constraint(constraint)
}

/// Runs a request; the text ended by itself or was cut.
fn run(engine: &InferenceEngine, request: &GenerateRequest) -> Generation {
    let generation = engine.generate_blocking(request).unwrap();
    assert!(
        matches!(generation.finish, FinishReason::Stop | FinishReason::Length),
        "{:?}",
        generation.finish
    );
    generation
}

/// Checks the texts of some seeds with `fits`; most of them must have ended by themselves.
fn check(engine: &InferenceEngine, constraint: &Constraint, seeds: u64, fits: impl Fn(&str) -> bool) {
    let mut whole = 0;
    for seed in 0..seeds {
        let generation = run(engine, &wild(constraint.clone(), seed));
        if generation.finish == FinishReason::Stop {
            assert!(fits(&generation.text), "{constraint:?} does not allow {:?}", generation.text);
            whole += 1;
        }
    }
    assert!(whole * 2 > seeds, "{constraint:?}: only {whole} of {seeds} texts ended");
}

#[test]
fn regular_expressions_match_as_a_whole() {
    let engine = engine(2);
    for pattern in [
        "[a-z]{3,8}",
        r"\d{4}-\d{2}-\d{2}",
        "(yes|no|maybe)( or (yes|no))?",
        r"[A-Z][a-z]+( [a-z]+){2,5}\.",
        "(?i)hello, (world|moon)[!?]{1,3}",
        "^(é|è|日本){1,6}x$",
        r#""([^"\\]|\\["\\n]){0,20}""#,
    ] {
        let regex = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
        check(&engine, &Constraint::Regex(pattern.to_owned()), 6, |text| regex.is_match(text));
    }
}

#[test]
fn choices_come_whole() {
    let engine = engine(2);
    let choices = ["fox", "foxes", "a dog", "\"quoted\\\"", "naïve\n", "日本"].map(str::to_owned);
    let mut seen = Vec::new();
    for seed in 0..24 {
        let generation = run(&engine, &wild(Constraint::Choice(choices.to_vec()), seed));
        assert_eq!(generation.finish, FinishReason::Stop);
        assert!(choices.contains(&generation.text), "{:?}", generation.text);
        seen.push(generation.text);
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 1, "sampling still chooses: {seen:?}");
}

#[test]
fn any_object_is_an_object() {
    let engine = engine(2);
    for seed in 0..8 {
        let generation = run(&engine, &wild(Constraint::JsonObject, seed));
        match serde_json::from_str::<Value>(&generation.text) {
            Ok(value) => assert!(value.is_object() && generation.finish == FinishReason::Stop),
            // It was cut off: an error at the end, and none before.
            Err(error) => assert!(error.is_eof() && generation.finish == FinishReason::Length, "{error}"),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let engine = engine(2);
    let constraint = Constraint::Regex("[a-z ]{10,40}".to_owned());
    let request = wild(constraint, 11);
    let first = run(&engine, &request);
    assert_eq!(first.tokens, run(&engine, &request).tokens);
    assert_ne!(first.tokens, run(&engine, &request.clone().seed(12)).tokens);
    let mut session = engine.session();
    let many = engine
        .generate_n(&mut session, &request.clone().n(2), &mut |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(many[0].tokens, first.tokens);
    assert_eq!(many[1].tokens, run(&engine, &request.seed(12)).tokens);
}

#[tokio::test]
async fn the_scheduler_gives_the_same_texts() {
    let engine = engine(2);
    let letters = Constraint::Regex("[a-z ]{10,40}".to_owned());
    let object = Constraint::JsonObject;
    let requests: Vec<GenerateRequest> = (0..8)
        .map(|seed| {
            wild(if seed % 2 == 0 { &letters } else { &object }.clone(), seed)
                .max_tokens(30)
                .ban("a")
                .ban("th")
        })
        .collect();
    let together = engine.generate_batch(requests.clone()).await;
    for (together, request) in together.into_iter().zip(&requests) {
        let (together, alone) = (together.unwrap(), run(&engine, request));
        assert_eq!((&together.tokens, &together.finish), (&alone.tokens, &alone.finish));
        assert!(!alone.text.contains('a') && !alone.text.contains("th"), "{:?}", alone.text);
    }
    let many = engine.generate_stream(wild(letters.clone(), 3).n(3)).unwrap().finish().await.unwrap();
    for (place, one) in many.iter().enumerate() {
        assert_eq!(one.tokens, run(&engine, &wild(letters.clone(), 3 + place as u64)).tokens);
    }
}

#[test]
fn log_probabilities_are_those_of_the_free_model() {
    let engine = engine(2);
    let greedy = |constraint: Option<Constraint>| GenerateRequest {
        constraint,
        sampling: SamplingOverrides::greedy(),
        ..wild(Constraint::JsonObject, 0).max_tokens(1).logprobs(5)
    };
    let free = engine.generate_blocking(&greedy(None)).unwrap();
    let bound = engine.generate_blocking(&greedy(Some(Constraint::Regex("[0-9]+".to_owned())))).unwrap();
    let (free, bound) = (free.logprobs.unwrap(), bound.logprobs.unwrap());
    assert_eq!(free.get(0).unwrap().top, bound.get(0).unwrap().top);
    assert!(bound.get(0).unwrap().chosen.logprob < free.get(0).unwrap().chosen.logprob);
}

#[test]
fn what_ends_a_text_otherwise_still_does() {
    let engine = engine(2);
    let letters = Constraint::Regex("[a-z]{1,60}".to_owned());
    let cut = run(&engine, &wild(letters.clone(), 3).max_tokens(2));
    assert_eq!((cut.finish, cut.tokens.len()), (FinishReason::Length, 2));
    let stopped = engine.generate_blocking(&wild(letters.clone(), 3).stop("e")).unwrap();
    assert!(!stopped.text.contains('e'));
    // Without stop tokens a text ends where nothing may follow, not where it could.
    for seed in 0..4 {
        let exact = GenerateRequest { ignore_eos: true, ..wild(letters.clone(), seed) };
        let generation = run(&engine, &exact);
        assert_eq!((generation.finish, generation.text.len()), (FinishReason::Stop, 60));
    }
}

#[test]
fn banned_strings_are_found_other_ways_around() {
    let engine = engine(2);
    let banned = |pattern: &str, banned: &str, seed| {
        engine.generate_blocking(&wild(Constraint::Regex(pattern.to_owned()), seed).ban(banned))
    };
    for seed in 0..12 {
        assert_eq!(banned("ab(c|d)", "bc", seed).unwrap().text, "abd");
        assert_eq!(banned("(one|only|two)", "on", seed).unwrap().text, "two");
        let text = banned("[a-c]{12}", "aa", seed).unwrap().text;
        assert!(text.len() == 12 && !text.contains("aa"), "{text}");
    }
    let error = banned("xone", "on", 0).unwrap_err();
    assert!(matches!(error, EngineError::Sampling(_)), "{error}");
}

#[test]
fn grammars_of_both_kinds() {
    let engine = engine(2);
    let gbnf = Constraint::Gbnf("root ::= [a-c]+ \" = \" num\nnum ::= \"-\"? [1-9] [0-9]{0,3}".to_owned());
    let lark =
        Constraint::Lark("start: WORD \" = \" NUM\nWORD: /[a-c]+/\nNUM: /-?[1-9][0-9]{0,3}/".to_owned());
    let regex = Regex::new("^[a-c]+ = -?[1-9][0-9]{0,3}$").unwrap();
    for constraint in [gbnf, lark] {
        check(&engine, &constraint, 6, |text| regex.is_match(text));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let engine = engine(1);
    let error = |constraint: Constraint| match engine.generate_blocking(&wild(constraint, 0)) {
        Err(error @ EngineError::Grammar(_)) => {
            assert!(error.is_usage());
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    let schema = |schema: Value| error(Constraint::JsonSchema(schema));
    for (schema, parts) in [
        (json!({"properties": {"a/b": {"not": {}}}}), ["/properties/a~1b/not", "cannot be enforced"]),
        (json!({"type": "thing"}), ["(at /type)", "\"thing\""]),
        (json!({"items": {"$ref": "#/nowhere"}}), ["/items/$ref", "leads nowhere"]),
        (json!({"$ref": "http://example.com"}), ["/$ref", "leads elsewhere"]),
        (json!({"type": "string", "pattern": "("}), ["JSON schema", "unclosed group"]),
        (json!(7), ["an object or a boolean", "a number"]),
        (json!({"type": "integer", "minimum": 5, "maximum": 2}), ["JSON schema", "nothing fits"]),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), ["oneOf", "anyOf"]),
    ]
    .map(|(value, parts)| (schema(value), parts))
    {
        assert!(parts.iter().all(|part| schema.contains(part)), "{schema}");
    }
    assert!(error(Constraint::Regex("a(b".to_owned())).contains("unclosed group"));
    assert!(error(Constraint::Regex(r"a\bc".to_owned())).contains("look"));
    assert!(error(Constraint::Gbnf("root ::= [a".to_owned())).contains("line 1, column 10"));
    assert!(error(Constraint::Lark("start: x".to_owned())).contains("x"));
    assert!(error(Constraint::Choice(Vec::new())).contains("none"));
}
