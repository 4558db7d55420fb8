//! [`GrammarError`]: what is wrong with a constraint.

/// Why a constraint cannot be used, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A JSON schema that is none, or that asks for what cannot be enforced.
    #[error("the JSON schema cannot be used{}: {problem}", place(at))]
    Schema {
        /// Where, as a JSON pointer; empty if that is not known.
        at: String,
        /// What is wrong.
        problem: String,
    },
    /// A regular expression that is none, or that uses what cannot be enforced.
    #[error("the regular expression cannot be used: {problem}")]
    Regex {
        /// What is wrong, and where.
        problem: String,
    },
    /// A Lark grammar that is none.
    #[error("the Lark grammar cannot be used: {problem}")]
    Lark {
        /// What is wrong, and where.
        problem: String,
    },
    /// A GBNF grammar that is none.
    #[error("the GBNF grammar cannot be used, line {line}, column {column}: {problem}")]
    Gbnf {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// A list of choices without any, or with an empty one.
    #[error("the choices cannot be used: {problem}")]
    Choice {
        /// What is wrong.
        problem: &'static str,
    },
    /// A constraint beyond what is compiled for anybody.
    #[error(
        "the constraint is too large: {what} is {found}, but at most {limit} is allowed; make it smaller"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A constraint that takes too much work or memory, be it to compile or to follow.
    #[error("the constraint takes too much work or memory ({problem}); make it simpler")]
    TooComplex {
        /// Which limit was met.
        problem: String,
    },
    /// A text that fits the constraint so far, but that no token continues.
    #[error("no token of the vocabulary continues the text as the constraint asks for")]
    DeadEnd,
    /// A vocabulary that constraints cannot work with.
    #[error("constraints cannot be enforced with this model: {problem}")]
    Vocabulary {
        /// What is wrong.
        problem: String,
    },
    /// A token that the constraint does not allow here.
    #[error("token {token} does not fit the constraint here: {problem}")]
    Refused {
        /// The token.
        token: u32,
        /// Why.
        problem: String,
    },
    /// The parser failed in a way that it should not.
    #[error("the parser of constraints failed: {problem}")]
    Failed {
        /// What it says.
        problem: String,
    },
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" (at {pointer})") }
}

/// Words of the parser's messages that tell of a limit.
const LIMITS: [&str; 8] =
    ["too big", "too large", "too complex", "limit", "fuel", "exceeded", "TooComplex", "too deeply"];

impl GrammarError {
    /// Whether the constraint itself is at fault, not the model or the engine.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Vocabulary { .. } | Self::Refused { .. } | Self::Failed { .. } | Self::DeadEnd)
    }

    /// A message of the parser, without its dumps of internal state.
    pub(super) fn tidy(message: &str) -> String {
        let end = ["\n<state>", "\n<non-verbose/>", "\n<backtrace>"]
            .iter()
            .filter_map(|mark| message.find(mark))
            .min();
        let message = message[..end.unwrap_or(message.len())].trim();
        match message.char_indices().nth(600) {
            Some((end, _)) => format!("{} ...", &message[..end]),
            None => message.to_owned(),
        }
    }

    /// Recognises messages about limits and about panics; everything else is `or`'s.
    pub(super) fn of_parser(message: &str, or: impl FnOnce(String) -> Self) -> Self {
        let problem = Self::tidy(message);
        if problem.starts_with("panic:") {
            return Self::Failed { problem };
        }
        if LIMITS.iter().any(|word| problem.contains(word)) {
            return Self::TooComplex { problem };
        }
        or(problem)
    }
}
