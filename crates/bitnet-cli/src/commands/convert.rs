//! `bitnet convert`: a model in another form, verified.

use std::ops::ControlFlow;
use std::process::ExitCode;

use bitnet_convert::{ConvertError, ConvertOptions, Report, Rounding, Stage, Target, convert, verify};
use bitnet_core::MemorySize;
use bitnet_model::ModelSource;

use crate::args::{ConvertArgs, OutputArgs};
use crate::error::CliError;
use crate::interrupt;
use crate::model;
use crate::output::{self, Notes, Progress, Table, count};

pub(super) fn run(args: &ConvertArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let options = options(&args.output)?;
    let source = ModelSource::Path(args.output.input.clone());
    let report = watched(notes, |progress| -> Result<Report, ConvertCliError> {
        if args.verify_only {
            return Ok(verify(&source, &args.output.out, &options, progress)?);
        }
        Ok(convert(&source, &args.output.out, target(&args.output)?, &options, progress)?)
    });
    let Some(report) = report? else { return Ok(ExitCode::from(interrupt::EXIT_CODE)) };
    if args.output.json {
        output::json(&serde_json::to_value(&report).map_err(CliError::failed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::result(&as_text(&report))?;
    tell(&report, notes);
    Ok(ExitCode::SUCCESS)
}

/// How the library is asked.
pub(super) fn options(args: &OutputArgs) -> Result<ConvertOptions, CliError> {
    Ok(ConvertOptions {
        load: model::load_options(&args.format)?,
        tables: args.tables.into(),
        onnx_weights: args.onnx_weights.into(),
        overwrite: args.force,
        keep_free: args.keep_free.as_bytes(),
        threads: args.threads,
    })
}

/// The form to write, given or told by the path.
pub(super) fn target(args: &OutputArgs) -> Result<Target, CliError> {
    match args.to {
        Some(name) => Ok(name.into()),
        None => Target::of_path(&args.out).ok_or_else(|| {
            let names: Vec<&str> = Target::ALL.iter().map(|target| target.name()).collect();
            let message = format!("{} does not tell which form to write", args.out.display());
            CliError::usage(message).hint(format!("--to {}", names.join(" | ")))
        }),
    }
}

/// An error of the library or of the command line.
#[derive(Debug)]
pub(super) enum ConvertCliError {
    Library(ConvertError),
    Cli(CliError),
}

impl From<CliError> for ConvertCliError {
    fn from(error: CliError) -> Self {
        Self::Cli(error)
    }
}

impl From<ConvertError> for ConvertCliError {
    fn from(error: ConvertError) -> Self {
        Self::Library(error)
    }
}

/// Runs `work` with a bar, until it ends or Ctrl-C is pressed: then there is no result.
pub(super) fn watched<T>(
    notes: Notes,
    work: impl FnOnce(&mut dyn FnMut(bitnet_convert::Progress) -> ControlFlow<()>) -> Result<T, ConvertCliError>,
) -> Result<Option<T>, CliError> {
    let listening = interrupt::listen();
    let mut stage = None;
    let mut bar = Progress::new("reading", notes);
    let result = work(&mut |progress| {
        if stage != Some(progress.stage) {
            stage = Some(progress.stage);
            bar = Progress::new(name(progress.stage), notes);
        }
        bar.set(progress.done, progress.total);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.clear();
    drop(listening);
    match result {
        Ok(done) => Ok(Some(done)),
        Err(ConvertCliError::Cli(error)) => Err(error),
        Err(ConvertCliError::Library(ConvertError::Interrupted)) => {
            notes.warn("interrupted; nothing was written");
            Ok(None)
        }
        Err(ConvertCliError::Library(error)) => Err(explain(&error)),
    }
}

const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Measure => "measuring",
        Stage::Write => "writing",
        Stage::Verify => "verifying",
    }
}

/// Adds what only the command line knows.
fn explain(error: &ConvertError) -> CliError {
    let failed = CliError::failed(error);
    match error {
        ConvertError::Exists { .. } => failed.hint("--force replaces it"),
        ConvertError::FolderNeeded { folder, .. } => {
            CliError::usage(error).hint(format!("{} --to onnx", folder.display()))
        }
        ConvertError::DiskFull { .. } => failed.hint("--keep-free tells what must stay free"),
        _ => failed,
    }
}

/// What people should know, on stderr.
pub(super) fn tell(report: &Report, notes: Notes) {
    for note in &report.notes {
        notes.say(&format!("note: {note}"));
    }
}

/// The report as a table.
pub(super) fn as_text(report: &Report) -> String {
    let found = &report.verification;
    let mut table = Table::default();
    table.row([&"model", &report.model]);
    table.row([&"from", &format!("{} ({})", report.source, report.source_format)]);
    let size = MemorySize::bytes(report.output_bytes);
    table.row([&"to", &format!("{} ({}, {size})", report.output, report.output_format)]);
    let trits = format!("{} in {} tensors, all equal", count(found.trits), count(found.ternary_tensors));
    table.row([&"ternary weights", &trits]);
    table.row([&"weight scales", &rounding(&found.scales)]);
    table.row([&"norms", &format!("{} values, all equal", count(found.norm_values))]);
    table.row([&"embedding, output", &rounding(&found.tables)]);
    let texts = match &found.texts {
        Some(texts) => format!(
            "{} texts and {} conversations give equal tokens",
            count(texts.texts),
            count(texts.conversations)
        ),
        None => "none".to_owned(),
    };
    table.row([&"tokenizer", &texts]);
    table.row([&"lossless", &if found.lossless { "yes" } else { "no, see the roundings" }]);
    let written = match report.write_seconds {
        seconds if seconds > 0.0 => format!("{seconds:.1} s to write, "),
        _ => String::new(),
    };
    table.row([&"time", &format!("{written}{:.1} s to verify", report.verify_seconds)]);
    table.to_string()
}

fn rounding(found: &Rounding) -> String {
    if found.changed == 0 {
        return format!("{} values, all equal", count(found.values));
    }
    format!(
        "{} of {} values rounded, by {:.2e} at most",
        count(found.changed),
        count(found.values),
        found.max_relative
    )
}
