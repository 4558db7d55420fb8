//! Rows of JSON Lines.

use serde_json::Value;

use super::lines::{Line, Lines};
use super::{Content, Entries, Entry};

/// The rows of a file; blank lines are none.
pub(super) fn entries(lines: Lines) -> Entries {
    Box::new(lines.filter_map(|line| line.map(entry).transpose()))
}

fn entry(Line { number, text }: Line) -> Option<Entry> {
    if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
        return None;
    }
    Some(Entry { place: Some(number), content: text.and_then(|text| content(&text)) })
}

fn content(text: &str) -> Result<Content, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Content::Object(fields)),
        Ok(Value::String(text)) => Ok(Content::Text(text)),
        Ok(_) => Err("a line must be a JSON object or a string".to_owned()),
        // Positions are within the line, which the row's source names.
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}
