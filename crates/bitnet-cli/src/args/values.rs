//! Readers of single values, each with a message that says what is possible.

use std::num::ParseIntError;

use bitnet_inference::PenaltyWindow;

/// How many tokens to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// At most so many.
    Tokens(usize),
    /// Until the model stops or the context is full.
    None,
}

fn number(text: &str, allowed: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("it must be {allowed}"))?;
    if value.is_finite() { Ok(value) } else { Err(format!("it must be {allowed}")) }
}

fn checked(text: &str, allowed: &str, ok: impl Fn(f32) -> bool) -> Result<f32, String> {
    number(text, allowed).and_then(|v| if ok(v) { Ok(v) } else { Err(format!("it must be {allowed}")) })
}

/// A temperature.
pub(crate) fn temperature(text: &str) -> Result<f32, String> {
    checked(text, "a number, 0 (always the best token) or greater", |v| v >= 0.0)
}

/// A probability.
pub(crate) fn probability(text: &str) -> Result<f32, String> {
    checked(text, "a number from 0 to 1", |v| (0.0..=1.0).contains(&v))
}

/// A repetition penalty.
pub(crate) fn penalty(text: &str) -> Result<f32, String> {
    checked(text, "a number greater than 0, 1 for none", |v| v > 0.0)
}

/// The tokens that the repetition penalty looks at.
pub(crate) fn window(text: &str) -> Result<PenaltyWindow, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(PenaltyWindow::All),
        Ok(n) if n >= 0 => Ok(PenaltyWindow::Last(n as usize)),
        _ => Err("it must be a number of tokens, or -1 for all".to_owned()),
    }
}

/// A number of tokens to generate.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(Limit::None),
        Ok(n) if n >= 1 => Ok(Limit::Tokens(n as usize)),
        _ => Err("it must be a number of tokens, at least 1, or -1 for no limit".to_owned()),
    }
}

/// A count of at least one.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    let at_least = |_: ParseIntError| "it must be a whole number, at least 1".to_owned();
    match text.parse::<usize>().map_err(at_least)? {
        0 => Err("it must be at least 1".to_owned()),
        n => Ok(n),
    }
}

/// A number of threads.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    match positive(text)? {
        n if n > 1024 => Err("it must be from 1 to 1024".to_owned()),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_values_are_read() {
        assert_eq!(temperature("0"), Ok(0.0));
        assert_eq!(probability("1"), Ok(1.0));
        assert_eq!(penalty("1.2"), Ok(1.2));
        assert_eq!(window("-1"), Ok(PenaltyWindow::All));
        assert_eq!(window("64"), Ok(PenaltyWindow::Last(64)));
        assert_eq!(limit("-1"), Ok(Limit::None));
        assert_eq!(limit("5"), Ok(Limit::Tokens(5)));
        assert_eq!(threads("1024"), Ok(1024));
    }

    #[test]
    fn impossible_values_are_not() {
        for text in ["-1", "nan", "inf", "-inf", "", "warm"] {
            assert!(temperature(text).is_err(), "{text}");
        }
        assert!(probability("1.0001").is_err() && probability("NaN").is_err());
        assert!(penalty("0").is_err());
        assert!(window("-2").is_err());
        assert!(limit("0").is_err() && limit("-2").is_err());
        assert!(positive("0").is_err() && positive("99999999999999999999999").is_err());
        assert!(threads("1025").is_err());
    }
}
