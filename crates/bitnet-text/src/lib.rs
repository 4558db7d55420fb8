//! Text in, tokens out, and back again.
//!
//! - [`Tokenizer`]: encodes text with the vocabulary of a model, whatever file it came in (`tokenizer.json`,
//!   a tiktoken file, a SentencePiece model, the vocabulary inside a GGUF). Special tokens spelled out in text stay text unless asked for.
//! - [`ChatTemplate`], [`ChatMessage`], [`ChatPrompt`], [`TokenizerConfig`]: the prompt format of a chat model.
//! - [`TextTemplate`]: a text with holes for the fields of a row.
//! - [`tools`]: calls of functions in the text of a model.
//! - [`Detokenizer`]: tokens to text as they arrive, whole characters only.
//! - [`StopStrings`]: ends a text at the first of several strings, across any chunk borders.
//!
//! Not here: reading model files (the caller hands over bytes or a [`VocabSpec`]), sampling, stop *tokens* (ids are
//! compared by whoever samples them).
#![forbid(unsafe_code)]

mod chat;
mod config;
mod detokenize;
mod error;
mod stop;
mod tokenizer;
pub mod tools;

pub use chat::{ChatMessage, ChatPrompt, ChatTemplate, TextTemplate, ToolCall};
pub use config::{AddedTokenInfo, TokenizerConfig};
pub use detokenize::Detokenizer;
pub use error::{Result, TextError};
pub use stop::{StopOutcome, StopStrings, Watched};
pub use tokenizer::{EncodeOptions, Segment, Tokenizer, VocabExport, VocabModel, VocabSpec};
