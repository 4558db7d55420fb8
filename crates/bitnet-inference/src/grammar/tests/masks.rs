//! Every token of a mask, and none beside it, continues the text to the beginning of an accepted one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::oracle::{G, Oracle, Rules};
use super::{any_token, factory, gbnf, matcher, stop_token, tokenizer};
use crate::grammar::{Constraint, GrammarError, Matcher};
use crate::sampling::Rng;

/// The tokens by their bytes, so that those with a common beginning come together.
fn sorted_tokens() -> Vec<(&'static [u8], u32)> {
    let known = |id| tokenizer().token_bytes(id).filter(|bytes| !bytes.is_empty()).map(|bytes| (bytes, id));
    let mut tokens: Vec<_> = (0..tokenizer().vocab_size() as u32).filter_map(known).collect();
    tokens.retain(|token| !tokenizer().is_special(token.1));
    tokens.sort_unstable();
    tokens
}

/// Compares a mask with `judge`, which tells of a text whether it is accepted, and whether it begins an accepted one.
fn compare(matcher: &mut Matcher, text: &[u8], judge: &dyn Fn(&[u8]) -> (bool, bool)) {
    let may_end = judge(text).0;
    let mut viable: HashMap<Vec<u8>, bool> = HashMap::new();
    let mut begins = |bytes: &[u8]| {
        (1..=bytes.len()).all(|end| {
            let longer = [text, &bytes[..end]].concat();
            *viable.entry(longer).or_insert_with_key(|longer| judge(longer).1)
        })
    };
    let tokens = sorted_tokens();
    let mut wanted: Vec<u32> = tokens.iter().filter(|token| begins(token.0)).map(|token| token.1).collect();
    if may_end && !wanted.is_empty() {
        wanted.push(stop_token());
    }
    wanted.sort_unstable();
    let found = match matcher.mask() {
        Ok(None) => {
            assert!(may_end, "{:?} was ended", String::from_utf8_lossy(text));
            Vec::new()
        }
        Ok(Some(mask)) => {
            (0..tokenizer().vocab_size() as u32).filter(|&token| mask.contains(token)).collect()
        }
        Err(GrammarError::DeadEnd) => {
            assert!(!may_end, "{:?} was not ended", String::from_utf8_lossy(text));
            Vec::new()
        }
        Err(error) => panic!("{error}"),
    };
    if found != wanted {
        let spell = |tokens: &[u32], without: &[u32]| -> Vec<String> {
            let missing = tokens.iter().filter(|token| !without.contains(token));
            missing.map(|&token| format!("{:?}", tokenizer().token_str(token).unwrap())).take(10).collect()
        };
        panic!(
            "behind {:?} the mask lacks {:?} and has {:?}",
            String::from_utf8_lossy(text),
            spell(&wanted, &found),
            spell(&found, &wanted)
        );
    }
}

/// Walks through texts by chance, comparing each mask; goes back now and then.
fn walk(constraint: &Constraint, seed: u64, steps: usize, judge: &dyn Fn(&[u8]) -> (bool, bool)) {
    let mut rng = Rng::new(seed);
    let mut state = matcher(constraint);
    let mut tokens: Vec<u32> = Vec::new();
    for _ in 0..steps {
        let text: Vec<u8> =
            tokens.iter().flat_map(|&token| tokenizer().token_bytes(token).unwrap()).copied().collect();
        compare(&mut state, &text, judge);
        if rng.next_f64() < 0.2 && !tokens.is_empty() {
            tokens.truncate((rng.next_f64() * tokens.len() as f64) as usize);
            state.rewind(tokens.len()).unwrap();
            continue;
        }
        match any_token(&mut state, &mut rng).filter(|&token| token != stop_token()) {
            Some(token) => {
                let ahead = state.ahead(&[token]);
                state.accept(token).unwrap();
                assert_eq!(state.mask().unwrap(), ahead.first());
                tokens.push(token);
            }
            None => {
                tokens.clear();
                state.rewind(0).unwrap();
            }
        }
    }
}

fn walk_rules(rules: &Rules, seed: u64, steps: usize) {
    let text = rules.gbnf();
    let lark = crate::grammar::gbnf::to_lark(&text).unwrap();
    let judge = |text: &[u8]| Oracle::judge(rules, text);
    let outcome = std::panic::catch_unwind(|| walk(&gbnf(&text), seed, steps, &judge));
    if let Err(panic) = outcome {
        let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        panic!("{message}\nin\n{text}as\n{lark}");
    }
}

fn leaf() -> impl Strategy<Value = G> {
    let texts =
        prop::sample::select(vec!["a", "b", "ab", "aba", "th", "the", "é", "èé", " ", "\\n", "日", ""]);
    let sets = prop::sample::select(vec!["ab", "éè", "a-", "th e", "日本", "b"]);
    prop_oneof![
        texts.prop_map(|text| G::Text(if text == "\\n" { "c" } else { text })),
        (sets, prop::bool::weighted(0.1)).prop_map(|(chars, negated)| G::Set(chars, negated)),
        (1_usize..4).prop_map(G::Rule),
    ]
}

fn tree() -> impl Strategy<Value = G> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        let repeats =
            prop::sample::select(vec![(0, None), (1, None), (0, Some(1)), (2, Some(3)), (0, Some(2))]);
        prop_oneof![
            parts.clone().prop_map(G::Seq),
            parts.prop_map(G::Alt),
            (inner, repeats).prop_map(|(part, (min, max))| G::Repeat(Box::new(part), min, max)),
        ]
    })
}

/// Four rules, each of which has a way out.
fn rules() -> impl Strategy<Value = Rules> {
    let ways_out = prop::sample::select(vec!["a", "th", "é", "x", "b"]);
    prop::collection::vec((tree(), ways_out), 4).prop_map(|rules| {
        Rules(rules.into_iter().map(|(tree, out)| G::Alt(vec![tree, G::Text(out)])).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn masks_of_grammars_are_what_the_slow_definition_says(rules in rules(), seed in any::<u64>()) {
        walk_rules(&rules, seed, 6);
    }
}

#[test]
fn masks_of_regular_expressions() {
    use G::{Alt, Repeat, Seq, Set, Text};
    let cases = [
        (
            "(the|then|than)( the)*",
            Seq(vec![
                Alt(vec![Text("the"), Text("then"), Text("than")]),
                Repeat(Box::new(Text(" the")), 0, None),
            ]),
        ),
        (
            "[ab]{2,3}é?",
            Seq(vec![
                Repeat(Box::new(Set("ab", false)), 2, Some(3)),
                Repeat(Box::new(Text("é")), 0, Some(1)),
            ]),
        ),
        ("[^a]b", Seq(vec![Set("a", true), Text("b")])),
    ];
    for (regex, tree) in cases {
        let rules = Rules(vec![tree]);
        for seed in 0..3 {
            walk(&Constraint::Regex(regex.to_owned()), seed, 8, &|text| Oracle::judge(&rules, text));
        }
    }
}

#[test]
fn masks_of_choices() {
    let choices = ["the fox", "the", "a", "日本"];
    let judge = |text: &[u8]| {
        let begins = choices.iter().any(|choice| choice.as_bytes().starts_with(text));
        (choices.iter().any(|choice| choice.as_bytes() == text), begins)
    };
    let constraint = Constraint::Choice(choices.map(str::to_owned).to_vec());
    for seed in 0..4 {
        walk(&constraint, seed, 8, &judge);
    }
}

/// A lexeme that goes on, where what follows it begins in the same way: the translation must break it up.
#[test]
fn lexemes_take_nothing_away() {
    use G::{Alt, Repeat, Rule, Seq, Set, Text};
    let nested = |inner: Vec<G>| Seq(std::iter::once(Text("(")).chain(inner).chain([Text(")")]).collect());
    let star = |part: G| Repeat(Box::new(part), 0, None);
    let grammars = [
        // White space that the end of a line is one of.
        vec![
            Seq(vec![Rule(1), Text("the"), star(Set("a ", false)), Text("a")]),
            Alt(vec![nested(vec![Rule(1)]), star(Text("a"))]),
        ],
        // A word and a word that it begins.
        vec![
            Seq(vec![Rule(1), Alt(vec![Text("th"), Text("the")]), Text("e")]),
            Alt(vec![nested(vec![Rule(1)]), Text("x")]),
        ],
        // Characters whose first bytes are the same.
        vec![Seq(vec![Rule(1), star(Text("é")), Text("è")]), Alt(vec![nested(vec![Rule(1)]), Text("x")])],
        // Recursion at the left, in the middle and at the right.
        vec![Alt(vec![Seq(vec![Rule(0), Text("a"), Text("b")]), Text("a")])],
        vec![Alt(vec![Seq(vec![Text("a"), Rule(0), Text("b")]), Text("ab"), Text("")])],
        vec![Alt(vec![Seq(vec![Text("a"), Rule(0)]), Seq(vec![Text("ab"), Rule(0)]), Text("abb")])],
    ];
    for (number, grammar) in grammars.into_iter().enumerate() {
        let rules = Rules(grammar);
        for seed in 0..3 {
            walk_rules(&rules, seed + 10 * number as u64, 8);
        }
    }
}

#[test]
fn stop_tokens_stand_where_the_text_may_end() {
    let constraint = Constraint::Regex("ab?".to_owned());
    let byte = |text: &str| tokenizer().token_id(text).unwrap();
    let mut state = matcher(&constraint);
    assert!(!state.mask().unwrap().unwrap().contains(stop_token()));
    state.accept(byte("a")).unwrap();
    assert!(state.mask().unwrap().unwrap().contains(stop_token()));
    state.accept(byte("b")).unwrap();
    assert!(state.mask().unwrap().is_none(), "nothing may follow");
    state.rewind(1).unwrap();
    assert!(state.mask().unwrap().unwrap().contains(byte("b")));
    assert!(state.accept(byte("c")).is_err());
    state.rewind(1).unwrap();
    assert!(state.mask().unwrap().unwrap().contains(byte("b")), "it can be used again after a refusal");

    let mut endless = factory().matcher(&constraint, false).unwrap();
    endless.accept(byte("a")).unwrap();
    assert!(!endless.mask().unwrap().unwrap().contains(stop_token()));
}

#[test]
fn what_is_forced_is_told() {
    let mut state = matcher(&Constraint::Regex("Once upon a time, [a-z]+".to_owned()));
    let forced = state.forced();
    let ahead = state.ahead(&forced);
    assert!(!forced.is_empty());
    assert!("Once upon a time, ".starts_with(&tokenizer().decode(&forced, true)));
    assert_eq!(ahead.len(), forced.len());
    for (token, ahead) in forced.into_iter().zip(ahead) {
        assert!(state.mask().unwrap().unwrap().contains(token));
        state.accept(token).unwrap();
        assert_eq!(state.mask().unwrap(), Some(&ahead));
    }
    assert!(
        state.ahead(&[tokenizer().token_id("a").unwrap()]).is_empty(),
        "what does not fit has nothing behind it"
    );
    assert!(matcher(&Constraint::Regex("[a-z]+".to_owned())).forced().is_empty());
}

#[test]
fn special_tokens_are_no_text() {
    let mut state = matcher(&Constraint::Regex("(?s:.)*".to_owned()));
    let mask = state.mask().unwrap().unwrap();
    for token in 0..tokenizer().vocab_size() as u32 {
        assert!(!(tokenizer().is_special(token) && mask.contains(token)) || token == stop_token(), "{token}");
    }
    // Lark may name them; a stop token only at its end.
    let mut state = matcher(&Constraint::Lark("start: \"a\" <|eot_id|>".to_owned()));
    state.accept(tokenizer().token_id("a").unwrap()).unwrap();
    assert!(state.mask().unwrap().unwrap().contains(stop_token()));
    let mut state = matcher(&Constraint::Lark("start: \"a\" <|eot_id|> \"b\"".to_owned()));
    state.accept(tokenizer().token_id("a").unwrap()).unwrap();
    assert_eq!(state.mask(), Err(GrammarError::DeadEnd));
}
