//! Texts that begin with what others computed: the same tokens, and only what is new is computed.

use std::ops::ControlFlow;

use crate::support::{builder, engine};
use bitnet_inference::{
    GenerateRequest, Generation, InferenceEngine, KvType, Prompt, SamplingOverrides, Session,
};

const STORY: &str = "Once upon a time there was a little girl who lived in a small house near the sea. Every day she \
    went out to play with her dog, and every evening she told her mother what they had seen.";

fn request(tokens: &[u32], seed: u64, count: usize) -> GenerateRequest {
    let request = GenerateRequest::new(Prompt::Tokens(tokens.to_vec())).seed(seed).max_tokens(count);
    GenerateRequest { ignore_eos: true, ..request }
}

fn run(engine: &InferenceEngine, session: &mut Session, request: &GenerateRequest) -> Generation {
    engine.generate_with(session, request, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// What a request gives in an engine of its own.
fn alone(kv_type: KvType, request: &GenerateRequest) -> Vec<u32> {
    builder(1).kv_type(kv_type).build().unwrap().generate_blocking(request).unwrap().tokens
}

#[test]
fn any_common_beginning_gives_the_text_of_a_fresh_engine() {
    for kv_type in KvType::ALL {
        let engine = builder(2).kv_type(kv_type).build().unwrap();
        let tokens = engine.encode(&Prompt::text(STORY)).unwrap();
        let other = engine.encode(&Prompt::text("The moon is far away, but a cat")).unwrap();
        let (first, block) =
            (engine.generate_blocking(&request(&tokens, 1, 40)).unwrap(), engine.info().block_size);
        assert_eq!(first.stats.cached_tokens, 0);
        for common in [1, block - 1, block, block + 1, tokens.len() - 1, tokens.len()] {
            let prompt = [&tokens[..common], &other].concat();
            let request = request(&prompt, common as u64, 12);
            let found = engine.generate_blocking(&request).unwrap();
            assert!(found.stats.cached_tokens >= common, "{:?} for {common}", found.stats);
            assert_eq!(found.tokens, alone(kv_type, &request), "{kv_type}, {common} tokens in common");
        }
        // What the first left behind was not overwritten by those that went other ways.
        let again = [&tokens[..], &first.tokens].concat();
        let again = request(&again, 5, 12);
        let found = engine.generate_blocking(&again).unwrap();
        assert!(found.stats.cached_tokens >= tokens.len() + first.tokens.len() - 1, "{:?}", found.stats);
        assert_eq!(found.tokens, alone(kv_type, &again));
        assert!(
            engine.pool_stats().copies > 0 && engine.pool_stats().in_use == 0,
            "{:?}",
            engine.pool_stats()
        );
    }
}

#[test]
fn sessions_share_what_they_have_in_common_while_both_live() {
    let engine = engine(1);
    let tokens = engine.encode(&Prompt::text(STORY)).unwrap();
    let (mut one, mut two) = (engine.session(), engine.session());
    let first = run(&engine, &mut one, &request(&tokens, 1, 30));
    let alone = engine.pool_stats().in_use;
    let second = run(&engine, &mut two, &request(&tokens, 2, 30));
    assert_ne!(first.tokens, second.tokens);
    let full = tokens.len() / engine.info().block_size;
    assert_eq!(second.stats.cached_tokens, tokens.len() - 1, "the last in part of a block");
    assert_eq!(engine.pool_stats().in_use, 2 * alone - full, "full blocks of the prompt are there once");
    // Both go on, the first in the middle of what both share.
    let again = run(&engine, &mut one, &request(&tokens[..10], 3, 30));
    assert_eq!(again.tokens, self::alone(KvType::F16, &request(&tokens[..10], 3, 30)));
    let whole = [&tokens[..], &second.tokens].concat();
    assert_eq!(
        run(&engine, &mut two, &request(&whole, 4, 10)).tokens,
        self::alone(KvType::F16, &request(&whole, 4, 10))
    );
}

#[test]
fn the_second_turn_of_a_chat_computes_only_what_is_new() {
    let engine = engine(1);
    let first =
        engine.generate_blocking(&request(&engine.encode(&Prompt::text(STORY)).unwrap(), 1, 20)).unwrap();
    let mut text = engine.encode(&Prompt::text(STORY)).unwrap();
    text.extend(&first.tokens);
    let known = text.len() - 1;
    text.extend(engine.encode(&Prompt::text("And then?")).unwrap());
    let second = engine.generate_blocking(&request(&text, 1, 5)).unwrap();
    assert!(second.stats.cached_tokens >= known, "{:?}", second.stats);
}

#[test]
fn a_full_pool_makes_room_for_new_texts() {
    let engine = builder(1).context_size(96).sessions(1).build().unwrap();
    for seed in 0..12 {
        let prompt = engine.encode(&Prompt::text(format!("Number {seed} of many stories is about"))).unwrap();
        let request = request(&prompt, seed, 60);
        assert_eq!(
            engine.generate_blocking(&request).unwrap().tokens,
            alone(KvType::F16, &request),
            "seed {seed}"
        );
    }
    let stats = engine.pool_stats();
    assert!(stats.evictions > 0 && stats.in_use == 0 && stats.reserved <= stats.total, "{stats:?}");
}

#[test]
fn a_forgotten_cache_changes_no_text() {
    let engine = engine(1);
    let tokens = engine.encode(&Prompt::text(STORY)).unwrap();
    let request = GenerateRequest { sampling: SamplingOverrides::greedy(), ..request(&tokens, 1, 20) };
    let mut session = engine.session();
    let first = run(&engine, &mut session, &request);
    engine.forget_cached();
    assert_eq!(engine.pool_stats().cached, 0);
    assert_eq!(engine.generate_blocking(&request).unwrap().tokens, first.tokens);
    assert_eq!(run(&engine, &mut session, &request).tokens, first.tokens);
}
