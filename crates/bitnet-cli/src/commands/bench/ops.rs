//! `bitnet bench ops`: one BitLinear layer.

use std::ops::ControlFlow;
use std::process::ExitCode;

use bitnet_inference::EngineError;
use bitnet_inference::benchmark::operations::{OperationsOptions, OperationsResult, operations};
use serde_json::{Map, Value, json};

use super::exit_code;
use super::print::{csv_head, csv_line, figure};
use super::row::object;
use crate::args::{BenchFormat, OpsArgs};
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes, Progress, Table, count};

pub(super) fn run(args: &OpsArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let mut options = OperationsOptions {
        rows: args.rows,
        cols: args.cols,
        threads: args.threads,
        rounds: args.repetitions,
        ..OperationsOptions::default()
    };
    if !args.kernels.is_empty() {
        options.kernels = args.kernels.iter().map(|name| name.trim().to_owned()).collect();
    }
    let mut progress = Progress::new("measuring", notes);
    let listening = interrupt::listen();
    let results = operations(&options, &mut |done, total| {
        progress.set(done as u64, total as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| match error {
        EngineError::Exec(_) => {
            CliError::from(error).hint("`bitnet devices` lists the kernel sets of this machine")
        }
        _ => error.into(),
    })?;
    let interrupted = interrupt::requested();
    drop(listening);
    progress.clear();
    print(args.output(), &results)?;
    Ok(exit_code(interrupted))
}

fn print(format: BenchFormat, results: &[OperationsResult]) -> Result<(), CliError> {
    match format {
        BenchFormat::Md => output::result(&table(results)),
        BenchFormat::Json => {
            output::json(&results.iter().map(|r| Value::Object(fields(r))).collect::<Vec<_>>().into())
        }
        BenchFormat::Jsonl => {
            let lines = results.iter().map(|r| format!("{}\n", Value::Object(fields(r))));
            output::result(&lines.collect::<String>())
        }
        BenchFormat::Csv => {
            let head = results.first().map(|r| csv_head(&fields(r))).unwrap_or_default();
            output::result(&(head + &results.iter().map(|r| csv_line(&fields(r))).collect::<String>()))
        }
    }
}

fn table(results: &[OperationsResult]) -> String {
    let mut table = Table::default();
    table.row([&"kernels", &"layer", &"threads", &"operations/s", &"±", &"GMAC/s", &"of the int8 peak"]);
    for r in results {
        let peak = match (r.peak_macs, r.of_limit()) {
            (Some(peak), Some(part)) => format!("{:.1} % of {}", part * 100.0, figure(peak.median / 1e9)),
            _ => "-".to_owned(),
        };
        table.row([
            &r.kernels,
            &format!("{}x{}", r.rows, r.cols),
            &r.threads,
            &count(r.per_second.median.round() as u64),
            &count(r.per_second.spread.round() as u64),
            &figure(r.macs() / 1e9),
            &peak,
        ]);
    }
    table.to_string()
}

fn fields(r: &OperationsResult) -> Map<String, Value> {
    object(json!({
        "kernels": r.kernels,
        "rows": r.rows,
        "cols": r.cols,
        "n_threads": r.threads,
        "weight_bytes": r.weight_bytes,
        "rounds": r.per_second.count,
        "operations_s": r.per_second.median,
        "mean_operations_s": r.per_second.mean,
        "stddev_operations_s": r.per_second.spread,
        "microseconds": 1e6 / r.per_second.median * r.threads as f64,
        "int8_gmac_s": r.macs() / 1e9,
        "machine_int8_gmac_s": r.peak_macs.map(|p| p.median / 1e9),
        "of_limit": r.of_limit(),
    }))
}
