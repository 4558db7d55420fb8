//! `bitnet bench --score`: grades.

use std::ops::ControlFlow;
use std::process::ExitCode;

use bitnet_inference::benchmark::score::{self, BATCH, Graded, Score};
use serde_json::{Map, Value, json};

use super::plan::Plan;
use super::print::{csv_head, csv_line, figure};
use super::row::object;
use super::{engine, exit_code};
use crate::args::{BenchArgs, BenchFormat};
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes, Progress, Table, count};

pub(super) fn run(args: &BenchArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let plan = Plan::of(args)?;
    let [setup] = &plan.setups[..] else {
        return Err(CliError::usage("grades are for one number of threads and one kernel set"));
    };
    if args.model.is_some() {
        notes.warn("grades are those of the bundled model; the model that was named is not used");
    }
    let listening = interrupt::listen();
    let engine = engine(args, None, setup, BATCH, notes)?;
    let mut progress = Progress::new("measuring", notes);
    let score = score::score(&engine, &mut |part| {
        progress.set((part * 1000.0) as u64, 1000);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(listening);
    progress.clear();
    let Some(score) = score else { return Ok(exit_code(true)) };
    print(args.output(), &score, &engine.info().description)?;
    Ok(ExitCode::SUCCESS)
}

fn print(format: BenchFormat, score: &Score, executor: &str) -> Result<(), CliError> {
    match format {
        BenchFormat::Md => output::result(&table(score, executor)),
        BenchFormat::Json => output::json(&as_json(score, executor)),
        BenchFormat::Jsonl => output::result(&format!("{}\n", as_json(score, executor))),
        BenchFormat::Csv => {
            let rows: Vec<Map<String, Value>> = score.parts.iter().map(fields).collect();
            let head = rows.first().map(csv_head).unwrap_or_default();
            output::result(&(head + &rows.iter().map(csv_line).collect::<String>()))
        }
    }
}

fn table(score: &Score, executor: &str) -> String {
    let mut table = Table::default();
    for part in &score.parts {
        let value = match part.value {
            v if v >= 1000.0 => count(v.round() as u64),
            v => figure(v),
        };
        let weight = format!("{:.0} %", part.weight * 100.0);
        table.row([&part.name, &part.grade, &weight, &format!("{value} {}", part.unit)]);
    }
    table.row([&"total", &score.grade(), &"", &format!("{:.1} points of 100", score.points())]);
    format!("{table}\n{} on {executor}\n", bitnet_tiny::NAME)
}

fn fields(part: &Graded) -> Map<String, Value> {
    object(json!({
        "name": part.name,
        "grade": part.grade.to_string(),
        "weight": part.weight,
        "value": part.value,
        "unit": part.unit,
    }))
}

fn as_json(score: &Score, executor: &str) -> Value {
    json!({
        "model": bitnet_tiny::NAME,
        "executor": executor,
        "grade": score.grade().to_string(),
        "points": score.points(),
        "parts": score.parts.iter().map(fields).collect::<Vec<_>>(),
    })
}
