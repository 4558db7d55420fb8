//! Single fields of a JSON object, read leniently but typed: `null` counts as absent, a whole number may be written as
//! `40.0`, anything else of another type is refused by name.

use bitnet_inference::ParameterError;
use serde_json::{Map, Value};

/// A field whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} is not possible: it must be {allowed}")]
pub(crate) struct FieldError {
    /// The field, as the client spelled it.
    pub(crate) field: String,
    /// Its value, shortened.
    pub(crate) value: String,
    /// What it may be.
    pub(crate) allowed: &'static str,
}

/// Most characters of a value that a message repeats.
const SHOWN: usize = 60;

impl FieldError {
    /// `value` is nothing that `field` may be.
    pub(crate) fn new(field: &str, value: &Value, allowed: &'static str) -> Self {
        let mut text = value.to_string();
        if let Some((end, _)) = text.char_indices().nth(SHOWN) {
            text.truncate(end);
            text.push_str("...");
        }
        Self { field: field.to_owned(), value: text, allowed }
    }

    /// As [`new`](Self::new) for an error of the engine, which knows the value as text.
    pub(crate) fn of_parameter(field: &str, error: ParameterError) -> Self {
        Self { field: field.to_owned(), value: error.value, allowed: error.allowed }
    }
}

/// A field and the name under which it was found.
pub(crate) type Found<'a> = (&'a str, &'a Value);

/// The first of `names` that is there and not null.
pub(crate) fn find<'a>(map: &'a Map<String, Value>, names: &[&'a str]) -> Option<Found<'a>> {
    names.iter().find_map(|&name| map.get(name).filter(|value| !value.is_null()).map(|value| (name, value)))
}

/// A whole number, negative ones included.
pub(crate) fn whole((field, value): Found<'_>) -> Result<i64, FieldError> {
    let refused = || FieldError::new(field, value, "a whole number");
    let number = value.as_number().ok_or_else(refused)?;
    if let Some(whole) = number.as_i64() {
        return Ok(whole);
    }
    match number.as_f64() {
        // Up to 2^53 every whole number has a float of its own.
        Some(float) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => Ok(float as i64),
        _ => Err(refused()),
    }
}

/// A number that is not negative and fits into memory's sizes.
pub(crate) fn count(found: Found<'_>) -> Result<usize, FieldError> {
    usize::try_from(whole(found)?)
        .map_err(|_| FieldError::new(found.0, found.1, "a whole number of 0 or more"))
}

/// Any number.
pub(crate) fn number((field, value): Found<'_>) -> Result<f32, FieldError> {
    let float = value.as_f64().ok_or_else(|| FieldError::new(field, value, "a number"))?;
    let narrow = float as f32;
    if narrow.is_finite() { Ok(narrow) } else { Err(FieldError::new(field, value, "a number of usual size")) }
}

/// `true` or `false`.
pub(crate) fn truth((field, value): Found<'_>) -> Result<bool, FieldError> {
    value.as_bool().ok_or_else(|| FieldError::new(field, value, "true or false"))
}

/// A string.
pub(crate) fn text<'a>((field, value): Found<'a>) -> Result<&'a str, FieldError> {
    value.as_str().ok_or_else(|| FieldError::new(field, value, "a string"))
}

/// One string or a list of strings. Empty ones are left out: they would match everywhere.
pub(crate) fn texts((field, value): Found<'_>) -> Result<Vec<String>, FieldError> {
    let refused = || FieldError::new(field, value, "a string or a list of strings");
    let one = std::slice::from_ref(value);
    let list = value.as_array().map_or(one, Vec::as_slice);
    let texts = list.iter().map(|entry| entry.as_str().ok_or_else(refused)).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

/// Most strings of a list that every token of a text is compared with.
const MOST_TEXTS: usize = 1024;

/// As [`texts`] for strings that a text is watched for, of which there may not be many.
pub(crate) fn watched(found: Found<'_>) -> Result<Vec<String>, FieldError> {
    let texts = texts(found)?;
    if texts.len() > MOST_TEXTS {
        return Err(FieldError::new(found.0, found.1, "a list of at most 1024 strings"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers() {
        let read = |value: &Value| whole(("top_k", value)).map_err(|error| error.to_string());
        for (value, result) in [(json!(40), 40), (json!(-1), -1), (json!(40.0), 40), (json!(1e3), 1000)] {
            assert_eq!(read(&value), Ok(result));
        }
        for value in [json!(1.5), json!("40"), json!(true), json!([]), json!(1e300), json!(u64::MAX)] {
            let error = read(&value).unwrap_err();
            assert!(error.starts_with("top_k = ") && error.ends_with("a whole number"), "{error}");
        }
        assert!(count(("n", &json!(-1))).unwrap_err().to_string().contains("0 or more"));
    }

    #[test]
    fn numbers_and_texts() {
        assert_eq!(number(("x", &json!(1))), Ok(1.0));
        assert!(number(("x", &json!(1e300))).is_err() && number(("x", &json!("1"))).is_err());
        assert_eq!(texts(("stop", &json!("a"))).unwrap(), ["a"]);
        assert_eq!(texts(("stop", &json!(["a", "", "b"]))).unwrap(), ["a", "b"]);
        assert!(texts(("stop", &json!(["a", 1]))).is_err() && texts(("stop", &json!({}))).is_err());
        assert_eq!(watched(("stop", &json!(vec!["a"; 1024]))).map(|texts| texts.len()), Ok(1024));
        let error = watched(("stop", &json!(vec!["a"; 1025]))).unwrap_err().to_string();
        assert!(error.starts_with("stop = ") && error.contains("at most 1024"), "{error}");
    }

    #[test]
    fn the_first_spelling_that_is_not_null_counts() {
        let Value::Object(map) = json!({"a": null, "b": 2, "c": 3}) else { unreachable!() };
        assert_eq!(find(&map, &["a", "b", "c"]), Some(("b", &json!(2))));
        assert_eq!(find(&map, &["a", "d"]), None);
    }

    #[test]
    fn long_values_are_shortened() {
        let error = FieldError::new("stop", &json!("ä".repeat(1000)), "short");
        assert!(error.value.chars().count() < 70 && error.value.ends_with("..."), "{error}");
    }
}
