//! `bitnet eval`: how a model answers questions.

mod print;

use std::path::Path;
use std::process::ExitCode;

use bitnet_inference::evaluate::task::{Item, ItemResult, Summary, Task, TaskOptions};
use bitnet_inference::{EngineError, InferenceEngine};
use bitnet_text::TextTemplate;

use super::generate::{read, read_whole};
use crate::args::EvalArgs;
use crate::error::CliError;
use crate::output::{self, Notes, Progress};
use crate::{interrupt, model};

pub(super) fn run(args: &EvalArgs, notes: Notes) -> Result<ExitCode, CliError> {
    if let Some(path) = &args.output {
        output::check_writable(path)?;
    }
    let (items, shots) = items(args)?;
    let options = options(args)?;
    let engine = model::engine(&args.model, notes)?;
    let task = Task::new(engine.clone(), options, &shots)
        .map_err(|error| explain(args.shots_file.as_deref().unwrap_or(&args.tasks), error))?;
    let listening = interrupt::listen();
    let results = answers(args, &task, &items, notes)?;
    let interrupted = results.len() < items.len();
    drop(listening);
    if let Some(path) = &args.output {
        let lines: Vec<String> =
            results.iter().map(|result| print::item(result).to_string() + "\n").collect();
        output::write_file(path, lines.concat().as_bytes())?;
        notes.say(&format!("wrote {}", path.display()));
    }
    if interrupted {
        notes.warn(&format!("interrupted after {} of {} rows", results.len(), items.len()));
    }
    let report = report(args, &engine, &results, shots.len(), items.len());
    if args.json {
        output::json(&print::json(&report))?;
    } else if !results.is_empty() {
        output::result(&print::text(&report))?;
    }
    Ok(if interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// What is printed.
struct Report<'a> {
    task: String,
    engine: &'a InferenceEngine,
    summary: Summary,
    answered: usize,
    rows: usize,
    shots: usize,
}

fn report<'a>(
    args: &EvalArgs,
    engine: &'a InferenceEngine,
    results: &[ItemResult],
    shots: usize,
    rows: usize,
) -> Report<'a> {
    let task = args.tasks.display().to_string();
    Report { task, engine, summary: Summary::of(results), answered: results.len(), rows, shots }
}

/// The rows to be asked, and the examples.
fn items(args: &EvalArgs) -> Result<(Vec<Item>, Vec<Item>), CliError> {
    let parse = |path: &Path| Item::parse_lines(&read(path)?).map_err(|error| explain(path, error));
    let mut items = parse(&args.tasks)?;
    let mut shots = match &args.shots_file {
        Some(path) => parse(path)?,
        None => items.drain(..args.shots.min(items.len())).collect(),
    };
    if shots.len() < args.shots {
        return Err(CliError::usage(format!(
            "there are {} rows to take examples from; lower --shots to that",
            shots.len()
        )));
    }
    shots.truncate(args.shots);
    items.truncate(args.limit.unwrap_or(usize::MAX));
    if items.is_empty() {
        return Err(CliError::failed(format!(
            "there is nothing to ask: {} has no more rows",
            args.tasks.display()
        )));
    }
    Ok((items, shots))
}

fn options(args: &EvalArgs) -> Result<TaskOptions, CliError> {
    let template = match (&args.template, &args.template_file) {
        (Some(text), _) => Some(TextTemplate::new(text, "--template")),
        (None, Some(path)) => Some(TextTemplate::new(&read_whole(path)?, &path.display().to_string())),
        (None, None) => None,
    };
    let mut options = TaskOptions {
        template: template.transpose().map_err(CliError::usage)?,
        letters: args.letters,
        chat: args.chat,
        delimiter: args.delimiter.clone(),
        max_tokens: args.predict,
        ..TaskOptions::default()
    };
    if !args.stop.is_empty() {
        options.stop.clone_from(&args.stop);
    }
    Ok(options)
}

/// Asks row after row, until all are answered or somebody interrupts.
fn answers(args: &EvalArgs, task: &Task, items: &[Item], notes: Notes) -> Result<Vec<ItemResult>, CliError> {
    let mut progress = Progress::new("answering", notes);
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        if interrupt::requested() {
            break;
        }
        let result = task.run(item).map_err(|error| match error {
            EngineError::TaskItem { .. } => explain(&args.tasks, error),
            error => in_line(&args.tasks, item.line, &error),
        })?;
        results.push(result);
        progress.set(results.len() as u64, items.len() as u64);
    }
    Ok(results)
}

fn explain(path: &Path, error: EngineError) -> CliError {
    match &error {
        EngineError::TaskItem { .. } => CliError::failed(format!("{}, {error}", path.display()))
            .hint("`bitnet eval --help` tells what a row looks like"),
        _ => error.into(),
    }
}

/// Says which row it was that failed.
fn in_line(path: &Path, line: usize, error: &EngineError) -> CliError {
    let hint = matches!(error, EngineError::TextTooLong { .. } | EngineError::PromptTooLong { .. });
    let told = match error {
        EngineError::TextTooLong { tokens, context, .. } => {
            format!("prompt and choice have {tokens} tokens, but the context holds {context}")
        }
        error => error.to_string(),
    };
    let failed = CliError::failed(format!("{}, line {line}: {told}", path.display()));
    if hint {
        failed.hint("take fewer --shots, or a larger --ctx-size if the model allows it")
    } else {
        failed
    }
}
