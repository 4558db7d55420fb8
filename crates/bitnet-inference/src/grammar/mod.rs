//! Constrained generation: texts that a JSON schema, a regular expression or a grammar accepts.
//!
//! [`Constraint`] says what a text must be. A `GrammarFactory`, one for each engine and made when it is first needed,
//! compiles constraints over the bytes of the model's tokens; a `Matcher` follows one generated text and tells which
//! tokens may come next. Their logits stay, all others become minus infinity before anything else happens to them, so
//! that whatever sampling does the text stays a beginning of an accepted one. The model's stop tokens are possible
//! exactly where the text may end, and where nothing may follow the text ends by itself.
//!
//! Parsing is done by `llguidance`. `schema` checks JSON schemas before it sees them, `gbnf` turns the grammars of
//! llama.cpp into its form of Lark. Constraints come from strangers: size, depth and work are limited everywhere, and
//! compiling has a stack of its own.

mod constraint;
mod error;
mod factory;
pub mod gbnf;
mod matcher;
mod schema;
#[cfg(test)]
mod tests;
mod tokens;

pub use constraint::Constraint;
pub use error::GrammarError;
pub(crate) use factory::GrammarFactory;
pub(crate) use matcher::{Mask, Matcher};
