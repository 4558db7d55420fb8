//! `bitnet compare`: how two models, or one in two ways, differ over a text.
//!
//! `print` says it, `report` draws it, `context` shows tokens where they stand.

mod context;
mod print;
mod report;

use std::ops::ControlFlow;
use std::process::ExitCode;

use bitnet_inference::evaluate::compare::{Comparison, ComparisonSummary, compare};
use bitnet_inference::{EngineError, InferenceEngine, TextWindows};

use super::generate::read_whole;
use crate::args::{CompareArgs, ModelArgs};
use crate::error::CliError;
use crate::output::{self, Notes, Progress};
use crate::{interrupt, model};

/// What is compared unless a text is named.
const TEXT: &str = include_str!("text.txt");

/// Tokens of a window unless told otherwise, if the contexts hold so many.
const WINDOW: usize = 511;

pub(super) fn run(args: &CompareArgs, notes: Notes) -> Result<ExitCode, CliError> {
    if let Some(path) = &args.html {
        output::check_writable(path)?;
    }
    let report = compared(args, notes)?;
    if args.json {
        output::json(&print::json(&report))?;
    } else {
        output::result(&print::text(&report))?;
    }
    if let Some(path) = &args.html {
        output::write_file(path, report::page(&report).as_bytes())?;
        notes.say(&format!("wrote {}", path.display()));
    }
    if report.comparison.complete {
        return Ok(ExitCode::SUCCESS);
    }
    notes.warn(&format!("interrupted: {} tokens of the text were compared", report.summary.tokens));
    Ok(ExitCode::from(interrupt::EXIT_CODE))
}

/// Compares what the command line names.
fn compared(args: &CompareArgs, notes: Notes) -> Result<Report<'_>, CliError> {
    let text = args.file.as_deref().map(read_whole).transpose()?;
    let (a, b) = engines(args, notes)?;
    let context = a.context().min(b.context());
    let windows = TextWindows::new(args.window.unwrap_or(WINDOW.min(context.saturating_sub(1)).max(1)));
    let listening = interrupt::listen();
    let mut progress = Progress::new("comparing", notes);
    let comparison =
        compare(&a, &b, text.as_deref().unwrap_or(TEXT), &windows, args.limit, &mut |done, total| {
            progress.set(done as u64, total as u64);
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(explain)?;
    progress.clear();
    drop(listening);
    let summary = comparison.summary().ok_or_else(|| CliError::failed("nothing was compared"))?;
    let name =
        args.file.as_ref().map_or("the program's own text".to_owned(), |file| file.display().to_string());
    Ok(Report { args, text: name, windows, engines: [a, b], comparison, summary })
}

/// All that is told.
struct Report<'a> {
    args: &'a CompareArgs,
    /// Name of the text.
    text: String,
    windows: TextWindows,
    engines: [InferenceEngine; 2],
    comparison: Comparison,
    summary: ComparisonSummary,
}

/// Both engines. Where they are one model in the same form, the second uses the weights of the first.
fn engines(args: &CompareArgs, notes: Notes) -> Result<(InferenceEngine, InferenceEngine), CliError> {
    let [first, second] = args.models();
    let a = model::engine(&first, notes)?;
    let b = match a.sibling().filter(|_| same_weights(&first, &second)) {
        Some(builder) => model::build(builder, &second, notes)?,
        // What a second loading of the bundled model would say was said.
        None => model::engine(&second, if first.model == second.model { notes.hushed() } else { notes })?,
    };
    Ok((a, b))
}

/// Whether what `b` needs in memory is what `a` has there.
fn same_weights(a: &ModelArgs, b: &ModelArgs) -> bool {
    let forms = [a, b].map(|args| args.storage.weight_form.into());
    let [a_form, b_form]: [Option<bitnet_cpu::Form>; 2] = forms;
    a.model == b.model && a.device.device == b.device.device && (b_form.is_none() || a_form == b_form)
}

fn explain(error: EngineError) -> CliError {
    match &error {
        EngineError::Vocabularies { .. } => CliError::failed(&error),
        EngineError::Parameter(_) => CliError::from(error).hint("choose a smaller --window"),
        _ => error.into(),
    }
}
