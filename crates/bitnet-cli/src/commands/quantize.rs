//! `bitnet quantize`: a ternary model from a full-precision checkpoint.

use std::process::ExitCode;

use bitnet_convert::{ProjectionError, QuantizeReport, quantize};
use bitnet_model::ModelSource;

use super::convert::{ConvertCliError, as_text, options, target, tell, watched};
use crate::args::QuantizeArgs;
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes, Table};

/// What nobody should find out by reading noise.
const WARNING: &str = "weights were rounded to three values; a model that was not trained for that does not speak \
                       afterwards, it needs training with quantised weights";

pub(super) fn run(args: &QuantizeArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let options = options(&args.output)?;
    let source = ModelSource::Path(args.output.input.clone());
    let report = watched(notes, |progress| -> Result<QuantizeReport, ConvertCliError> {
        Ok(quantize(&source, &args.output.out, target(&args.output)?, &options, progress)?)
    });
    let Some(report) = report? else { return Ok(ExitCode::from(interrupt::EXIT_CODE)) };
    if args.output.json {
        output::json(&serde_json::to_value(&report).map_err(CliError::failed)?)?;
    } else {
        let errors = if args.tensors { each(&report) } else { layers(&report) };
        output::result(&format!("{errors}\n{}", as_text(&report.report)))?;
        tell(&report.report, notes);
    }
    notes.warn(WARNING);
    Ok(ExitCode::SUCCESS)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// One row a projection.
fn each(report: &QuantizeReport) -> String {
    let mut table = Table::default();
    table.row([&"layer", &"projection", &"scale", &"zeros", &"relative error"]);
    for p in &report.projections {
        let error = if p.already_ternary { "ternary already".to_owned() } else { percent(p.relative_error) };
        table.row([&p.layer, &p.projection, &format!("{:.6}", p.scale), &percent(p.zeros), &error]);
    }
    table.row([&"all", &"", &"", &percent(report.zeros), &percent(report.relative_error)]);
    table.to_string()
}

/// One row a layer, with the least and the greatest of its projections.
fn layers(report: &QuantizeReport) -> String {
    let mut table = Table::default();
    table.row([&"layer", &"zeros", &"relative error"]);
    for layer in report.projections.chunk_by(|a, b| a.layer == b.layer) {
        let range = |value: &dyn Fn(&ProjectionError) -> f64| {
            let values = || layer.iter().map(value);
            let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
            format!("{} to {}", percent(least), percent(most))
        };
        table.row([&layer[0].layer, &range(&|p| p.zeros), &range(&|p| p.relative_error)]);
    }
    table.row([&"all", &percent(report.zeros), &percent(report.relative_error)]);
    table.to_string()
}
