//! A session as an animated picture, for light and dark pages, without scripts and fonts of its own.
//!
//! Each state of a row is a text that is visible from when it appeared until it changed. Who asked the system for less
//! motion sees the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::terminal::{Line, Recording, Span, Style};

/// Size of a letter, in units of the picture.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
const MARGIN: f64 = 16.0;

/// Colours of a dark and of a light page: background, text, then red, green, yellow, blue, magenta, cyan.
const DARK: [&str; 8] =
    ["#161b22", "#d8dee9", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd"];
const LIGHT: [&str; 8] =
    ["#f6f8fa", "#24292f", "#cf222e", "#116329", "#7d4e00", "#0550ae", "#8250df", "#1b7c83"];

const NAMES: [&str; 8] = ["bg", "fg", "c1", "c2", "c3", "c4", "c5", "c6"];

/// The picture.
pub(super) fn picture(recording: &Recording) -> String {
    let (width, height) = (
        f64::from(recording.columns) * WIDTH + 2.0 * MARGIN,
        f64::from(recording.rows) * HEIGHT + 2.0 * MARGIN,
    );
    let mut names: BTreeMap<(Duration, Option<Duration>), usize> = BTreeMap::new();
    for line in &recording.lines {
        let next = names.len();
        names.entry((line.from, line.until)).or_insert(next);
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"A terminal in which bitnet is used\">\n<style>\n{}{}",
        palette(),
        "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;fill:var(--fg);\
         white-space:pre}.b{font-weight:600}.d{opacity:.65}.i{font-style:italic}\n"
    );
    let length = recording.length.as_secs_f64();
    let _ = writeln!(out, ".v{{opacity:0;animation:{length:.2}s step-end infinite}}");
    for ((from, until), name) in &names {
        out += &keyframes(*name, *from, *until, length);
    }
    out += "@media (prefers-reduced-motion:reduce){.v{animation:none!important}.l{opacity:1}}\n</style>\n";
    let _ = writeln!(out, "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"var(--bg)\"/>");
    for line in &recording.lines {
        let name = names.get(&(line.from, line.until)).copied().unwrap_or_default();
        out += &row(line, name);
    }
    out += "</svg>\n";
    out
}

fn palette() -> String {
    let variables = |colors: [&str; 8]| {
        let pairs = NAMES.iter().zip(colors).map(|(name, color)| format!("--{name}:{color}"));
        pairs.collect::<Vec<_>>().join(";")
    };
    let classes: String = NAMES[2..].iter().map(|name| format!(".{name}{{fill:var(--{name})}}")).collect();
    format!(
        "svg{{{}}}\n@media (prefers-color-scheme:light){{svg{{{}}}}}\n{classes}\n",
        variables(DARK),
        variables(LIGHT)
    )
}

/// Visible from one time to another.
fn keyframes(name: usize, from: Duration, until: Option<Duration>, length: f64) -> String {
    let percent = |time: Duration| time.as_secs_f64() / length * 100.0;
    let mut steps = String::from("0%{opacity:0}");
    let _ = write!(steps, "{:.1}%{{opacity:1}}", percent(from));
    if let Some(until) = until {
        let _ = write!(steps, "{:.1}%{{opacity:0}}", percent(until));
    }
    format!("@keyframes k{name}{{{steps}}}\n")
}

fn row(line: &Line, name: usize) -> String {
    let y = MARGIN + (f64::from(line.row) + 0.75) * HEIGHT;
    let spans: String = line.spans.iter().map(span).collect();
    let last = if line.until.is_none() { " l" } else { "" };
    format!("<text class=\"v{last}\" style=\"animation-name:k{name}\" y=\"{y:.1}\">{spans}</text>\n")
}

fn span(span: &Span) -> String {
    let x = MARGIN + f64::from(span.column) * WIDTH;
    let classes = classes(span.style);
    let class = if classes.is_empty() { String::new() } else { format!(" class=\"{classes}\"") };
    // A font of another width would not line up.
    let length = span.text.chars().count() as f64 * WIDTH;
    format!("<tspan x=\"{x:.1}\" textLength=\"{length:.1}\"{class}>{}</tspan>", escaped(&span.text))
}

fn classes(style: Style) -> String {
    let mut classes: Vec<&str> = Vec::new();
    // Bright colours are the same ones; black and white are the text's.
    if let Some(color @ 1..=6) = style.color.map(|color| color % 8) {
        classes.push(NAMES[usize::from(color) + 1]);
    }
    classes.extend(style.bold.then_some("b"));
    classes.extend(style.dim.then_some("d"));
    classes.extend(style.italic.then_some("i"));
    classes.join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_texts_with_their_times() {
        let style = Style { color: Some(2), bold: true, ..Style::default() };
        let spans = vec![Span { column: 2, text: "a<b".to_owned(), style }];
        let line = Line { row: 1, spans, from: Duration::from_secs(1), until: Some(Duration::from_secs(2)) };
        let picture =
            picture(&Recording { rows: 3, columns: 10, lines: vec![line], length: Duration::from_secs(4) });
        for part in [
            "@keyframes k0{0%{opacity:0}25.0%{opacity:1}50.0%{opacity:0}}",
            "<tspan x=\"32.8\" textLength=\"25.2\" class=\"c2 b\">a&lt;b</tspan>",
            "prefers-color-scheme:light",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }
}
