//! JSON schemas, before the parser sees them.
//!
//! [`measure`] bounds size and nesting. [`prepare`] walks through everything that is reachable, names what cannot be
//! enforced with its place, and rewrites what the parser would not understand though it could be enforced: references
//! with escapes, `oneOf` over references, formats that are mere annotations. White space between the parts of a JSON
//! text is bounded, as models that may put any amount of it sometimes do nothing else.

mod edit;
mod walk;

use serde_json::{Value, json};

use super::GrammarError;
use edit::apply;
use walk::Walk;

/// Deepest nesting of a schema's JSON.
const DEEPEST: usize = 100;
/// Most values in a schema.
const MOST_VALUES: usize = 20_000;
/// Most bytes of all keys and strings of a schema.
const MOST_BYTES: usize = 512 << 10;
/// White space that may stand between the parts of a JSON text: a space, or a line end with indentation.
const WHITE_SPACE: &str = r"\x20|\r?\n{1,2}[\x20\t]{0,24}";

/// What is wrong with a schema, and where.
fn wrong(at: &str, problem: impl Into<String>) -> GrammarError {
    GrammarError::Schema { at: at.to_owned(), problem: problem.into() }
}

/// Checks size and nesting, without recursion.
pub(super) fn measure(schema: &Value) -> Result<(), GrammarError> {
    let (mut values, mut bytes) = (0_usize, 0_usize);
    let mut open = vec![(schema, 1_usize)];
    while let Some((value, depth)) = open.pop() {
        values += 1;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                bytes += map.keys().map(String::len).sum::<usize>();
                open.extend(map.values().map(|value| (value, depth + 1)));
            }
            _ => {}
        }
        for (what, found, limit) in [
            ("the nesting of the schema", depth, DEEPEST),
            ("the number of values in the schema", values, MOST_VALUES),
            ("the length of the schema's strings in bytes", bytes, MOST_BYTES),
        ] {
            if found > limit {
                return Err(GrammarError::TooLarge { what, found, limit });
            }
        }
    }
    Ok(())
}

/// The schema as the parser is to see it. It must have been [measured](measure).
pub(super) fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    let mut prepared = match schema {
        Value::Bool(true) => json!({}),
        Value::Bool(false) => return Err(wrong("", "it allows nothing")),
        Value::Object(_) => {
            let edits = Walk::over(schema)?;
            apply(schema.clone(), edits)
        }
        other => return Err(wrong("", format!("a schema is an object or a boolean, not {}", kind(other)))),
    };
    // The parser reads options of its own from here; nobody else's.
    if let Value::Object(map) = &mut prepared {
        map.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    }
    Ok(prepared)
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What a message of the parser means.
pub(super) fn explain(problem: String) -> GrammarError {
    if problem.contains("oneOf constraints are not supported") {
        return wrong(
            "",
            "a oneOf has alternatives that may both fit the same value; make them exclude each other, or use anyOf",
        );
    }
    if problem.contains("circular references with sibling keys") {
        return wrong("", format!("{problem}; put the keys beside $ref into the definition"));
    }
    wrong(
        "",
        problem
            .strip_prefix("Unsatisfiable schema: ")
            .map(|rest| format!("nothing fits it: {rest}"))
            .unwrap_or(problem),
    )
}
