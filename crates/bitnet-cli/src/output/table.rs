//! [`Table`]: aligned columns of text, and what stands in them.

use std::time::{Duration, SystemTime};

/// Rows of columns; every column is as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&dyn std::fmt::Display; N]) {
        self.cells(cells.iter().map(ToString::to_string).collect());
    }

    /// Adds a row of any length.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(c));
            cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &console::pad_str(cell, width + 2, console::Alignment::Left, None);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with its thousands set apart: `1_234_567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How long ago something was: `3 days ago`.
pub(crate) fn ago(time: Option<SystemTime>) -> String {
    let Some(time) = time else { return "unknown".to_owned() };
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    if age.as_secs() < 60 { "just now".to_owned() } else { format!("{} ago", lasting(age)) }
}

/// How long something has been: `3 days`.
pub(crate) fn lasting(time: Duration) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let seconds = time.as_secs();
    let (length, unit) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or(units[3]);
    let n = seconds / length;
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row([&"a", &1]);
        table.row([&"long", &22]);
        assert_eq!(table.to_string(), "a     1\nlong  22\n");
    }

    #[test]
    fn ages() {
        let before = |seconds| ago(SystemTime::now().checked_sub(Duration::from_secs(seconds)));
        assert_eq!(before(5), "just now");
        assert_eq!(before(3700), "1 hour ago");
        assert_eq!(before(3 * 86_400 + 5), "3 days ago");
        assert_eq!(ago(None), "unknown");
    }

    #[test]
    fn thousands() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (n, text) in cases {
            assert_eq!(count(n), text);
        }
    }
}
