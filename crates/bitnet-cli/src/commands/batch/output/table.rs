//! CSV and TSV.

use serde_json::{Value, json};

use crate::commands::batch::outcome::{Done, Outcome, Text, Timings};
use crate::commands::batch::survey::Fields;

/// Where the values of a column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// A column of the inputs.
    Field(String),
    /// What the row calls itself.
    Id,
    /// All fields of the row, as JSON.
    Input,
    /// A member of the result.
    Result(&'static str),
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Column {
    pub(in super::super) name: String,
    pub(in super::super) source: Source,
}

/// Members of a result, behind those of the input.
const RESULTS: [&str; 7] =
    ["prompt", "text", "finish_reason", "prompt_tokens", "generated_tokens", "seed", "error"];

/// The columns of rows with these fields: where it stands, its own, and the results. An input's column that is called as one of
/// the results gets a name with `input_` before it.
pub(super) fn columns(fields: &Fields, timings: bool) -> Vec<Column> {
    let mut results: Vec<&'static str> = RESULTS.to_vec();
    if timings {
        results.extend(Timings::default().told().map(|(name, _)| name));
    }
    let of_result = |name: &'static str| Column { name: name.to_owned(), source: Source::Result(name) };
    let mut columns = vec![of_result("row"), of_result("source")];
    match fields {
        Fields::None => {}
        Fields::Any => {
            columns.push(Column { name: "id".to_owned(), source: Source::Id });
            columns.push(Column { name: "input".to_owned(), source: Source::Input });
        }
        Fields::Columns(own) => {
            let taken = |name: &str| results.contains(&name) || ["row", "source"].contains(&name);
            for field in own {
                let mut name = field.clone();
                while taken(&name) || name != *field && own.contains(&name) {
                    name = format!("input_{name}");
                }
                columns.push(Column { name, source: Source::Field(field.clone()) });
            }
        }
    }
    columns.extend(results.into_iter().map(of_result));
    columns
}

/// The names of the columns.
pub(super) fn head(columns: &[Column], delimiter: u8) -> String {
    record(columns.iter().map(|column| column.name.clone()), delimiter)
}

/// A row.
pub(super) fn row(columns: &[Column], outcome: &Outcome, delimiter: u8) -> String {
    record(columns.iter().map(|column| written(&value(column, outcome))), delimiter)
}

/// The value of a column in a row; null where there is none.
fn value(column: &Column, outcome: &Outcome) -> Value {
    let text = match &outcome.end {
        Ok(Done::Text(text)) => Some(text),
        _ => None,
    };
    match &column.source {
        Source::Field(name) => json!(outcome.input.as_ref().and_then(|input| input.get(name))),
        Source::Id => json!(outcome.id),
        Source::Input => json!(outcome.input),
        Source::Result("row") => json!(outcome.row),
        Source::Result("source") => json!(outcome.source),
        Source::Result("prompt") => json!(outcome.prompt),
        Source::Result("error") => json!(outcome.error()),
        Source::Result(name) => json!(text.map(|text| of_text(name, text))),
    }
}

fn of_text(name: &str, text: &Text) -> Value {
    match name {
        "text" => json!(text.text),
        "finish_reason" => json!(text.finish.name()),
        "prompt_tokens" => json!(text.prompt_tokens),
        "generated_tokens" => json!(text.generated_tokens),
        "seed" => json!(text.seed),
        name => json!(text.timings.told().into_iter().find(|(told, _)| *told == name).map(|(_, ms)| ms)),
    }
}

/// A value in a table: texts as they are, nothing for null, the rest as JSON.
pub(super) fn written(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn record(values: impl Iterator<Item = String>, delimiter: u8) -> String {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(values.map(String::into_bytes));
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
