//! Readers of single values, each with a message that says what is possible.

use std::num::ParseIntError;

use bitnet_inference::sampling::BiasTarget;
use bitnet_inference::{LogitBias, Mirostat, PenaltyWindow, SamplerOrder};

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

/// A text in which `\n`, `\t` and `\\` stand for a line break, a tab and a backslash.
pub(crate) fn escaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '\\' { rest.clone().next() } else { None }) {
            ('\\', Some(escape @ ('n' | 't' | '\\'))) => {
                out.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
                rest.next();
            }
            (c, _) => out.push(c),
        }
    }
    Ok(out)
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

/// A number greater than 0.
pub(crate) fn positive_number(text: &str) -> Result<f32, String> {
    checked(text, "a number greater than 0", |v| v > 0.0)
}

/// A number of 0 or greater.
pub(crate) fn non_negative(text: &str) -> Result<f32, String> {
    checked(text, "a number, 0 or greater", |v| v >= 0.0)
}

/// A presence or frequency penalty.
pub(crate) fn offset(text: &str) -> Result<f32, String> {
    checked(text, "a number from -100 to 100, 0 for none", |v| v.abs() <= 100.0)
}

/// A number of standard deviations; what llama.cpp writes for none is 0.
pub(crate) fn n_sigma(text: &str) -> Result<f32, String> {
    let ok = |v: f32| v >= 0.0 || v == -1.0;
    checked(text, "a number greater than 0, or -1 for none", ok).map(|v| v.max(0.0))
}

/// The strength of DRY.
pub(crate) fn dry_multiplier(text: &str) -> Result<f32, String> {
    checked(text, "a number from 0 (off) to 1e6", |v| (0.0..=1e6).contains(&v))
}

/// The growth of DRY's penalty.
pub(crate) fn dry_base(text: &str) -> Result<f32, String> {
    checked(text, "a number, 1 or greater", |v| v >= 1.0)
}

/// A version of mirostat.
pub(crate) fn mirostat(text: &str) -> Result<Mirostat, String> {
    match text {
        "0" => Ok(Mirostat::Off),
        "1" => Ok(Mirostat::V1),
        "2" => Ok(Mirostat::V2),
        _ => Err("it must be 0 (off), 1 or 2".to_owned()),
    }
}

/// An order of samplers by names.
pub(crate) fn samplers(text: &str) -> Result<SamplerOrder, String> {
    text.parse().map_err(|error: bitnet_inference::ParameterError| error.to_string())
}

/// An order of samplers by letters.
pub(crate) fn sampling_seq(text: &str) -> Result<SamplerOrder, String> {
    SamplerOrder::from_letters(text).map_err(|error| error.to_string())
}

/// A bias: a token's number or a text, then its sign and value. What is in quotation marks is a text.
pub(crate) fn logit_bias(text: &str) -> Result<LogitBias, String> {
    let wrong =
        || "it must be ID+X, ID-X, ID-inf, or the same with a text instead of ID, as in 15043+1".to_owned();
    // The first sign behind which a number stands: texts may have signs, and so may exponents.
    let mut signs = text.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '+' | '-'));
    let split = |at: usize| {
        let value: f32 = text[at..].parse().ok()?;
        (value.abs() <= 1e6 || value == f32::NEG_INFINITY).then_some((&text[..at], value))
    };
    let (target, bias) = signs.find_map(|(at, _)| split(at)).ok_or_else(wrong)?;
    let quoted = target.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let target = match (quoted, target.parse::<u32>()) {
        (Some(""), _) => return Err(wrong()),
        (Some(quoted), _) => BiasTarget::Text(quoted.to_owned()),
        (None, Ok(token)) => BiasTarget::Token(token),
        (None, Err(_)) => BiasTarget::Text(target.to_owned()),
    };
    Ok(LogitBias { target, bias })
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
    fn biases_are_read() {
        let read = |text| logit_bias(text).map(|b| (b.target, b.bias));
        assert_eq!(read("15043+1"), Ok((BiasTarget::Token(15043), 1.0)));
        assert_eq!(read("7-inf"), Ok((BiasTarget::Token(7), f32::NEG_INFINITY)));
        assert_eq!(read("7+5e-1"), Ok((BiasTarget::Token(7), 0.5)));
        assert_eq!(read("well-known-2.5"), Ok((BiasTarget::Text("well-known".to_owned()), -2.5)));
        assert_eq!(read("\"15\"-1"), Ok((BiasTarget::Text("15".to_owned()), -1.0)));
        for bad in ["", "7", "+1", "7+nan", "7+inf", "7+1e9", "\"\"+1", "7+x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn samplers_are_read() {
        assert_eq!(
            samplers("penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"),
            sampling_seq("edskypmxt")
        );
        assert!(samplers("top_k;up").unwrap_err().contains("up") && sampling_seq("kk").is_err());
        assert_eq!((n_sigma("-1"), n_sigma("1.5"), mirostat("2")), (Ok(0.0), Ok(1.5), Ok(Mirostat::V2)));
        assert!(n_sigma("-2").is_err() && mirostat("3").is_err() && offset("-101").is_err());
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

    #[test]
    fn escapes_are_line_breaks_and_tabs() {
        assert_eq!(escaped(r"Q:\tx\nA:\\n\d\"), Ok("Q:\tx\nA:\\n\\d\\".to_owned()));
    }
}
