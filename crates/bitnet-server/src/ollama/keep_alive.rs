//! [`KeepAlive`]: how long a model stays loaded after a request.

use std::time::Duration;

use serde_json::Value;

use crate::common::fields::FieldError;

/// How long a model stays loaded when nobody uses it: a number of seconds, or a duration such as `5m` or `1h30m`; below
/// 0 for ever.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct KeepAlive(Option<Duration>);

/// The longest time that is counted, about 292 years as in ollama.
const LONGEST: f64 = 9.2e9;

impl KeepAlive {
    /// Reads the field; null is absent.
    ///
    /// # Errors
    /// [`FieldError`] for what is no duration.
    pub(super) fn read(value: Option<&Value>) -> Result<Option<Self>, FieldError> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let seconds = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok().or_else(|| duration(text.trim())),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| seconds.is_finite());
        let seconds = seconds.ok_or_else(|| {
            FieldError::new("keep_alive", value, "a number of seconds, or a duration like \"5m\"")
        })?;
        let time = (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST)));
        Ok(Some(Self(time)))
    }

    /// The time; `None`: for ever.
    pub(super) fn time(self) -> Option<Duration> {
        self.0
    }

    /// Whether the model is not to be kept at all.
    pub(super) fn is_zero(self) -> bool {
        self.0 == Some(Duration::ZERO)
    }
}

/// Seconds of a duration as Go writes it: numbers with units, such as `1h15m30.5s`, perhaps with a sign.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        let read = |value: Value| KeepAlive::read(Some(&value)).map_err(|error| error.to_string());
        for (value, seconds) in [
            (json!(300), Some(300.0)),
            (json!("5m"), Some(300.0)),
            (json!("1h30m"), Some(5400.0)),
            (json!("1.5s"), Some(1.5)),
            (json!("100ms"), Some(0.1)),
            (json!("60"), Some(60.0)),
            (json!(0), Some(0.0)),
            (json!(-1), None),
            (json!("-1m"), None),
        ] {
            let expected = Some(KeepAlive(seconds.map(Duration::from_secs_f64)));
            assert_eq!(read(value.clone()), Ok(expected), "{value}");
        }
        assert_eq!(read(Value::Null), Ok(None));
        assert!(read(json!("0s")).unwrap().unwrap().is_zero());
        assert!(read(json!(1e300)).unwrap().unwrap().time().unwrap() > Duration::from_secs(9_000_000_000));
        for value in [json!("soon"), json!("5x"), json!("m"), json!(""), json!([]), json!(true), json!("nan")]
        {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }
}
