//! The form that an answer must have: `response_format` of chat completions, `text.format` of responses.

use bitnet_inference::Constraint;
use serde_json::Value;

use crate::error::ApiError;

/// The constraint of a format at `field`: `{"type": "text" | "json_object" | "json_schema", ..}`. A schema lies in
/// `json_schema.schema`, in `schema`, or (as llama-server has it) beside `json_object`.
///
/// # Errors
/// 400 naming what cannot be.
pub(super) fn constraint(field: &str, format: &Value) -> Result<Option<Constraint>, ApiError> {
    let refused = |inner: &str, what: &str| {
        let param = format!("{field}{inner}");
        Err(ApiError::bad_param(param.as_str(), format!("{param} {what}")))
    };
    let Some(object) = format.as_object() else { return refused("", "must be an object with \"type\"") };
    match object.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => match object.get("schema") {
            None | Some(Value::Null) => Ok(Some(Constraint::JsonObject)),
            Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            Some(_) => refused(".schema", "must be a JSON schema"),
        },
        Some("json_schema") => {
            let inner = object.get("json_schema").and_then(|inner| inner.get("schema"));
            match inner.or_else(|| object.get("schema")) {
                Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
                Some(_) => refused(".json_schema.schema", "must be a JSON schema"),
                None => refused(".json_schema", "is required: an object with \"name\" and \"schema\""),
            }
        }
        Some(kind) => {
            let kind: String = kind.chars().take(60).collect();
            refused(".type", &format!("is {kind:?}: it must be \"text\", \"json_object\" or \"json_schema\""))
        }
        None => refused(".type", "is required: \"text\", \"json_object\" or \"json_schema\""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats() {
        let schema = json!({"type": "object"});
        let wanted = Some(Constraint::JsonSchema(schema.clone()));
        for (format, expected) in [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Constraint::JsonObject)),
            (json!({"type": "json_object", "schema": schema}), wanted.clone()),
            (
                json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}}),
                wanted.clone(),
            ),
            (json!({"type": "json_schema", "name": "x", "schema": schema}), wanted),
        ] {
            assert_eq!(constraint("response_format", &format).unwrap(), expected, "{format}");
        }
        for (format, param) in [
            (json!("json"), "response_format"),
            (json!({}), "response_format.type"),
            (json!({"type": "xml"}), "response_format.type"),
            (json!({"type": "json_schema"}), "response_format.json_schema"),
            (
                json!({"type": "json_schema", "json_schema": {"schema": 1}}),
                "response_format.json_schema.schema",
            ),
        ] {
            assert_eq!(
                constraint("response_format", &format).unwrap_err().param.as_deref(),
                Some(param),
                "{format}"
            );
        }
    }
}
