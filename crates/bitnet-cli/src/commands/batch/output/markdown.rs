//! Markdown: a section for each row.

use crate::commands::batch::outcome::{Done, Outcome};

use super::{facts, heading};

/// The head of the document.
pub(super) fn begin(model: &str) -> String {
    format!("# Texts of {model}\n")
}

/// A row: its prompt quoted, its text as it is (models write Markdown), what it took.
pub(super) fn row(outcome: &Outcome, timings: bool) -> String {
    let mut out = format!("\n## {}\n\n{}\n", one_line(&heading(outcome)), code(&outcome.source));
    if let Some(prompt) = &outcome.prompt {
        out.push('\n');
        for line in prompt.lines() {
            out += if line.is_empty() { ">" } else { "> " };
            out += line;
            out.push('\n');
        }
    }
    match &outcome.end {
        Ok(Done::Text(text)) => {
            out += &format!(
                "\n{}\n\n*{}*\n",
                text.text.trim_matches('\n'),
                facts(text, timings).replace('_', "\\_")
            );
        }
        _ => out += &format!("\n**failed:** {}\n", one_line(&outcome.error().unwrap_or_default())),
    }
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text between as many backquotes as it needs.
fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    format!("{fence}{}{fence}", one_line(text))
}
