//! [`Mark`]: how far a run is, and the header that says which run it is, as they stand in its journal.

use serde_json::{Value, json};

use super::outcome::Totals;
use crate::commands::resume::Note;

/// The form of the journal; another form gets another number.
const VERSION: u64 = 1;

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// What became of the rows so far.
    pub(super) totals: Totals,
    /// Bytes of results.
    pub(super) bytes: u64,
    /// A hash of the rows that were read for them.
    pub(super) rows_hash: String,
    /// Whether the results are whole, end included.
    pub(super) complete: bool,
}

impl Note for Mark {
    fn to_json(&self) -> Value {
        let Self { totals, bytes, rows_hash, complete } = self;
        json!({
            "rows": totals.rows,
            "failed": totals.failed,
            "prompt_tokens": totals.prompt_tokens,
            "generated_tokens": totals.generated_tokens,
            "bytes": bytes,
            "rows_hash": rows_hash,
            "complete": complete,
        })
    }

    fn from_json(line: &Value) -> Option<Self> {
        let count = |name: &str| line[name].as_u64();
        let totals = Totals {
            rows: count("rows")?,
            failed: count("failed")?,
            prompt_tokens: count("prompt_tokens")?,
            generated_tokens: count("generated_tokens")?,
        };
        let rows_hash = line["rows_hash"].as_str()?.to_owned();
        Some(Self { totals, bytes: count("bytes")?, rows_hash, complete: line["complete"].as_bool()? })
    }
}

/// What makes a run the same run: the header of its journal.
pub(super) fn header(inputs: &Value, settings: &Value, model: &Value, seed: u64, created: u64) -> Value {
    json!({
        "bitnet_batch": VERSION,
        "version": env!("CARGO_PKG_VERSION"),
        "inputs": inputs,
        "model": model,
        "settings": settings,
        "seed": seed,
        "created": created,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let totals = Totals { rows: 9, failed: 1, prompt_tokens: 2, generated_tokens: 3 };
        let mark = Mark { totals, bytes: 90, rows_hash: "h9".to_owned(), complete: true };
        assert_eq!(Mark::from_json(&mark.to_json()), Some(mark));
        assert_eq!(Mark::from_json(&json!({"rows": 9})), None);
    }
}
