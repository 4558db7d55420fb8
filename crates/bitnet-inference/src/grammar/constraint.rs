//! [`Constraint`]: what a generated text must be.

use serde_json::Value;

use super::GrammarError;

/// What a generated text must be, from its first to its last character.
///
/// A text that is cut off at the request's number of tokens is the beginning of such a text.
///
/// ```
/// use bitnet_inference::Constraint;
///
/// let schema = r#"{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}"#;
/// let constraint = Constraint::json_schema(schema)?;
/// assert_ne!(constraint, Constraint::JsonObject);
/// assert!(Constraint::json_schema("{").is_err());
/// # Ok::<(), bitnet_inference::GrammarError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Constraint {
    /// JSON that this schema describes (drafts 4 to 2020-12). Properties come in the order of the schema. Keywords that
    /// cannot be enforced are errors, except `format`s that nobody knows.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that this regular expression matches as a whole; the syntax is that of the `regex` crate without
    /// look-around.
    Regex(String),
    /// A grammar in llguidance's dialect of Lark; it begins at the rule `start`.
    Lark(String),
    /// A grammar as llama.cpp knows it; it begins at the rule `root`. See [`gbnf`](super::gbnf).
    Gbnf(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl Constraint {
    /// Reads a schema from JSON text.
    ///
    /// # Errors
    /// [`GrammarError::Schema`] if it is no JSON.
    pub fn json_schema(text: &str) -> Result<Self, GrammarError> {
        let value = serde_json::from_str(text).map_err(|error| GrammarError::Schema {
            at: String::new(),
            problem: format!("it is no JSON: {error}"),
        })?;
        Ok(Self::JsonSchema(value))
    }

    /// A grammar that is written in Lark or GBNF: Lark if it has a `%llguidance` line.
    pub fn grammar(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.lines().any(|line| line.trim_start().starts_with("%llguidance")) {
            Self::Lark(text)
        } else {
            Self::Gbnf(text)
        }
    }

    /// What it is, for people: `JSON schema`, `grammar` and so on.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) => "JSON schema",
            Self::JsonObject => "JSON object",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "Lark grammar",
            Self::Gbnf(_) => "GBNF grammar",
            Self::Choice(_) => "choice",
        }
    }
}
