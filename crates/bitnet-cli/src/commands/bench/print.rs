//! [`Printer`]: results as a table, JSON, lines of JSON, or comma-separated values.

use std::time::Duration;

use bitnet_core::MemorySize;
use bitnet_inference::benchmark::statistics::Summary;
use serde_json::{Map, Value};

use super::row::{Machine, Row};
use crate::args::BenchFormat;
use crate::error::CliError;
use crate::output;

/// Writes rows as they come; what cannot be written so, at the end.
#[derive(Debug)]
pub(super) struct Printer {
    format: BenchFormat,
    batch: bool,
    machine: Machine,
    rows: usize,
    widths: Vec<usize>,
}

impl Printer {
    /// `batch`: whether a table has a column for it.
    pub(super) fn new(format: BenchFormat, batch: bool, machine: Machine) -> Self {
        Self { format, batch, machine, rows: 0, widths: Vec::new() }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    pub(super) fn row(&mut self, row: &Row) -> Result<(), CliError> {
        let text = match self.format {
            BenchFormat::Md => self.table_row(row),
            BenchFormat::Json => String::new(),
            BenchFormat::Jsonl => format!("{}\n", self.object(row)),
            BenchFormat::Csv => {
                let fields = row.fields(&self.machine);
                let head = if self.rows == 0 { csv_head(&fields) } else { String::new() };
                head + &csv_line(&fields)
            }
        };
        self.rows += 1;
        if text.is_empty() { Ok(()) } else { output::result(&text) }
    }

    /// Writes what belongs at the end.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    pub(super) fn finish(&self, rows: &[Row]) -> Result<(), CliError> {
        match self.format {
            BenchFormat::Json => output::json(&rows.iter().map(|row| self.object(row)).collect()),
            BenchFormat::Md if !rows.is_empty() => output::result(&format!(
                "\nbitnet {} on {}\n",
                env!("CARGO_PKG_VERSION"),
                self.machine.line()
            )),
            _ => Ok(()),
        }
    }

    fn object(&self, row: &Row) -> Value {
        let mut fields = row.fields(&self.machine);
        fields.extend(row.samples());
        Value::Object(fields)
    }

    /// A line of the table, with its head before the first. Columns are as wide as the first row and some room needs.
    fn table_row(&mut self, row: &Row) -> String {
        let cells = cells(row);
        let shown = cells.iter().filter(|c| self.batch || c.head != "batch");
        let mut text = String::new();
        if self.rows == 0 {
            let width = |c: &Cell| console::measure_text_width(&c.text).max(c.head.len()).max(c.width);
            self.widths = shown.clone().map(width).collect();
            let (mut head, mut rule) = ("|".to_owned(), "|".to_owned());
            for (cell, &width) in shown.clone().zip(&self.widths) {
                head += &format!(" {} |", pad(cell.head, width, cell.right));
                let end = if cell.right { ":" } else { "-" };
                rule += &format!(" {}{end} |", "-".repeat(width - 1));
            }
            text = format!("{head}\n{rule}\n");
        }
        text.push('|');
        for (cell, &width) in shown.zip(&self.widths) {
            text += &format!(" {} |", pad(&cell.text, width, cell.right));
        }
        text.push('\n');
        text
    }
}

fn pad(text: &str, width: usize, right: bool) -> String {
    let side = if right { console::Alignment::Right } else { console::Alignment::Left };
    console::pad_str(text, width, side, None).into_owned()
}

/// A column of the table with its value in one row.
pub(super) struct Cell {
    pub(super) head: &'static str,
    pub(super) text: String,
    /// Numbers stand on the right.
    pub(super) right: bool,
    /// Room that other rows may need.
    width: usize,
}

/// The columns of the table.
pub(super) fn cells(row: &Row) -> Vec<Cell> {
    let cell = |head, width, right, text: String| Cell { head, text, right, width };
    let none = || "-".to_owned();
    let r = &row.result;
    let (limits, latency) = (r.limits(), r.latency());
    let ms = |f: fn(&bitnet_inference::benchmark::statistics::Latency) -> Duration| {
        latency.as_ref().map_or_else(none, |l| figure(f(l).as_secs_f64() * 1e3))
    };
    let of_limit = r.of_limit().map(|(part, bound)| format!("{:.1} % {}", part.mean * 100.0, bound.name()));
    vec![
        cell("model", 0, false, table_text(&row.model)),
        cell("size", 0, true, row.weights.to_string()),
        cell("params", 0, true, parameters(row.parameters)),
        cell("backend", 0, false, format!("{} {}", row.backend, row.kernels)),
        cell("threads", 0, true, row.threads.to_string()),
        cell("batch", 0, true, row.test().sequences.to_string()),
        cell("test", 14, true, row.test().name()),
        cell("t/s", 16, true, plus_minus(&r.tokens_per_second())),
        cell("of limit", 14, true, of_limit.unwrap_or_else(none)),
        cell("GB/s", 5, true, limits.map_or_else(none, |l| figure(l.read_bytes / 1e9))),
        cell("GMAC/s", 5, true, limits.and_then(|l| l.macs).map_or_else(none, |m| figure(m / 1e9))),
        cell("first token ms", 0, true, r.first_token().map_or_else(none, |f| figure(f.mean * 1e3))),
        cell("P50 ms", 5, true, ms(|l| l.p50)),
        cell("P95 ms", 5, true, ms(|l| l.p95)),
        cell("P99 ms", 5, true, ms(|l| l.p99)),
        cell("peak", 10, true, row.peak.map_or_else(none, |p: MemorySize| p.to_string())),
    ]
}

/// Text that does not end a column.
fn table_text(text: &str) -> String {
    text.chars().map(|c| if c == '|' || c.is_control() { '/' } else { c }).collect()
}

/// Mean and spread.
pub(super) fn plus_minus(s: &Summary) -> String {
    let digits = if s.mean < 1000.0 { 2 } else { 0 };
    format!("{:.digits$} ± {:.digits$}", s.mean, s.spread)
}

/// A number with as many digits as matter.
pub(super) fn figure(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 1000.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A number of parameters, in thousands, millions or billions.
pub(super) fn parameters(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2} K", n / 1e3),
    }
}

/// The names of the fields.
pub(super) fn csv_head(fields: &Map<String, Value>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.join(",") + "\n"
}

/// Their values; text that needs it in quotation marks, nothing where there is no value.
pub(super) fn csv_line(fields: &Map<String, Value>) -> String {
    let value = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.values().map(value).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use bitnet_inference::benchmark::BenchmarkTest;
    use serde_json::json;

    use super::super::row::tests::{machine, row};
    use super::*;

    #[test]
    fn a_table_has_a_head_and_columns_of_one_width() {
        let mut printer = Printer::new(BenchFormat::Md, true, machine());
        let first = printer.table_row(&row(BenchmarkTest::prompt(512), 1, 5.0));
        printer.rows = 1;
        let tg = BenchmarkTest { depth: 1024, sequences: 8, ..BenchmarkTest::generate(128) };
        let second = printer.table_row(&row(tg, 2, 0.5));
        let lines: Vec<&str> = first.lines().chain(second.lines()).collect();
        assert_eq!(lines.len(), 4);
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{lines:#?}");
        let columns = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        let (head, values) = (columns(lines[0]), columns(lines[3]));
        let of = |name: &str| &values[head.iter().position(|h| h == name).unwrap()];
        assert_eq!((of("test").as_str(), of("batch").as_str()), ("tg128 @ d1024", "8"));
        assert_eq!(of("P50 ms"), "52.5");
        assert_eq!(of("GB/s"), "60.0");
        assert_eq!(of("first token ms"), "-");
        let narrow =
            Printer::new(BenchFormat::Md, false, machine()).table_row(&row(BenchmarkTest::prompt(8), 1, 1.0));
        assert!(!narrow.contains("batch"));
    }

    #[test]
    fn csv_has_as_many_values_as_names() {
        let fields = row(BenchmarkTest::generate(4), 1, 1.0).fields(&machine());
        assert_eq!(csv_head(&fields).split(',').count(), fields.len());
        assert!(csv_line(&fields).contains(",\"a <model>, \"\"quoted\"\" & more\","));
        let Value::Object(odd) = json!({"a": null, "b": 1.5, "c": "x,y", "d": true}) else { panic!() };
        assert_eq!(csv_line(&odd), ",1.5,\"x,y\",true\n");
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [figure(0.1234), figure(1.239), figure(23.45), figure(1234.5)],
            ["0.123", "1.24", "23.4", "1234"]
        );
        assert_eq!(
            [parameters(2_412_820_480), parameters(35_682_816), parameters(900)],
            ["2.41 B", "35.68 M", "0.90 K"]
        );
        assert_eq!(table_text("a|b\n"), "a/b/");
    }
}
