//! `--html`: a comparison on one page, with plots.

use bitnet_inference::evaluate::compare::TokenComparison;

use super::Report;
use super::context::differences;
use super::print::{figures, sides, small};
use crate::report::{Axis, Bars, Chart, Column, Page, Points, Scatter, Series, Value};

/// Tokens in the table, whatever is printed.
const WORST: usize = 40;
/// Points of the scatter plot; of more tokens every so many are drawn.
const MOST_POINTS: usize = 4000;
/// Places of the plots by position; of more tokens means are drawn.
const MOST_PLACES: usize = 400;

pub(super) fn page(report: &Report<'_>) -> String {
    let [a, b] = [0, 1].map(|side| report.engines[side].model().name.as_str());
    let title = if a == b { format!("{a} in two ways") } else { format!("{a} and {b}") };
    let mut page = Page::new(&title);
    let s = &report.summary;
    page.facts(&[
        ("text", format!("{}, {} tokens, windows of {}", report.text, s.tokens, report.windows.size)),
        ("bitnet", env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    page.heading("Figures");
    let head = |head, right| Column { head, right };
    let rows: Vec<Vec<String>> = sides(report).into_iter().map(Vec::from).collect();
    page.table(&[head("", false), head("A", false), head("B", false)], &rows);
    let rows: Vec<Vec<String>> =
        figures(report).into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    page.table(&[head("how they differ", false), head("", true)], &rows);
    page.text(
        "KL is the divergence of B's distribution from A's, in nats a token. The probability difference is that of the \
         text's own tokens, B less A. Intervals are standard errors and take tokens for independent.",
    );
    plots(&mut page, &report.comparison.tokens);
    worst(&mut page, report);
    page.finish()
}

fn plots(page: &mut Page, tokens: &[TokenComparison]) {
    page.heading("Plots");
    let mut figures = vec![("Log-probabilities of the text's tokens", scatter(tokens).svg())];
    figures.extend(histogram(tokens).map(|bars| ("KL of tokens", bars.svg())));
    let charts = [
        ("KL by position", "KL", means(tokens, |t| t.kl)),
        ("Log-probability by position, B less A", "nats", means(tokens, |t| t.logprobs[1] - t.logprobs[0])),
    ];
    for (title, y_name, values) in charts {
        let series = vec![Series { name: title.to_owned(), values, limit_of: None }];
        let chart = Chart { title: title.to_owned(), x_name: "token of the text", y_name, series };
        if chart.has_lines() {
            figures.push((title, chart.svg()));
        }
    }
    page.figures(figures);
    if tokens.iter().all(|token| token.kl == 0.0) {
        page.text("There is no histogram of KL: it is exactly zero everywhere.");
    }
}

fn scatter(tokens: &[TokenComparison]) -> Scatter {
    let every = tokens.len().div_ceil(MOST_POINTS).max(1);
    let drawn: Vec<&TokenComparison> = tokens.iter().step_by(every).collect();
    let least = drawn.iter().flat_map(|t| t.logprobs).fold(0.0, f64::min);
    let of = |name: &str, agrees: bool| Points {
        name: name.to_owned(),
        at: drawn.iter().filter(|t| t.agrees() == agrees).map(|t| (t.logprobs[0], t.logprobs[1])).collect(),
    };
    Scatter {
        title: "Log-probabilities of the text's tokens".to_owned(),
        x: Axis::linear("A, nats", least, 0.0),
        y: Axis::linear("B, nats", least, 0.0),
        points: vec![of("the same best token", true), of("another best token", false)],
        diagonal: true,
    }
}

/// How many tokens have how much divergence, four bars for a power of ten; `None` if all have none.
fn histogram(tokens: &[TokenComparison]) -> Option<Bars> {
    let values: Vec<f64> = tokens.iter().map(|t| t.kl).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    // What is far below anything of interest would only push the rest aside.
    let least = values.iter().copied().filter(|&v| v > 0.0).fold(most, f64::min).max(most * 1e-9);
    if most <= 0.0 {
        return None;
    }
    let axis = Axis::log("KL, nats", least, most);
    let (low, high) = axis.ends();
    let bins = (4.0 * (high / low).log10()).round() as i32;
    let edges: Vec<f64> = (0..=bins).map(|i| low * 10f64.powf(f64::from(i) / 4.0)).collect();
    Some(Bars::histogram("KL of tokens", axis, &edges, &values))
}

/// A value by position, averaged where there are too many to draw.
fn means(tokens: &[TokenComparison], value: impl Fn(&TokenComparison) -> f64) -> Vec<Value> {
    let size = tokens.len().div_ceil(MOST_PLACES).max(1);
    let mean = |part: &[TokenComparison]| Value {
        x: part.iter().map(|t| t.position as f64).sum::<f64>() / part.len() as f64,
        y: part.iter().map(&value).sum::<f64>() / part.len() as f64,
        spread: 0.0,
    };
    tokens.chunks(size).map(mean).collect()
}

fn worst(page: &mut Page, report: &Report<'_>) {
    let differences = differences(report, WORST);
    if differences.is_empty() {
        return;
    }
    page.heading("Where they differ most");
    let heads =
        ["token", "KL", "text before", "token of the text", "A", "B", "best of A", "", "best of B", ""];
    let columns: Vec<Column<'_>> =
        heads.iter().zip(0..).map(|(head, i)| Column { head, right: ![2, 3, 6, 8].contains(&i) }).collect();
    let percent = |logprob: f64| format!("{:.2} %", logprob.exp() * 100.0);
    let row = |d: &super::context::Difference| {
        vec![
            d.token.position.to_string(),
            small(d.token.kl),
            d.before.clone(),
            d.text.clone(),
            percent(d.token.logprobs[0]),
            percent(d.token.logprobs[1]),
            d.best[0].clone(),
            percent(d.token.best_logprobs[0]),
            d.best[1].clone(),
            percent(d.token.best_logprobs[1]),
        ]
    };
    page.table(&columns, &differences.iter().map(row).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::compared;
    use super::page;
    use crate::args::{Cli, Command};
    use crate::output::Notes;
    use crate::report::elements;

    fn drawn(flags: &[&str]) -> (String, usize) {
        let args = [&["bitnet", "compare", "-q", "-t", "1"], flags].concat();
        let cli = Cli::parse_from(args);
        let Command::Compare(args) = &cli.command else { panic!("{cli:?}") };
        let page = page(&compared(args, Notes::new(cli.global)).unwrap());
        let figures = elements(&page).iter().filter(|element| *element == "svg").count();
        (page, figures)
    }

    #[test]
    fn pages_are_well_formed() {
        let (page, figures) = drawn(&["--limit", "60", "--b-kv-type", "int8"]);
        assert_eq!(figures, 4);
        assert!(page.contains("Where they differ most") && page.contains("<td>int8</td>"));
        let (page, figures) = drawn(&["--limit", "9"]);
        assert_eq!(figures, 3);
        assert!(page.contains("exactly zero") && !page.contains("Where they differ most"));
        assert_eq!(drawn(&["--limit", "1"]).1, 1, "one token makes no line");
    }
}
