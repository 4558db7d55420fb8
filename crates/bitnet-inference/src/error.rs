//! The error type of this crate.

use bitnet_model::ExecError;
use bitnet_model::load::LoadError;
use bitnet_text::TextError;

use crate::grammar::GrammarError;
use crate::kv::{PoolExhausted, SessionFileError};
use crate::sampling::SamplingError;

/// A parameter that cannot be: out of range, or not a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value} is not possible: it must be {allowed}")]
pub struct ParameterError {
    /// The parameter, as the field is called.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

/// What can go wrong between a model source and text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The executor failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Tokenizer or chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The logits cannot be sampled from.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A way to quantise that this engine does not compute with.
    #[error(transparent)]
    Quantization(#[from] bitnet_quant::QuantError),
    /// The cache of the Hub cannot be read, or a name is none.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] bitnet_hub::HubError),
    /// A constraint that cannot be used, or not any more.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// A parameter out of range.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Too many sessions at a time.
    #[error(transparent)]
    Sessions(#[from] PoolExhausted),
    /// A conversation that cannot be written to a file or go on from one.
    #[error(transparent)]
    SessionFile(#[from] SessionFileError),
    /// The builder was given no model.
    #[error("no model was named; give the builder a model source")]
    NoModel,
    /// A context larger than the model's.
    #[error("a context of {asked} tokens is not possible: {model} was made for at most {limit}")]
    ContextTooLong {
        /// Tokens asked for.
        asked: usize,
        /// Tokens the model was made for.
        limit: usize,
        /// Name of the model.
        model: String,
    },
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, but the context holds {context} with the answer; shorten the prompt{}",
        if context < limit { format!(" or enlarge the context (this model allows {limit})") } else { String::new() })]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens the context holds.
        context: usize,
        /// Tokens the model allows.
        limit: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty, and the model has no token that begins a text; write at least one word")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error("token {token} of the prompt is outside the vocabulary of {vocab_size}")]
    BadToken {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A chat was asked for, but the model has no chat template.
    #[error("{model} has no chat template; continue raw text, or name a template")]
    NoChatTemplate {
        /// Name of the model.
        model: String,
    },
    /// A session of another engine.
    #[error("the session belongs to another engine; make one with this engine's `session`")]
    ForeignSession,
    /// A text to embed that is longer than the context.
    #[error("text {} has {tokens} tokens, but the context holds {context}; shorten it, or let it be cut", index + 1)]
    TextTooLong {
        /// Which of the texts, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens the context holds.
        context: usize,
    },
    /// A text to embed without any token.
    #[error("text {} is empty, and the model puts no token before or behind a text; there is nothing to embed", index + 1)]
    EmptyText {
        /// Which of the texts, from 0.
        index: usize,
    },
    /// Too many requests wait.
    #[error("{capacity} requests are waiting already; try again later")]
    QueueFull {
        /// How many may wait.
        capacity: usize,
    },
    /// The request was not done in time.
    #[error("the request was not done by its deadline")]
    DeadlineExceeded,
    /// The engine takes no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// A bug that a request ran into. Other requests go on.
    #[error("the request failed by a bug in the engine: {message}")]
    RequestPanicked {
        /// What the code that failed said.
        message: String,
    },
    /// Nobody waits for the result any more.
    #[error("the request was cancelled before it was done")]
    Cancelled,
    /// A model that is neither a path nor in the cache.
    #[error(
        "{given} is neither a file or folder nor a model in the cache; fetch it with `bitnet pull {given}`, or give a path"
    )]
    ModelNotFound {
        /// What was given.
        given: String,
    },
    /// Rows of another width than the model's, or none.
    #[error(
        "the input has {given} values, which are no rows of {width}; give the model's hidden size times the number of rows"
    )]
    RowSize {
        /// Values given.
        given: usize,
        /// Values of a row.
        width: usize,
    },
    /// A value of a row that is infinite or not a number.
    #[error("row {row} of the input has {value} in column {column}; only finite values can be computed with")]
    RowValue {
        /// Which row, from 0.
        row: usize,
        /// Which value of the row, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// Something that this build or this machine cannot do.
    #[error("{what} is not possible: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing, and what there is instead.
        why: String,
    },
    /// Models that cannot be compared token by token.
    #[error("{} and {} do not have the same vocabulary: {why}; compare models of one tokenizer", models[0], models[1])]
    Vocabularies {
        /// Names of the models.
        models: [String; 2],
        /// The first difference.
        why: String,
    },
    /// An item of a task that cannot be used.
    #[error("line {line}: {problem}")]
    TaskItem {
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A text too short for what is asked.
    #[error("the text has {tokens} tokens; at least {needed} are needed")]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens needed.
        needed: usize,
    },
}

impl EngineError {
    /// Whether a device failed with all that was computed, and another has taken its place.
    pub(crate) fn is_context_lost(&self) -> bool {
        matches!(self, Self::Exec(ExecError::ContextLost { .. }))
    }
}

impl EngineError {
    /// Whether the request could never have worked, whatever the model: a matter of usage, not of running.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Parameter(_) | Self::NoModel | Self::ContextTooLong { .. } => true,
            Self::Grammar(error) => error.is_usage(),
            _ => false,
        }
    }
}
