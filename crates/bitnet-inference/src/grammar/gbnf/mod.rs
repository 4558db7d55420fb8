//! GBNF, the grammars of llama.cpp, in the parser's dialect of Lark.
//!
//! A GBNF grammar has rules `name ::= alternatives` of literals `"..."`, characters `[a-z]`, `[^"\\]` and `.`, rules,
//! groups, `?`, `*`, `+`, `{m}`, `{m,}`, `{m,n}`, tokens `<[12]>` and `<name>`, and `#` comments. A text is a way through
//! the rule `root`, character by character, whichever way there is.
//!
//! Lark cuts a text into lexemes first, each as long as it can be. That is much faster than going by characters, and the
//! same only where a longer lexeme never takes away what must follow a shorter one. So the translation begins with lexemes
//! as large as can be (everything without true recursion is regular), looks for places where the next character could
//! both continue a lexeme and follow it, and breaks those lexemes into smaller ones, in the end into characters, until
//! there is no such place (`lexemes`). What comes out accepts the same texts.
//!
//! ```
//! let lark = bitnet_inference::grammar::gbnf::to_lark(r#"root ::= "yes" | "no" " "? "thanks""#)?;
//! assert!(lark.starts_with("start:"));
//! let error = bitnet_inference::grammar::gbnf::to_lark("root ::= answer").unwrap_err();
//! assert!(error.to_string().contains("line 1, column 10"), "{error}");
//! # Ok::<(), bitnet_inference::GrammarError>(())
//! ```

mod automaton;
mod class;
mod emit;
mod lexemes;
mod parse;
mod regular;
mod tree;

use super::GrammarError;
pub(super) use emit::push_lark_string;

/// Translates a grammar.
///
/// # Errors
/// [`GrammarError::Gbnf`] with the place of the mistake, [`GrammarError::TooLarge`].
pub fn to_lark(text: &str) -> Result<String, GrammarError> {
    let mut grammar = parse::parse(text)?;
    regular::simplify(&mut grammar)?;
    let plan = lexemes::choose(&mut grammar);
    Ok(emit::emit(&grammar, &plan))
}
