//! Changes to a schema that keep its meaning.

use serde_json::Value;

/// The key under which targets of references lie that the parser cannot name where they are.
const MOVED: &str = "x-moved";

/// One change, at the place that a JSON pointer names.
#[derive(Debug)]
pub(super) enum Edit {
    /// Leave out a keyword.
    Drop {
        /// The schema.
        at: String,
        /// The keyword.
        keyword: &'static str,
    },
    /// Let a reference point to a copy of its target that has a simple name.
    Move {
        /// The schema with the reference.
        at: String,
        /// Pointer of the target.
        target: String,
    },
    /// Put the target of a reference in its place.
    Inline {
        /// The schema that is nothing but a reference.
        at: String,
        /// Pointer of the target.
        target: String,
    },
}

/// Makes the changes: first those that stay in their place, so that copies show them.
pub(super) fn apply(mut schema: Value, edits: Vec<Edit>) -> Value {
    let mut copies = Vec::new();
    for edit in edits {
        match edit {
            Edit::Drop { at, keyword } => {
                if let Some(Value::Object(map)) = schema.pointer_mut(&at) {
                    map.shift_remove(keyword);
                }
            }
            copy => copies.push(copy),
        }
    }
    let (moves, inlines): (Vec<_>, Vec<_>) =
        copies.into_iter().partition(|edit| matches!(edit, Edit::Move { .. }));
    let mut moved: Vec<String> = Vec::new();
    for edit in moves {
        let Edit::Move { at, target } = edit else { continue };
        let place = moved.iter().position(|known| *known == target).unwrap_or_else(|| {
            moved.push(target);
            moved.len() - 1
        });
        if let Some(Value::Object(map)) = schema.pointer_mut(&at) {
            map.insert("$ref".to_owned(), Value::String(format!("#/{MOVED}/{place}")));
        }
    }
    for edit in inlines {
        let Edit::Inline { at, target } = edit else { continue };
        if let Some(copy) = schema.pointer(&target).cloned()
            && let Some(place) = schema.pointer_mut(&at)
        {
            *place = copy;
        }
    }
    let copies: Vec<Value> =
        moved.iter().map(|target| schema.pointer(target).cloned().unwrap_or(Value::Bool(false))).collect();
    if let Value::Object(map) = &mut schema
        && !copies.is_empty()
    {
        map.insert(MOVED.to_owned(), Value::Array(copies));
    }
    schema
}
