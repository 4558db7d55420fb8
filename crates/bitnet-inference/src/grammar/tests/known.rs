//! Grammars as people write them for llama.cpp.

use super::{accepts, gbnf, refused};
use crate::grammar::Constraint;

const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] ws term)*   # left to right
term  ::= name | number | "(" ws expr ")" ws
name  ::= [a-z] [a-z0-9_]* ws
number ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;

const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space
ws ::= | " " | "\n" [ \t]{0,20}
"#;

const LIST: &str = r#"
root ::= item+

# Excludes various line break characters
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"#;

const CHESS: &str = r#"
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?

nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
"#;

fn check(grammar: &str, right: &[&str], wrong: &[&str]) {
    let grammar = gbnf(grammar);
    for by_bytes in [false, true] {
        for text in right {
            assert!(accepts(&grammar, text, by_bytes), "{text:?} fits");
        }
        for text in wrong {
            assert!(!accepts(&grammar, text, by_bytes), "{text:?} does not fit");
        }
    }
}

#[test]
fn arithmetic() {
    check(
        ARITHMETIC,
        &["a=b\n", "(x1 + 2) * (3-y)=7\n", "a = 1\nb = 2\n", "1=2\n\n\n", "a\n=\nb\n"],
        &["a=b", "a+=b\n", "(a=b\n", "A=1\n", ""],
    );
}

#[test]
fn json() {
    check(
        JSON,
        &[
            "{}",
            r#"{"a": [1, -2.5e+7, {"b": null}], "c\u00e9\n": "d"}"#,
            "{ \"a\":\n  true}",
            r#"{"日本": ""}"#,
        ],
        &["[1]", r#"{"a": 01}"#, r#"{"a" 1}"#, r#"{"a": 1,}"#, "{\"a\": \"\n\"}", "{", r#"{"a": tru}"#],
    );
}

#[test]
fn list() {
    check(LIST, &["- a\n", "- a b\n- é\n"], &["- \n", "a\n", "- a", "- a\n\n"]);
}

#[test]
fn chess() {
    check(
        CHESS,
        &["1. e4 e5\n2. Nf3 Nc6\n", "1. e4 e5\n12. exd8=Q+ O-O-O#\n"],
        &["1. e4 e5\n", "1. e9 e5\n2. Nf3 Nc6\n", "2. e4 e5\n2. Nf3 Nc6\n"],
    );
}

#[test]
fn tails_and_ends() {
    check("root ::= \"a\" ws \"b\"\nws ::= [ \\t] ws | \"\"", &["ab", "a  b"], &["a", "b", "a\nb"]);
    check("root ::= ([a-z] root)?", &["", "abc"], &["A"]);
    check("root ::= \"x\" tail\ntail ::= \"a\" (\"b\" tail | \"c\")", &["xac", "xabac"], &["xab", "xa"]);
    check("root ::= a | \"b\"\na ::= \"a\" a", &["b"], &["a", "aa"]);
    check("root ::= \"a\"\n  | \"b\"\n  | \"c\"", &["a", "b", "c"], &["d"]);
    check("root ::= \"a\"{2} b{,2}\nb ::= \"b\"{0}  \"c\"", &["aa", "aac", "aacc"], &["a", "aaccc", "aab"]);
    check(
        r#"root ::= [\x41-\x43\u00e9\U0001F600] "\"\\\n" ."#,
        &["A\"\\\nz", "é\"\\\n日", "😀\"\\\n\n"],
        &["D\"\\\nz"],
    );
}

#[test]
fn tokens() {
    let grammar = gbnf("root ::= \"a\" <|eot_id|>");
    assert!(accepts(&grammar, "a", false));
    assert!(refused(&gbnf("root ::= <nobody>")).to_string().contains("nobody"));
}

#[test]
fn mistakes_have_their_place() {
    for (text, place, problem) in [
        ("root ::= \"a\" x", (1, 14), "\"x\" is not defined"),
        ("x ::= \"a\"", (1, 1), "no rule \"root\""),
        ("root ::= \"a\"\nroot ::= \"b\"", (2, 1), "defined twice"),
        ("root ::= (\"a\" | \"b\"", (1, 10), "not closed"),
        ("root ::= \"a\")", (1, 13), "nothing was opened"),
        ("root ::= \"a", (1, 10), "not closed"),
        ("root ::= [a", (1, 10), "not closed"),
        ("root ::= []", (1, 10), "empty"),
        ("root ::= [z-a]", (1, 11), "is empty"),
        ("root ::= *", (1, 10), "must follow"),
        ("root ::= \"\\q\"", (1, 11), "cannot be escaped"),
        ("root ::= \"\\xZZ\"", (1, 11), "2 hexadecimal digits"),
        ("root ::= \"\\ud800\"", (1, 11), "no character"),
        ("root ::= \"a\"{3,2}", (1, 13), "impossible"),
        ("root ::= \"a\"{x}", (1, 13), "{m,n}"),
        ("root ::= \"a\"{99999999999}", (1, 14), "too many"),
        ("root = \"a\"", (1, 6), "\"::=\""),
        ("# é\nroot ::= \"a\" $", (2, 14), "means nothing"),
        ("root ::= root", (1, 1), "never ends"),
        ("root ::= !<x>", (1, 11), "all tokens but one"),
        ("", (1, 1), "no rule \"root\""),
    ] {
        let message = refused(&gbnf(text)).to_string();
        let place = format!("line {}, column {}:", place.0, place.1);
        assert!(message.contains(&place) && message.contains(problem), "{text:?}: {message}");
    }
}

#[test]
fn kinds_are_told_apart() {
    assert!(matches!(Constraint::grammar("%llguidance {}\nstart: \"a\""), Constraint::Lark(_)));
    assert!(matches!(Constraint::grammar("root ::= \"%llguidance\""), Constraint::Gbnf(_)));
}
