//! `bitnet perplexity`: how well a model predicts a text.

use std::process::ExitCode;

use serde_json::json;

use super::generate::read;
use crate::args::PerplexityArgs;
use crate::error::CliError;
use crate::model;
use crate::output::{self, Notes, Progress};

pub(super) fn run(args: &PerplexityArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let text = read(&args.file)?;
    let engine = model::engine(&args.model, notes)?;
    let mut progress = Progress::new("scoring", notes);
    let result =
        engine.perplexity(&text, args.window, &mut |done, total| progress.set(done as u64, total as u64))?;
    progress.clear();
    if args.json {
        output::json(&json!({
            "model": engine.model().name,
            "perplexity": result.value,
            "nll": result.nll,
            "tokens": result.tokens,
            "window": args.window,
            "kv_type": engine.info().kv_type.name(),
        }))?;
    } else {
        let mean = result.nll / result.tokens as f64;
        output::result(&format!(
            "perplexity {:.4} ({} tokens, {mean:.4} nats each)\n",
            result.value, result.tokens
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
