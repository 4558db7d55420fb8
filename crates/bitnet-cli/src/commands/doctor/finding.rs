//! [`Finding`]: what one check found, and what to do about it.

use std::fmt::Write as _;

use console::Style;
use serde_json::{Map, Value, json};

/// How good that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Something to know.
    Note,
    /// As it should be.
    Fine,
    /// It works, but slower or less than it could.
    Warning,
    /// It does not work.
    Problem,
}

impl State {
    /// Its name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn mark(self) -> String {
        match self {
            Self::Note => Style::new().dim().apply_to("·"),
            Self::Fine => Style::new().green().apply_to("✓"),
            Self::Warning => Style::new().yellow().bold().apply_to("!"),
            Self::Problem => Style::new().red().bold().apply_to("✗"),
        }
        .to_string()
    }
}

/// What one check found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    area: &'static str,
    check: &'static str,
    pub(super) state: State,
    pub(super) message: String,
    pub(super) advice: Option<String>,
    values: Map<String, Value>,
}

impl Finding {
    /// A finding of a check in an area.
    pub(super) fn new(
        area: &'static str,
        check: &'static str,
        state: State,
        message: impl Into<String>,
    ) -> Self {
        Self { area, check, state, message: message.into(), advice: None, values: Map::new() }
    }

    /// Adds what to do.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds a figure for JSON.
    pub(super) fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// The finding as JSON.
    pub(super) fn json(&self) -> Value {
        json!({
            "area": self.area,
            "check": self.check,
            "state": self.state.name(),
            "message": self.message,
            "advice": self.advice,
            "values": self.values,
        })
    }

    /// The finding as lines, under the name of its area if that is not `before`.
    pub(super) fn text(&self, before: Option<&Self>) -> String {
        let mut out = String::new();
        if before.is_none_or(|before| before.area != self.area) {
            let gap = if before.is_some() { "\n" } else { "" };
            let _ = writeln!(out, "{gap}{}", Style::new().bold().apply_to(self.area));
        }
        let _ = writeln!(out, "  {} {}", self.state.mark(), self.message);
        if let Some(advice) = &self.advice {
            let _ = writeln!(out, "      {}", Style::new().cyan().apply_to(advice));
        }
        out
    }
}

/// How many findings there are of a state.
pub(super) fn count(findings: &[Finding], state: State) -> usize {
    findings.iter().filter(|finding| finding.state == state).count()
}

/// The last line.
pub(super) fn summary(findings: &[Finding]) -> String {
    let of = |state, name: &str| match count(findings, state) {
        0 => None,
        1 => Some(format!("1 {name}")),
        n => Some(format!("{n} {name}s")),
    };
    let bad: Vec<String> =
        [of(State::Problem, "problem"), of(State::Warning, "warning")].into_iter().flatten().collect();
    if bad.is_empty() { "all is well".to_owned() } else { bad.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_and_grouped() {
        let fine = Finding::new("memory", "swap", State::Fine, "enough");
        let bad = Finding::new("memory", "total", State::Problem, "too little").advise("buy some");
        let other = Finding::new("gpu", "cuda", State::Warning, "none").value("devices", 0);
        assert_eq!(summary(std::slice::from_ref(&fine)), "all is well");
        let all = [fine.clone(), bad.clone(), bad.clone(), other.clone()];
        assert_eq!(summary(&all), "2 problems, 1 warning");
        assert!(fine.text(None).contains("memory") && !bad.text(Some(&fine)).contains("memory\n"));
        assert!(bad.text(None).contains("buy some") && other.text(Some(&bad)).contains("gpu"));
        assert_eq!(
            (&other.json()["state"], &other.json()["values"]["devices"]),
            (&json!("warning"), &json!(0))
        );
    }
}
