//! `bitnet bench`: how fast a model runs, beside what the machine can do.
//!
//! `plan` says what is to be run, this module runs it, `row` has the figures of one test, `print` writes them, `report`
//! draws them.

mod ops;
mod plan;
mod print;
mod report;
mod row;
mod score;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use bitnet_core::{MemorySize, process};
use bitnet_inference::benchmark::{BenchmarkEvent, BenchmarkOptions, Probe};
use bitnet_inference::{EngineError, InferenceEngine};

use self::plan::{Plan, Setup};
use self::print::Printer;
use self::row::{Machine, Row};
use crate::args::{BenchAction, BenchArgs, ModelArgs};
use crate::error::CliError;
use crate::output::{self, Notes, Progress};
use crate::{interrupt, model};

pub(super) fn run(args: &BenchArgs, notes: Notes) -> Result<ExitCode, CliError> {
    match &args.action {
        Some(BenchAction::Ops(args)) => ops::run(args, notes),
        None if args.score => score::run(args, notes),
        None => tests(args, notes),
    }
}

/// Exit code of what may have been interrupted.
fn exit_code(interrupted: bool) -> ExitCode {
    if interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS }
}

/// Runs all tests, printing each result as it comes.
fn tests(args: &BenchArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let plan = Plan::of(args)?;
    if let Some(path) = &args.report {
        output::check_writable(path)?;
    }
    let machine = Machine::detect();
    let listening = interrupt::listen();
    let probe = if args.no_limits { None } else { Some(Probe::new().map_err(EngineError::from)?) };
    let printer = Printer::new(args.output(), plan.shows_batch(), machine.clone());
    let mut bench = Bench { args, probe, printer, rows: Vec::new() };
    for (index, setup) in plan.setups.iter().enumerate() {
        if interrupt::requested() {
            break;
        }
        // What the second engine would say was said for the first.
        bench.setup(&plan, setup, if index == 0 { notes } else { notes.hushed() }, notes)?;
    }
    let interrupted = interrupt::requested();
    drop(listening);
    bench.printer.finish(&bench.rows)?;
    if let Some(path) = &args.report {
        report::write(path, &bench.rows, &machine)?;
        notes.say(&format!("wrote {}", path.display()));
    }
    Ok(exit_code(interrupted))
}

/// A running benchmark.
struct Bench<'a> {
    args: &'a BenchArgs,
    probe: Option<Probe>,
    printer: Printer,
    rows: Vec<Row>,
}

impl Bench<'_> {
    /// Loads the model for one setup and runs its tests.
    fn setup(&mut self, plan: &Plan, setup: &Setup, loading: Notes, notes: Notes) -> Result<(), CliError> {
        process::reset_peak();
        let engine = engine(self.args, self.args.model.as_deref(), setup, plan.sessions(), loading)?;
        let tests = plan.tests(setup, engine.context());
        let buffer = self.probe.as_ref().map_or(0, |probe| probe.buffer_size().as_bytes());
        let options = BenchmarkOptions {
            repetitions: self.args.repetitions,
            warm_up: !self.args.no_warmup,
            top_k: self.args.top_k,
            // Limits are measured of the processor.
            probe: self.probe.as_mut().filter(|_| engine.gpu_memory().is_none()),
        };
        let (printer, rows) = (&mut self.printer, &mut self.rows);
        let mut progress = Progress::new("measuring", notes);
        let mut failed = None;
        let outcome = engine.benchmark_with(&tests, options, &mut |event| {
            match event {
                BenchmarkEvent::Progress { done, total } => progress.set(done, total),
                BenchmarkEvent::Result(result) => {
                    let peak = process::peak_resident().map(|p| p.as_bytes().saturating_sub(buffer));
                    let row = Row::new(&engine, result, peak.map(MemorySize::bytes));
                    progress.hide(|| failed = printer.row(&row).err());
                    rows.push(row);
                }
            }
            let stop = failed.is_some() || interrupt::requested();
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        progress.clear();
        if let Some(error) = failed {
            return Err(error);
        }
        outcome.map(|_| ()).map_err(explain)
    }
}

/// An engine for a setup, of the model at `path` or of the bundled one.
fn engine(
    bench: &BenchArgs,
    path: Option<&Path>,
    setup: &Setup,
    sessions: usize,
    notes: Notes,
) -> Result<InferenceEngine, CliError> {
    let args = ModelArgs {
        model: path.map(Path::to_owned),
        threads: setup.threads,
        kernels: setup.kernels.clone(),
        ctx_size: None,
        device: bench.device.clone(),
        storage: bench.storage.clone(),
        format: bench.format.clone(),
    };
    model::engine_with(&args, notes, |builder| builder.sessions(sessions))
}

/// Adds what only this command knows.
fn explain(error: EngineError) -> CliError {
    match error {
        EngineError::ContextTooLong { .. } => {
            CliError::usage(&error).hint("lower -d, -p or -n: depth, prompt and answer share the context")
        }
        error => error.into(),
    }
}
