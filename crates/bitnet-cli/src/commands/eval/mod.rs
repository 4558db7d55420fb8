//! `bitnet eval`: how a model answers questions.

mod header;
mod print;
mod store;

use std::path::Path;
use std::process::ExitCode;

use bitnet_inference::evaluate::task::{Item, ItemResult, Summary, Task, TaskOptions};
use bitnet_inference::{EngineError, InferenceEngine};
use bitnet_text::TextTemplate;

use self::header::Source;
use self::store::{Before, Store};
use super::generate::{read, read_whole};
use super::resume::{Places, resume_command};
use crate::args::EvalArgs;
use crate::error::CliError;
use crate::output::{self, Notes, Progress, count};
use crate::{interrupt, model};

pub(super) fn run(args: &EvalArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let places = args.output.as_deref().map(Places::new);
    if let Some(places) = &places {
        output::check_writable(&places.output)?;
        if store::look(places, args.resume, args.force)? == Before::Whole {
            let name = places.output.display();
            notes.say(&format!("{name} is there, and no run was interrupted: nothing to resume"));
            return Ok(ExitCode::SUCCESS);
        }
    }
    let rows = rows(args)?;
    let options = options(args)?;
    let engine = model::engine(&args.model, notes)?;
    let header = header::header(args, &rows.sources, &options, &engine)?;
    let task = Task::new(engine.clone(), options, &rows.shots)
        .map_err(|error| explain(args.shots_file.as_deref().unwrap_or(&args.tasks), error))?;
    let _listening = interrupt::listen();
    let (mut store, before) = match places {
        None => (None, Vec::new()),
        Some(places) => {
            let (store, before) = Store::open(places, &header, &rows.items, args.resume)?;
            (Some(store), before)
        }
    };
    if !before.is_empty() {
        notes.say(&format!("{} rows are done; going on", count(before.len() as u64)));
    }
    let mut done = Done { summary: Summary::of(&before), rows: before.len() };
    let asked = ask(args, &task, &rows.items, &mut done, store.as_mut(), notes);
    // What was computed stays, whatever ended it.
    store.as_mut().map_or(Ok(()), Store::commit)?;
    asked?;
    let interrupted = done.rows < rows.items.len();
    if let (Some(store), false) = (&mut store, interrupted) {
        store.finish()?;
    }
    tell(args, &engine, &done, &rows, notes)?;
    match store {
        _ if interrupted => return Ok(ExitCode::from(interrupt::EXIT_CODE)),
        Some(store) => store.forget()?,
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// What came out so far.
struct Done {
    summary: Summary,
    rows: usize,
}

/// Tells what came out, and how to go on if there is more to be done.
fn tell(
    args: &EvalArgs,
    engine: &InferenceEngine,
    done: &Done,
    rows: &Rows,
    notes: Notes,
) -> Result<(), CliError> {
    let all = rows.items.len();
    let Summary { computed, reused, .. } = done.summary;
    notes.say(&format!(
        "{} tokens computed, {} shared between rows and choices",
        count(computed as u64),
        count(reused as u64)
    ));
    match &args.output {
        Some(_) if done.rows < all => notes.warn(&format!(
            "interrupted when {} of {} rows were done; to go on: {}",
            count(done.rows as u64),
            count(all as u64),
            resume_command(std::env::args())
        )),
        Some(path) => notes.say(&format!("wrote {}", path.display())),
        None if done.rows < all => {
            notes.warn(&format!("interrupted after {} of {all} rows", done.rows));
        }
        None => {}
    }
    let task = args.tasks.display().to_string();
    let (summary, shots) = (&done.summary, rows.shots.len());
    let report = Report { task, engine, summary, answered: done.rows, rows: all, shots };
    if args.json {
        output::json(&print::json(&report))
    } else if done.rows > 0 {
        output::result(&print::text(&report))
    } else {
        Ok(())
    }
}

/// What is printed.
struct Report<'a> {
    task: String,
    engine: &'a InferenceEngine,
    summary: &'a Summary,
    answered: usize,
    rows: usize,
    shots: usize,
}

/// What is read from the task, and from the file of examples if there is one.
struct Rows {
    /// Those to be asked.
    items: Vec<Item>,
    /// The examples.
    shots: Vec<Item>,
    /// The files.
    sources: Vec<Source>,
}

fn rows(args: &EvalArgs) -> Result<Rows, CliError> {
    let mut sources = Vec::new();
    let mut parse = |path: &Path| {
        let text = read(path)?;
        sources.push(Source::new(path, text.as_bytes()));
        Item::parse_lines(&text).map_err(|error| explain(path, error))
    };
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
    Ok(Rows { items, shots, sources })
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

/// Asks the rows that are not done, one after the other, until all are answered or somebody interrupts.
fn ask(
    args: &EvalArgs,
    task: &Task,
    items: &[Item],
    done: &mut Done,
    mut store: Option<&mut Store>,
    notes: Notes,
) -> Result<(), CliError> {
    let mut progress = Progress::new("answering", notes);
    for item in &items[done.rows.min(items.len())..] {
        if interrupt::requested() {
            break;
        }
        let result: ItemResult = task.run(item).map_err(|error| match error {
            EngineError::TaskItem { .. } => explain(&args.tasks, error),
            error => in_line(&args.tasks, item.line, &error),
        })?;
        if let Some(store) = store.as_deref_mut() {
            store.write(&result)?;
        }
        done.summary.add(&result);
        done.rows += 1;
        progress.set(done.rows as u64, items.len() as u64);
    }
    Ok(())
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
