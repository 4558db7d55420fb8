//! The run itself: rows are read ahead, computed together, and written in their order.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bitnet_inference::{InferenceEngine, SubmitOptions};
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, channel};

use super::input::{Content, Row, Rows};
use super::mark::Mark;
use super::openai::Answers;
use super::outcome::{Done, Outcome, Text, Totals};
use super::output::Writer;
use super::request::{Prepared, Requests, Task};
use super::store::Store;
use crate::commands::resume::hex;
use crate::error::CliError;
use crate::interrupt;
use crate::output::{Notes, Progress, count};

/// Most rows that are read but not written: while one takes long, so many others go on behind it.
pub(super) const WINDOW: usize = 1024;
/// Most bytes of them.
const WINDOW_BYTES: usize = 64 << 20;
/// How often to look for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// How a row will end.
pub(super) type End = Pin<Box<dyn Future<Output = Result<Done, String>>>>;

/// How rows are computed.
#[derive(Debug)]
pub(super) enum Work {
    /// Texts of prompts.
    Texts(Box<Requests>),
    /// Answers to requests.
    Answers(Answers),
}

impl Work {
    /// Begins to compute a row. The outcome has everything but the end.
    pub(super) fn start(&self, engine: &InferenceEngine, row: Row) -> (Outcome, End) {
        let (number, source) = (row.number, row.source());
        let outcome =
            |id, input, prompt| Outcome { row: number, source, id, input, prompt, end: Err(String::new()) };
        match self {
            Self::Answers(answers) => {
                let (id, end) = answers.start(&row);
                (outcome(id, None, None), end)
            }
            Self::Texts(requests) => {
                let Prepared { prompt, task } = requests.prepare(&row, engine);
                let (id, input) = shown_fields(row, requests.has_template());
                (outcome(id, input, prompt), text(engine, task))
            }
        }
    }
}

/// Hands a request to the engine.
fn text(engine: &InferenceEngine, task: Result<Task, String>) -> End {
    let submitted = task.and_then(|task| {
        let options = SubmitOptions { ends_only: true, ..SubmitOptions::default() };
        let stream = engine.scheduler().submit(task.request, options).map_err(|error| error.to_string())?;
        Ok((stream, task.trims))
    });
    match submitted {
        Err(error) => Box::pin(std::future::ready(Err(error))),
        Ok((stream, trims)) => Box::pin(async move {
            let mut texts = stream.finish().await.map_err(|error| error.to_string())?;
            let text = texts.pop().ok_or_else(|| "there is no text".to_owned())?;
            Ok(Done::Text(Text::new(text, trims)))
        }),
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All rows are done.
    Whole,
    /// By Ctrl-C.
    Interrupted,
    /// At a row that failed: which one, and why.
    Failed(String),
}

/// A run on its way.
pub(super) struct Run<'a> {
    pub(super) engine: &'a InferenceEngine,
    pub(super) work: Work,
    pub(super) writer: &'a Writer,
    pub(super) store: &'a mut Store,
    pub(super) totals: Totals,
    pub(super) fail_fast: bool,
    /// Rows there are, if that is known.
    pub(super) rows: Option<u64>,
    rows_hash: String,
    shown: Shown,
}

/// A row that is being computed.
struct Pending {
    outcome: Outcome,
    bytes: usize,
    /// The hash of the rows up to this one.
    rows_hash: String,
    end: End,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        engine: &'a InferenceEngine,
        work: Work,
        (writer, store): (&'a Writer, &'a mut Store),
        mark: &Mark,
        fail_fast: bool,
        rows: Option<u64>,
    ) -> Self {
        let rows_hash = mark.rows_hash.clone();
        let shown = Shown { begun: Instant::now(), before: mark.totals };
        Self { engine, work, writer, store, totals: mark.totals, fail_fast, rows, rows_hash, shown }
    }

    /// Computes all rows that are not done, and writes what is behind the last.
    ///
    /// # Errors
    /// If inputs cannot be read or results not be written; what was written stays, to resume.
    pub(super) async fn run(&mut self, rows: Rows, notes: Notes) -> Result<Ended, CliError> {
        let mut rows = read_ahead(rows)?;
        let mut progress = Progress::new("", notes);
        let ended = self.compute(&mut rows, &mut progress).await;
        progress.clear();
        let complete = matches!(ended, Ok(Ended::Whole));
        if complete {
            self.store.write(&self.writer.end(&self.totals))?;
        }
        self.store.commit(self.totals, &self.rows_hash, complete)?;
        ended
    }

    async fn compute(
        &mut self,
        rows: &mut Receiver<Result<Row, CliError>>,
        progress: &mut Progress,
    ) -> Result<Ended, CliError> {
        if self.totals.rows > 0 && !self.skip(rows).await? {
            return Ok(Ended::Interrupted);
        }
        let (mut window, mut bytes, mut open) = (VecDeque::<Pending>::new(), 0, true);
        let mut read_hash = self.rows_hash.clone();
        while open || !window.is_empty() {
            if interrupt::requested() {
                return Ok(Ended::Interrupted);
            }
            progress
                .tell(self.totals.rows, self.rows, || self.shown.words(self.engine, &self.totals, self.rows));
            self.store.commit_if_due(self.totals, &self.rows_hash)?;
            let has_room = window.len() < WINDOW && bytes < WINDOW_BYTES;
            tokio::select! {
                biased;
                row = rows.recv(), if open && has_room => match row {
                    None => open = false,
                    Some(row) => {
                        let pending = self.start(row?, &mut read_hash);
                        bytes += pending.bytes;
                        window.push_back(pending);
                    }
                },
                end = first(&mut window), if !window.is_empty() => {
                    if let Some(done) = window.pop_front() {
                        bytes -= done.bytes;
                        if let Some(ended) = self.finish(done, end)? {
                            return Ok(ended);
                        }
                    }
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Ok(Ended::Whole)
    }

    /// Passes over the rows that are done; false if Ctrl-C ended it.
    ///
    /// # Errors
    /// If they are not those that were processed.
    async fn skip(&mut self, rows: &mut Receiver<Result<Row, CliError>>) -> Result<bool, CliError> {
        let mut hash = String::new();
        for _ in 0..self.totals.rows {
            if interrupt::requested() {
                return Ok(false);
            }
            let Some(row) = rows.recv().await else { break };
            hash = hash_of(&hash, &row?).0;
        }
        if hash == self.rows_hash {
            return Ok(true);
        }
        let message = format!("the first {} rows are not those that were processed", count(self.totals.rows));
        Err(CliError::usage(message).hint("give the same inputs as before, or begin again with --force"))
    }

    /// Begins to compute a row.
    fn start(&self, row: Row, read_hash: &mut String) -> Pending {
        let (hash, bytes) = hash_of(read_hash, &row);
        read_hash.clone_from(&hash);
        let (outcome, end) = self.work.start(self.engine, row);
        Pending { outcome, bytes, rows_hash: hash, end }
    }

    /// Writes a row; says how the run ends if it does.
    fn finish(&mut self, done: Pending, end: Result<Done, String>) -> Result<Option<Ended>, CliError> {
        let outcome = Outcome { end, ..done.outcome };
        self.store.write(&self.writer.row(&outcome))?;
        self.totals.add(&outcome);
        self.rows_hash = done.rows_hash;
        let failed = outcome.error().filter(|_| self.fail_fast);
        Ok(failed
            .map(|error| Ended::Failed(format!("row {} ({}) failed: {error}", outcome.row, outcome.source))))
    }
}

/// The end of the first row.
async fn first(window: &mut VecDeque<Pending>) -> Result<Done, String> {
    match window.front_mut() {
        Some(first) => first.end.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Reads rows on a thread of its own, as stdin may wait for ever.
fn read_ahead(rows: Rows) -> Result<Receiver<Result<Row, CliError>>, CliError> {
    let (sender, receiver) = channel(64);
    let read = move || {
        for row in rows {
            let is_last = row.is_err();
            if sender.blocking_send(row).is_err() || is_last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("bitnet-rows".to_owned()).spawn(read);
    thread.map_err(|error| CliError::failed(format!("no threads can be started: {error}")))?;
    Ok(receiver)
}

/// The hash of the rows up to this one, after that of those before it; and its size.
fn hash_of(before: &str, row: &Row) -> (String, usize) {
    let content = match &row.content {
        Ok(Content::Text(text)) => json!(text),
        Ok(Content::Object(fields) | Content::Record(fields)) => json!(fields),
        Err(error) => json!([error]),
    };
    let text = format!("{before}\n{}\n{content}", row.source());
    let mut context = Context::new(&SHA256);
    context.update(text.as_bytes());
    (hex(&context.finish().as_ref()[..16]), text.len())
}

/// What results repeat of a row: what it calls itself, and its fields. The text of a row that is text is the prompt.
fn shown_fields(row: Row, has_template: bool) -> (Option<Value>, Option<Map<String, Value>>) {
    let Ok(content) = row.content else { return (None, None) };
    let fields = match content {
        Content::Object(fields) | Content::Record(fields) => fields,
        Content::Text(text) if has_template => Map::from_iter([("text".to_owned(), json!(text))]),
        Content::Text(_) => return (None, None),
    };
    let id = ["id", "custom_id"].into_iter().find_map(|name| fields.get(name)).cloned();
    (id, Some(fields))
}

/// What the progress tells.
#[derive(Debug)]
struct Shown {
    begun: Instant,
    /// What was done before.
    before: Totals,
}

impl Shown {
    fn words(&self, engine: &InferenceEngine, totals: &Totals, rows: Option<u64>) -> String {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        let of = rows.map_or_else(String::new, |rows| format!("/{}", count(rows)));
        // The engine counts what is not written yet as well.
        let rate = engine.scheduler().stats().generated_tokens_total as f64 / seconds;
        let mut words = format!("{}{of} rows, {rate:.0} tok/s", count(totals.rows));
        if totals.failed > 0 {
            words += &format!(", {} failed", count(totals.failed));
        }
        let done = totals.rows - self.before.rows;
        if let Some(rows) = rows
            && done > 0
        {
            let left = rows.saturating_sub(totals.rows) as f64 * seconds / done as f64;
            words += &format!(", {} left", span(left));
        }
        words
    }
}

/// A time for people: `45 s`, `3 min 5 s`, `2 h 4 min`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_fitting_units() {
        let cases = [(0.25, "0.2 s"), (45.4, "45 s"), (185.0, "3 min 5 s"), (7440.0, "2 h 4 min")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }
}
