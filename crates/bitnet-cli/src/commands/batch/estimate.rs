//! `--dry-run`: what a run would do and how long it would take, by encoding all prompts and computing a few rows.

use std::time::{Duration, Instant};

use bitnet_inference::InferenceEngine;
use serde_json::{Value, json};

use super::input::Rows;
use super::outcome::{Outcome, Totals};
use super::run::{End, Work, span};
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes, Progress, Table, count};

/// Longest time for the sample.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a run would do.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    rows: u64,
    failing: u64,
    /// The first row that cannot be computed, and why.
    first_failure: Option<String>,
    /// Of all prompts, where they are texts.
    prompt_tokens: Option<u64>,
    longest: u64,
    sample: Sample,
}

/// What a few rows took.
#[derive(Debug, Default)]
struct Sample {
    rows: u64,
    /// Rows of it that were done in time.
    done: Totals,
    /// Tokens generated, unfinished rows included.
    tokens: u64,
    seconds: f64,
}

/// Reads all rows, and computes about `sample` of them; None if Ctrl-C ended it.
///
/// # Errors
/// If inputs cannot be read.
pub(super) async fn estimate(
    engine: &InferenceEngine,
    work: &Work,
    rows: Rows,
    total: Option<u64>,
    sample: usize,
    notes: Notes,
) -> Result<Option<Estimate>, CliError> {
    let mut found =
        Estimate { prompt_tokens: matches!(work, Work::Texts(_)).then_some(0), ..Estimate::default() };
    // Spread over the whole, as rows may be sorted by size.
    let every = (total.unwrap_or(0) / sample as u64).max(1);
    let mut chosen = Vec::new();
    let mut progress = Progress::new("encoding the prompts", notes);
    for row in rows {
        if interrupt::requested() {
            return Ok(None);
        }
        let row = row?;
        found.rows += 1;
        progress.set(found.rows, total.unwrap_or(found.rows));
        if let Work::Texts(requests) = work {
            let encoded = requests
                .prepare(&row, engine)
                .task
                .and_then(|task| engine.encode(&task.request.prompt).map_err(|error| error.to_string()));
            match encoded {
                Ok(tokens) => {
                    *found.prompt_tokens.get_or_insert(0) += tokens.len() as u64;
                    found.longest = found.longest.max(tokens.len() as u64);
                }
                Err(error) => {
                    found.failing += 1;
                    found.first_failure.get_or_insert_with(|| format!("{}: {error}", row.source()));
                    continue;
                }
            }
        }
        if found.rows.is_multiple_of(every) && chosen.len() < sample {
            chosen.push(row);
        }
    }
    progress.clear();
    let begun = Instant::now();
    let before = engine.scheduler().stats().generated_tokens_total;
    let running: Vec<(Outcome, End)> = chosen.into_iter().map(|row| work.start(engine, row)).collect();
    found.sample.rows = running.len() as u64;
    for (outcome, mut end) in running {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, end.as_mut()).await {
            Ok(end) => found.sample.done.add(&Outcome { end, ..outcome }),
            Err(_) => break,
        }
        if interrupt::requested() {
            return Ok(None);
        }
    }
    found.sample.tokens = engine.scheduler().stats().generated_tokens_total - before;
    found.sample.seconds = begun.elapsed().as_secs_f64();
    Ok(Some(found))
}

impl Estimate {
    /// Tokens of a text, by the sample; at least, if not all of it was done in time.
    fn tokens_a_row(&self) -> f64 {
        let Sample { rows, done, tokens, .. } = &self.sample;
        if *rows == 0 { 0.0 } else { (*tokens).max(done.generated_tokens) as f64 / *rows as f64 }
    }

    fn is_cut(&self) -> bool {
        self.sample.done.rows < self.sample.rows
    }

    /// Seconds of the whole run; at least, if the sample was cut off.
    fn seconds(&self) -> f64 {
        let computable = (self.rows - self.failing) as f64;
        if self.sample.rows == 0 { 0.0 } else { computable * self.sample.seconds / self.sample.rows as f64 }
    }

    fn rate(&self) -> f64 {
        self.sample.tokens as f64 / self.sample.seconds.max(1e-9)
    }

    /// Prints it.
    ///
    /// # Errors
    /// If nobody reads stdout any more.
    pub(super) fn print(&self, as_json: bool) -> Result<(), CliError> {
        if as_json { output::json(&self.json()) } else { output::result(&self.table().to_string()) }
    }

    fn json(&self) -> Value {
        let computable = (self.rows - self.failing) as f64;
        json!({
            "rows": self.rows,
            "failing_rows": self.failing,
            "first_failure": self.first_failure,
            "prompt_tokens": self.prompt_tokens,
            "longest_prompt": self.prompt_tokens.map(|_| self.longest),
            "generated_tokens": (self.tokens_a_row() * computable).round(),
            "tokens_per_second": self.rate(),
            "seconds": self.seconds(),
            "at_least": self.is_cut(),
            "sampled_rows": self.sample.rows,
        })
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        table.row([&"rows", &count(self.rows)]);
        if let Some(failure) = &self.first_failure {
            table.row([&"cannot be computed", &format!("{} (first: {failure})", count(self.failing))]);
        }
        let computable = self.rows - self.failing;
        if let Some(tokens) = self.prompt_tokens {
            let mean = tokens as f64 / computable.max(1) as f64;
            let words = format!("{} (mean {mean:.1}, longest {})", count(tokens), count(self.longest));
            table.row([&"prompt tokens", &words]);
        }
        let about = if self.is_cut() { "at least" } else { "about" };
        let generated = (self.tokens_a_row() * computable as f64).round() as u64;
        let each = self.tokens_a_row();
        table.row([&"generated tokens", &format!("{about} {} ({each:.1} a row)", count(generated))]);
        table.row([&"speed", &format!("{:.0} tok/s generated", self.rate())]);
        table.row([&"time", &format!("{about} {}", span(self.seconds()))]);
        table.row([&"measured with", &format!("{} rows in {}", self.sample.rows, span(self.sample.seconds))]);
        table
    }
}
