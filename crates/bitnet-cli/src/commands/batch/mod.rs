//! `bitnet batch`: files of prompts to files of texts.
//!
//! * `input`: rows of text, JSONL, CSV, TSV and Parquet; `survey` reads them once beforehand;
//! * `template`, `request`: from a row to a request; `openai`: rows that are requests of OpenAI's batch API;
//! * `run`: rows are read ahead, computed together by the engine's scheduler, and written in their order;
//! * `outcome`, `output`: what became of a row, and how it is written;
//! * `store`, `mark`: the growing file, and how a run that was interrupted goes on (with [`super::resume`]);
//! * `estimate`: `--dry-run`.
//!
//! What is written depends on inputs, flags and model alone, not on batching, interruptions or speed: each row has its own
//! seed, and rows are written in their order. So a run that was interrupted, and resumed, writes the same bytes.

mod estimate;
mod input;
mod mark;
mod openai;
mod outcome;
mod output;
mod request;
mod run;
mod store;
mod survey;
mod template;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitnet_inference::{Form, InferenceEngine, SchedulerOptions};
use ring::rand::SecureRandom;
use serde_json::{Value, json};

use self::input::{InputFile, Rows};
use self::mark::{Mark, header};
use self::openai::Answers;
use self::output::Writer;
use self::request::Requests;
use self::run::{Ended, Run, WINDOW, Work, span};
use self::store::{Before, Store};
use self::survey::Survey;
use super::resume::{Places, facts, resume_command};
use crate::args::{BatchArgs, InputFormat};
use crate::error::CliError;
use crate::output::{Notes, count};
use crate::{interrupt, model};

/// Exit code of a run in which rows failed.
const ROWS_FAILED: u8 = 3;

pub(super) fn run(args: &BatchArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let Some(job) = Job::new(args, notes)? else { return Ok(ExitCode::from(interrupt::EXIT_CODE)) };
    let before = match &job.places {
        Some(places) if !args.course.dry_run => store::look(places, args.course.resume, args.course.force)?,
        _ => Before::Nothing,
    };
    let earlier = match before {
        Before::Whole => {
            notes.say(&format!(
                "{} is there, and no run was interrupted: nothing to resume",
                args.output.display()
            ));
            return Ok(ExitCode::SUCCESS);
        }
        Before::Interrupted(header) => Some(header),
        Before::Nothing => None,
    };
    let engine = engine(args, notes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("no threads can be started: {error}")))?;
    let result = runtime.block_on(job.run(&engine, earlier, notes));
    // What was handed over and is not wanted any more is not waited for.
    runtime.shutdown_background();
    result
}

/// What was asked for, checked as far as can be without a model.
struct Job<'a> {
    args: &'a BatchArgs,
    files: Vec<InputFile>,
    survey: Survey,
    requests: Requests,
    writer: Writer,
    /// None: stdout.
    places: Option<Places>,
    openai: bool,
}

impl<'a> Job<'a> {
    /// Reads the inputs once; None if Ctrl-C ended it.
    fn new(args: &'a BatchArgs, notes: Notes) -> Result<Option<Self>, CliError> {
        let course = &args.course;
        let places = (args.output != Path::new("-")).then(|| Places::new(&args.output));
        if places.is_none() && (course.resume || course.json && !course.dry_run) {
            let flag = if course.resume { "--resume" } else { "--json" };
            return Err(
                CliError::usage(format!("{flag} needs an output file")).hint("name one with --output")
            );
        }
        let format = output::format_of(&args.output, args.form.output_format)?;
        #[cfg(not(feature = "parquet"))]
        if format == crate::args::OutputFormat::Parquet {
            return Err(input::no_parquet(&args.output.display().to_string()));
        }
        if format == crate::args::OutputFormat::Parquet && places.is_none() {
            return Err(
                CliError::usage("a Parquet file cannot go to stdout").hint("name a file with --output")
            );
        }
        let requests = Requests::new(args)?;
        let own = places.iter().flat_map(|p| [p.output.clone(), p.part.clone(), p.journal.clone()]);
        let own: Vec<_> = own.collect();
        let files = input::find(&args.inputs, args.form.input_format, !args.form.no_recursive, &own)?;
        let openai = files.iter().any(|file| file.format == InputFormat::Openai);
        if let Some(other) = files.iter().find(|file| openai && file.format != InputFormat::Openai) {
            let message = format!("{} is no file of OpenAI's batch API, but other inputs are", other.name);
            return Err(CliError::usage(message).hint("process them by themselves"));
        }
        let listening = interrupt::listen();
        let Some(survey) = survey::survey(&files, args.form.mode, course.limit, notes)? else {
            return Ok(None);
        };
        drop(listening);
        requests.check(&survey.fields)?;
        let writer = Writer::new(format, openai, args.form.timings, &survey.fields)?;
        Ok(Some(Self { args, files, survey, requests, writer, places, openai }))
    }

    async fn run(
        mut self,
        engine: &InferenceEngine,
        earlier: Option<Value>,
        notes: Notes,
    ) -> Result<ExitCode, CliError> {
        let (args, course) = (self.args, &self.args.course);
        let of_earlier = |name: &str| earlier.as_ref().and_then(|header| header[name].as_u64());
        let seed = args.sampling.seed.or(of_earlier("seed")).unwrap_or_else(random_seed);
        let created = of_earlier("created").unwrap_or_else(now);
        let settings = self.settings();
        let rows = Rows::new(std::mem::take(&mut self.files), args.form.mode, course.limit);
        let work = if self.openai {
            Work::Answers(Answers::new(engine, WINDOW, seed, created, args.form.timings)?)
        } else {
            self.requests.begin(args, engine, seed)?;
            Work::Texts(Box::new(self.requests))
        };
        let _listening = interrupt::listen();
        if course.dry_run {
            let sample = course.parallel.saturating_mul(2);
            let total = self.survey.rows;
            return match estimate::estimate(engine, &work, rows, total, sample, notes).await? {
                None => Ok(ExitCode::from(interrupt::EXIT_CODE)),
                Some(estimate) => estimate.print(course.json).map(|()| ExitCode::SUCCESS),
            };
        }
        let header = header(&self.survey.inputs, &settings, &facts(engine), seed, created);
        let (mut store, mark) = match &self.places {
            None => (Store::stdout(), Mark::default()),
            Some(places) => Store::file(places.clone(), &header, course.resume)?,
        };
        let mut summary = Summary { args, seed, begun: Instant::now(), before: mark.clone() };
        if mark.complete {
            store.finish(&self.writer)?;
            return summary.whole(&mark, notes);
        }
        if mark.totals.rows > 0 {
            notes.say(&format!("{} rows are done; going on", count(mark.totals.rows)));
        }
        if store.is_empty() {
            let title = args
                .output
                .file_name()
                .map_or_else(|| "stdout".to_owned(), |name| name.to_string_lossy().into_owned());
            store.write(&self.writer.begin(&title, &engine.model().name))?;
        }
        summary.begun = Instant::now();
        let mut run =
            Run::new(engine, work, (&self.writer, &mut store), &mark, course.fail_fast, self.survey.rows);
        let ended = run.run(rows, notes).await?;
        let done = Mark { totals: run.totals, ..mark };
        match ended {
            Ended::Whole => {
                store.finish(&self.writer)?;
                summary.whole(&done, notes)
            }
            Ended::Interrupted => summary.interrupted(&done, self.survey.rows, notes),
            Ended::Failed(message) => Err(CliError::failed(message).hint(match self.places {
                Some(_) => "its error is in the output; the same command with --resume and without --fail-fast goes on",
                None => "without --fail-fast the others go on",
            })),
        }
    }

    /// What decides about the bytes of the output, beside inputs and model.
    fn settings(&self) -> Value {
        let mut settings = self.requests.settings(self.args);
        let path =
            |path: &Option<std::path::PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
        settings["chat_template"] = path(&self.args.model.format.chat_template);
        settings["tokenizer"] = path(&self.args.model.format.tokenizer);
        settings["lm_head"] = json!(format!("{:?}", self.args.model.storage.lm_head));
        settings["mode"] = json!(self.args.form.mode.name());
        settings["format"] = json!(self.writer.format.name());
        settings["openai"] = json!(self.openai);
        settings["timings"] = json!(self.args.form.timings);
        settings["limit"] = json!(self.args.course.limit);
        settings
    }
}

/// Loads the model for many rows at a time.
fn engine(args: &BatchArgs, notes: Notes) -> Result<InferenceEngine, CliError> {
    let scheduler = SchedulerOptions {
        max_running: args.course.parallel,
        queue_capacity: WINDOW,
        ..SchedulerOptions::default()
    };
    let form: Option<Form> = args.model.storage.weight_form.into();
    model::engine_with(&args.model, notes, |builder| {
        // What is measured at loading is one row at a time; two bits unpack faster for several.
        builder.scheduler(scheduler).weight_form(form.or(Some(Form::TwoBit)))
    })
}

/// A seed that nobody knows beforehand, small enough for numbers of JSON.
fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    match ring::rand::SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes) >> 11,
        // Without randomness the clock must do.
        Err(_) => now(),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// What is said at the end.
struct Summary<'a> {
    args: &'a BatchArgs,
    seed: u64,
    begun: Instant,
    /// How far the run was when it began.
    before: Mark,
}

impl Summary<'_> {
    /// All rows are done.
    fn whole(&self, done: &Mark, notes: Notes) -> Result<ExitCode, CliError> {
        let (totals, before) = (done.totals, self.before.totals);
        let seconds = self.begun.elapsed().as_secs_f64();
        let (rows, generated) =
            (totals.rows - before.rows, totals.generated_tokens - before.generated_tokens);
        let rate = generated as f64 / seconds.max(1e-9);
        notes.say(&format!(
            "{} rows in {}{}: {} failed; {} prompt tokens, {} generated, {rate:.0} tok/s; seed {}",
            count(rows),
            span(seconds),
            if before.rows > 0 { format!(", {} before", count(before.rows)) } else { String::new() },
            count(totals.failed),
            count(totals.prompt_tokens),
            count(totals.generated_tokens),
            self.seed,
        ));
        if self.args.course.json {
            crate::output::json(&json!({
                "rows": totals.rows,
                "failed": totals.failed,
                "resumed_rows": before.rows,
                "prompt_tokens": totals.prompt_tokens,
                "generated_tokens": totals.generated_tokens,
                "seconds": seconds,
                "tokens_per_second": rate,
                "seed": self.seed,
            }))?;
        }
        Ok(if totals.failed > 0 { ExitCode::from(ROWS_FAILED) } else { ExitCode::SUCCESS })
    }

    /// Ctrl-C ended it.
    fn interrupted(&self, done: &Mark, rows: Option<u64>, notes: Notes) -> Result<ExitCode, CliError> {
        let of = rows.map_or_else(String::new, |rows| format!(" of {}", count(rows)));
        let mut words = format!("interrupted when {}{of} rows were done", count(done.totals.rows));
        if self.args.output != Path::new("-") {
            words += &format!("; to go on: {}", resume_command(std::env::args()));
        }
        notes.say(&words);
        Ok(ExitCode::from(interrupt::EXIT_CODE))
    }
}
