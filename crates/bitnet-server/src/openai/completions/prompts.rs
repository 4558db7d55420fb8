//! Prompts and inputs as bodies have them: a text, several, a list of tokens, several such lists.

use bitnet_inference::Prompt;
use serde_json::Value;

use crate::error::ApiError;
use crate::openai::request::Body;

/// The prompts of a body.
///
/// # Errors
/// 400 if there are none, or something else.
pub(super) fn read(body: &Body) -> Result<Vec<Prompt>, ApiError> {
    let prompts = match inputs("prompt", body)? {
        Inputs::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        Inputs::Tokens(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
    };
    Ok(prompts)
}

/// Texts, or lists of tokens.
#[derive(Debug, PartialEq)]
pub(in crate::openai) enum Inputs {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

/// What is in a field, at least one text or list.
///
/// # Errors
/// 400 naming the field.
pub(in crate::openai) fn inputs(field: &str, body: &Body) -> Result<Inputs, ApiError> {
    let forms = "a string, a list of strings, a list of tokens, or a list of lists of tokens";
    let refused = || ApiError::bad_param(field, format!("{field} must be {forms}"));
    match body.get(field) {
        None | Some(Value::Null) => Err(ApiError::bad_param(field, format!("{field} is required: {forms}"))),
        Some(Value::String(text)) => Ok(Inputs::Texts(vec![text.clone()])),
        Some(Value::Array(list)) => match list.first() {
            None => Err(ApiError::bad_param(field, format!("{field} is empty: it must be {forms}"))),
            Some(Value::String(_)) => {
                let texts = list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(refused));
                Ok(Inputs::Texts(texts.collect::<Result<_, _>>()?))
            }
            Some(Value::Number(_)) => Ok(Inputs::Tokens(vec![tokens(list).ok_or_else(refused)?])),
            Some(_) => {
                let lists = list
                    .iter()
                    .map(|inner| inner.as_array().and_then(|inner| tokens(inner)).ok_or_else(refused));
                Ok(Inputs::Tokens(lists.collect::<Result<_, _>>()?))
            }
        },
        Some(_) => Err(refused()),
    }
}

fn tokens(list: &[Value]) -> Option<Vec<u32>> {
    list.iter().map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_four_forms() {
        let read = |prompt: Value| read(json!({"prompt": prompt}).as_object().unwrap());
        assert_eq!(read(json!("a")).unwrap(), [Prompt::text("a")]);
        assert_eq!(read(json!(["a", ""])).unwrap(), [Prompt::text("a"), Prompt::text("")]);
        assert_eq!(read(json!([1, 2])).unwrap(), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(read(json!([[1], []])).unwrap(), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![])]);
        for wrong in [
            json!(null),
            json!([]),
            json!(7),
            json!({}),
            json!(["a", 1]),
            json!([1, "a"]),
            json!([-1]),
            json!([1.5]),
            json!([[1], 2]),
            json!([4_294_967_296_u64]),
            json!([null]),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"), "{wrong}");
        }
    }
}
