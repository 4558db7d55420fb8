//! [`header`]: what makes a run the same run, at the head of its journal.

use std::path::Path;

use bitnet_inference::InferenceEngine;
use bitnet_inference::evaluate::task::TaskOptions;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::args::EvalArgs;
use crate::commands::resume::{facts, hex};
use crate::error::CliError;

/// The form of the journal; another form gets another number.
const VERSION: u64 = 1;

/// A file that decides about results: its name, and a hash of what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    name: String,
    sha256: String,
}

impl Source {
    /// A file of this content.
    pub(super) fn new(path: &Path, content: &[u8]) -> Self {
        Self { name: path.display().to_string(), sha256: hash(content) }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(path: &Path) -> Result<Self, CliError> {
        let content = std::fs::read(path);
        content
            .map(|content| Self::new(path, &content))
            .map_err(|error| CliError::failed(format!("cannot read {}: {error}", path.display())))
    }

    fn json(&self) -> Value {
        json!({"path": self.name, "sha256": self.sha256})
    }
}

/// The header: all that decides about rows and summary. Threads, kernels and forms of weights do not.
///
/// # Errors
/// If a file that a flag names cannot be read.
pub(super) fn header(
    args: &EvalArgs,
    sources: &[Source],
    options: &TaskOptions,
    engine: &InferenceEngine,
) -> Result<Value, CliError> {
    let format = &args.model.format;
    let tokenizer = format.tokenizer.as_deref().map(Source::read).transpose()?;
    let template = match &args.template_file {
        Some(path) => Some(Source::read(path)?.json()),
        None => args.template.as_ref().map(|text| json!(text)),
    };
    let chat_template =
        engine.model().chat_template.as_ref().map(|template| hash(template.source().as_bytes()));
    Ok(json!({
        "bitnet_eval": VERSION,
        "version": env!("CARGO_PKG_VERSION"),
        "tasks": sources.first().map(Source::json),
        "shots_file": sources.get(1).map(Source::json),
        "model": facts(engine),
        "settings": {
            "shots": args.shots,
            "limit": args.limit,
            "template": template,
            "letters": options.letters,
            "chat": options.chat,
            "chat_template": chat_template.filter(|_| options.chat),
            "delimiter": options.delimiter,
            "separator": options.separator,
            "predict": options.max_tokens,
            "stop": options.stop,
            "tokenizer": tokenizer.as_ref().map(Source::json),
            "lm_head": format!("{:?}", args.model.storage.lm_head),
        },
    }))
}

fn hash(content: &[u8]) -> String {
    hex(&digest(&SHA256, content).as_ref()[..16])
}
