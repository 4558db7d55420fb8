//! Forms of results. Each is a beginning, a piece for each row, and an end, so that it can be written as rows come and cut off
//! behind any row.

mod html;
mod json;
mod markdown;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::path::Path;

use serde_json::Value;

use super::outcome::{Done, Outcome, Text, Totals};
use super::survey::Fields;
use crate::args::OutputFormat;
use crate::commands::resume::failed;
use crate::error::CliError;

/// Writes results in one form.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) format: OutputFormat,
    /// Whether the rows are requests of OpenAI's batch API.
    pub(super) openai: bool,
    pub(super) timings: bool,
    /// Columns of tables.
    columns: Vec<table::Column>,
}

impl Writer {
    /// A writer of rows with these fields.
    ///
    /// # Errors
    /// If answers of an API are to be anything but JSON lines.
    pub(super) fn new(
        format: OutputFormat,
        openai: bool,
        timings: bool,
        fields: &Fields,
    ) -> Result<Self, CliError> {
        if openai && format != OutputFormat::Jsonl {
            let message =
                format!("answers to files of OpenAI's batch API are JSON lines, not {}", format.name());
            return Err(CliError::usage(message).hint("let the output end in .jsonl"));
        }
        Ok(Self { format, openai, timings, columns: table::columns(fields, timings) })
    }

    /// What stands before the first row. `title` is the name of the output.
    pub(super) fn begin(&self, title: &str, model: &str) -> String {
        match self.format {
            OutputFormat::Csv => table::head(&self.columns, b','),
            OutputFormat::Tsv => table::head(&self.columns, b'\t'),
            OutputFormat::Markdown => markdown::begin(model),
            OutputFormat::Html => html::begin(title, model),
            OutputFormat::Jsonl | OutputFormat::Text | OutputFormat::Parquet => String::new(),
        }
    }

    /// A row.
    pub(super) fn row(&self, outcome: &Outcome) -> String {
        match self.format {
            OutputFormat::Jsonl if self.openai => json::answer(outcome),
            // Parquet files cannot be continued: they are made of lines at the end.
            OutputFormat::Jsonl | OutputFormat::Parquet => json::line(outcome, self.timings),
            OutputFormat::Csv => table::row(&self.columns, outcome, b','),
            OutputFormat::Tsv => table::row(&self.columns, outcome, b'\t'),
            OutputFormat::Markdown => markdown::row(outcome, self.timings),
            OutputFormat::Html => html::row(outcome, self.timings),
            OutputFormat::Text => match &outcome.end {
                Ok(Done::Text(text)) => format!("{}\n", text.text),
                // An empty line, so that lines stay where they are.
                _ => "\n".to_owned(),
            },
        }
    }

    /// What stands behind the last row.
    pub(super) fn end(&self, totals: &Totals) -> String {
        match self.format {
            OutputFormat::Html => html::end(totals),
            _ => String::new(),
        }
    }

    /// Makes the output of what was written row by row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(&self, written: &Path, output: &Path) -> Result<(), CliError> {
        #[cfg(feature = "parquet")]
        if self.format == OutputFormat::Parquet {
            return parquet::write(written, output, &self.columns);
        }
        std::fs::rename(written, output).map_err(|error| failed(output, &error))
    }
}

/// The form of an output by its ending.
///
/// # Errors
/// If the ending says nothing.
pub(super) fn format_of(path: &Path, asked: Option<OutputFormat>) -> Result<OutputFormat, CliError> {
    if let Some(format) = asked {
        return Ok(format);
    }
    if path == Path::new("-") {
        return Ok(OutputFormat::Jsonl);
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "jsonl" | "ndjson" => Ok(OutputFormat::Jsonl),
        "csv" => Ok(OutputFormat::Csv),
        "tsv" | "tab" => Ok(OutputFormat::Tsv),
        "md" | "markdown" => Ok(OutputFormat::Markdown),
        "html" | "htm" => Ok(OutputFormat::Html),
        "txt" | "text" => Ok(OutputFormat::Text),
        "parquet" => Ok(OutputFormat::Parquet),
        _ => Err(CliError::usage(format!(
            "{}: its ending does not say in which form to write",
            path.display()
        ))
        .hint("let it end in .jsonl, .csv, .tsv, .md, .html, .txt or .parquet, or say --output-format")),
    }
}

/// The line of facts below a text, for people.
fn facts(text: &Text, timings: bool) -> String {
    let mut facts = format!(
        "{}, {} prompt tokens, {} generated, seed {}",
        text.finish.name(),
        text.prompt_tokens,
        text.generated_tokens,
        text.seed
    );
    if timings {
        for (name, ms) in text.timings.told() {
            facts += &format!(", {} {ms} ms", name.trim_end_matches("_ms"));
        }
    }
    facts
}

/// The name of a row for people: its number and what it calls itself.
fn heading(outcome: &Outcome) -> String {
    match &outcome.id {
        None => outcome.row.to_string(),
        Some(Value::String(id)) => format!("{}: {id}", outcome.row),
        Some(id) => format!("{}: {id}", outcome.row),
    }
}
