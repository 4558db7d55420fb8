//! Constraints that are meant to break things end with an error, in bounded time and memory.

use serde_json::{Value, json};

use super::{any_token, factory, gbnf, refused, stop_token};
use crate::grammar::{Constraint, GrammarError};
use crate::sampling::Rng;

/// Compiles a constraint and follows it for a while. It may work or be refused, but not fail otherwise.
fn survives(constraint: &Constraint) {
    let told = |error: &GrammarError| {
        assert!(!matches!(error, GrammarError::Failed { .. } | GrammarError::Refused { .. }), "{error}");
    };
    let mut matcher = match factory().matcher(constraint, true) {
        Ok(matcher) => matcher,
        Err(error) => return told(&error),
    };
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        if let Err(error) = matcher.mask() {
            return told(&error);
        }
        let Some(token) = any_token(&mut matcher, &mut rng).filter(|&token| token != stop_token()) else {
            return;
        };
        if let Err(error) = matcher.accept(token) {
            return told(&error);
        }
    }
}

fn schema(value: Value) -> Constraint {
    Constraint::JsonSchema(value)
}

fn nested(depth: usize, mut inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    for _ in 0..depth {
        inner = wrap(inner);
    }
    inner
}

#[test]
fn schemas_that_are_too_large_are_refused() {
    let deep = nested(2_000, json!({}), |inner| json!({"items": inner}));
    let wide = json!({"enum": (0..200_000).collect::<Vec<_>>()});
    let long = json!({"const": "x".repeat(1 << 20)});
    for value in [deep, wide, long] {
        assert!(matches!(refused(&schema(value)), GrammarError::TooLarge { .. }));
    }
}

#[test]
fn schemas_that_explode() {
    let alternatives =
        json!({"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}, {"required": ["c"]}]});
    let chain: serde_json::Map<String, Value> =
        (0..900).map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", (i + 1) % 900)}))).collect();
    let long_chain: serde_json::Map<String, Value> = (0..5_000)
        .map(|i| (format!("d{i}"), json!({"items": {"$ref": format!("#/$defs/d{}", i + 1)}})))
        .collect();
    for value in [
        nested(60, json!({"type": "string"}), |inner| json!({"items": inner})),
        json!({"allOf": vec![alternatives; 40]}),
        json!({"$ref": "#/$defs/d0", "$defs": chain}),
        json!({"$ref": "#/$defs/d0", "$defs": long_chain}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "array", "items": {"type": "string", "maxLength": 100_000}, "minItems": 1_000_000}),
        json!({"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
        json!({"type": "integer", "multipleOf": 1e-300}),
        json!({"type": "number", "minimum": 1e308, "maximum": -1e308}),
        json!({"enum": (0..10_000).map(|i| format!("choice {i}")).collect::<Vec<_>>(), "properties": {"a": {}}}),
        json!({"patternProperties": {"(a|b)*c": {}, ".*": {}}}),
        json!({"type": "é".repeat(200)}),
    ] {
        survives(&schema(value));
    }
}

#[test]
fn regular_expressions_that_explode() {
    for regex in [
        "(a{1,1000}){1,1000}",
        "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
        "(a|aa)*b(a|aa)*c{10000}",
        r"(\w{1,50} ){1,500}",
        "(.*a){25}",
        ".*a.{40}b",
        "[a-z]{1,1000000000}",
        r"\p{L}{1,200}(\p{N}|\p{P}){1,200}",
        &"(".repeat(10_000),
        &format!("{}a{}", "(".repeat(2_000), ")".repeat(2_000)),
        &"a|".repeat(20_000),
        &"[a-z]?".repeat(5_000),
        "\\",
        "a\\",
        "(?P<stop>a)b",
        "^^$$",
        "a^b",
        "",
    ] {
        survives(&Constraint::Regex(regex.to_owned()));
    }
    assert!(matches!(refused(&Constraint::Regex("a".repeat(1 << 20))), GrammarError::TooLarge { .. }));
}

#[test]
fn grammars_that_explode() {
    let chain: String = (0..4_000).map(|i| format!("r{i} ::= \"a\" r{}\n", i + 1)).collect();
    let doubling: String = (0..60).map(|i| format!("d{i} ::= d{} d{}\n", i + 1, i + 1)).collect();
    let choices: String = (0..3_000).map(|i| format!(" | \"word{i}\" root")).collect();
    for text in [
        format!("root ::= r0\n{chain}r4000 ::= \"b\" root?"),
        format!("root ::= d0 root?\n{doubling}d60 ::= [ab]?"),
        format!("root ::= \"x\" {choices}"),
        "root ::= root root | \"a\" | \"\"".to_owned(),
        "root ::= (\"a\"* \"a\"*)* root? \"b\"".to_owned(),
        format!("root ::= {}\"a\"{} root?", "(".repeat(90), ")*".repeat(90)),
        format!("root ::= ({}){{9999}} root?", "[a-z]".repeat(2_000)),
        format!("root ::= {}", "\"a\" ".repeat(50_000)),
        "root ::= [^\\x00] root [^\\x00] | \"\"".to_owned(),
    ] {
        survives(&gbnf(&text));
    }
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000));
    for text in [deep, "a".repeat(1 << 20)] {
        assert!(matches!(refused(&gbnf(&text)), GrammarError::TooLarge { .. }));
    }
}

#[test]
fn lark_that_explodes() {
    let chain = |letter: char| -> String {
        (0..8_000).map(|i| format!("{letter}{i}: \"a\" {letter}{}\n", i + 1)).collect()
    };
    for text in [
        format!("start: r0\n{}r8000: \"b\"", chain('r')),
        format!("start: R0\n{}R8000: \"b\"", chain('R')),
        format!("start: {}\"a\"{}", "(".repeat(390), ")".repeat(390)),
        "start: start".to_owned(),
        "start: \"a\"{1000000000}".to_owned(),
        "start: A\nA: B\nB: A".to_owned(),
        "start: %json {\"type\": \"é\"}".to_owned(),
        "start: <[0-99999999999]>".to_owned(),
        "start[stop=\"\"]: /.*/".to_owned(),
        "start[max_tokens=3]: /.*/".to_owned(),
        "%import common.NOTHING\nstart: NOTHING".to_owned(),
        "start: /(?P<stop>a)/".to_owned(),
        "\u{0}".to_owned(),
    ] {
        survives(&Constraint::Lark(text));
    }
    let deep = format!("start: {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(refused(&Constraint::Lark(deep)), GrammarError::TooLarge { .. }));
    assert!(matches!(refused(&Constraint::Choice(vec!["a".repeat(1 << 20)])), GrammarError::TooLarge { .. }));
    survives(&Constraint::Choice((0..20_000).map(|i| format!("choice number {i}")).collect()));
}
