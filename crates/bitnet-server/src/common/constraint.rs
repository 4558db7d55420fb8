//! [`ConstraintFields`]: what a text must be, in the spellings of llama-server and vLLM.

use bitnet_inference::Constraint;
use serde_json::{Map, Value};

use super::fields::{self, FieldError, Found, find};

/// The constraint that a body asks for, if any. At most one of `grammar`, `json_schema`, `guided_json`, `guided_regex`,
/// `guided_choice` and `guided_grammar` may be there.
///
/// # Errors
/// [`FieldError`] for a field of a wrong type, or for two that exclude each other.
pub(crate) fn constraint(map: &Map<String, Value>) -> Result<Option<Constraint>, FieldError> {
    let mut chosen = None;
    for (name, read) in READERS {
        let Some(found) = find(map, &[name]) else { continue };
        let Some(constraint) = read(found)? else { continue };
        if chosen.is_some() {
            return Err(FieldError::new(name, found.1, "the only constraint of a request"));
        }
        chosen = Some(constraint);
    }
    Ok(chosen)
}

type Reader = fn(Found<'_>) -> Result<Option<Constraint>, FieldError>;

const READERS: [(&str, Reader); 6] = [
    ("grammar", grammar),
    ("json_schema", schema),
    ("guided_json", schema),
    ("guided_regex", |found| Ok(not_empty(fields::text(found)?).map(Constraint::Regex))),
    ("guided_choice", |found| fields::texts(found).map(|texts| Some(Constraint::Choice(texts)))),
    ("guided_grammar", grammar),
];

fn not_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// An empty grammar is none, as in llama-server.
fn grammar(found: Found<'_>) -> Result<Option<Constraint>, FieldError> {
    Ok(not_empty(fields::text(found)?).map(Constraint::grammar))
}

/// A schema as a value or as text.
pub(crate) fn schema(found: Found<'_>) -> Result<Option<Constraint>, FieldError> {
    let refused = || FieldError::new(found.0, found.1, "a JSON schema");
    match found.1 {
        Value::Object(_) | Value::Bool(_) => Ok(Some(Constraint::JsonSchema(found.1.clone()))),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => {
            let schema = serde_json::from_str(text).map_err(|_| refused())?;
            Ok(Some(Constraint::JsonSchema(schema)))
        }
        _ => Err(refused()),
    }
}

/// Ollama's `format`: `"json"`, a schema, or `""` for none.
///
/// # Errors
/// [`FieldError`] for anything else.
pub(crate) fn ollama_format(found: Found<'_>) -> Result<Option<Constraint>, FieldError> {
    match found.1 {
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) if text == "json" => Ok(Some(Constraint::JsonObject)),
        Value::Object(_) => Ok(Some(Constraint::JsonSchema(found.1.clone()))),
        _ => Err(FieldError::new(found.0, found.1, "\"json\" or a JSON schema")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Option<Constraint>, String> {
        let Value::Object(map) = body else { unreachable!("cases are objects") };
        constraint(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn constraints_of_all_spellings() {
        let schema = json!({"type": "object"});
        let same = Some(Constraint::JsonSchema(schema.clone()));
        for (body, expected) in [
            (json!({}), None),
            (json!({"grammar": "", "json_schema": null}), None),
            (json!({"grammar": "root ::= \"a\""}), Some(Constraint::Gbnf("root ::= \"a\"".to_owned()))),
            (json!({"json_schema": schema}), same.clone()),
            (json!({"guided_json": schema.to_string()}), same),
            (json!({"guided_regex": "a+"}), Some(Constraint::Regex("a+".to_owned()))),
            (json!({"guided_choice": ["a", "b"]}), Some(Constraint::Choice(vec!["a".into(), "b".into()]))),
        ] {
            assert_eq!(read(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_constraint_is_named() {
        for (body, field) in [
            (json!({"grammar": 1}), "grammar = 1"),
            (json!({"json_schema": [1]}), "json_schema = [1]"),
            (json!({"guided_json": "{"}), "guided_json = "),
            (json!({"grammar": "root ::= \"a\"", "json_schema": {}}), "json_schema = {}"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert!(error.starts_with(field), "{body}: {error}");
        }
    }

    #[test]
    fn formats_of_ollama() {
        let read = |value: Value| ollama_format(("format", &value)).map_err(|error| error.to_string());
        assert_eq!(read(json!("")), Ok(None));
        assert_eq!(read(json!("json")), Ok(Some(Constraint::JsonObject)));
        assert_eq!(read(json!({})), Ok(Some(Constraint::JsonSchema(json!({})))));
        assert!(read(json!("xml")).unwrap_err().contains("format = \"xml\""));
        assert!(read(json!(["json"])).is_err());
    }
}
