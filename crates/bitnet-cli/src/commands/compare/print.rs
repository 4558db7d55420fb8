//! What is printed of a comparison: tables for people, JSON for machines.

use std::fmt::Write as _;

use bitnet_inference::{InferenceEngine, Perplexity};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::Report;
use super::context::{Difference, differences};
use crate::output::{Table, count};

/// The tables.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut table = Table::default();
    table.row([&"", &"A", &"B"]);
    for [name, a, b] in sides(report) {
        table.row([&name, &a, &b]);
    }
    let tokens = count(report.summary.tokens as u64);
    let mut out =
        format!("{table}\n{}: {tokens} tokens, windows of {}\n\n", report.text, report.windows.size);
    let mut table = Table::default();
    for (name, value) in figures(report) {
        table.row([&name, &value]);
    }
    out += &table.to_string();
    let differences = differences(report, report.args.worst);
    if !differences.is_empty() {
        out += "\nWhere they differ most:\n";
    }
    for difference in &differences {
        out += &shown(difference);
    }
    out
}

/// What both are, side by side, and how well each predicts the text.
pub(super) fn sides(report: &Report<'_>) -> Vec<[String; 3]> {
    let args = report.args.models();
    let row = |name: &str, of: &dyn Fn(usize) -> String| [name.to_owned(), of(0), of(1)];
    let engine = |side: usize| &report.engines[side];
    let perplexity = |side: usize| &report.summary.perplexity[side];
    let head = |side: usize| {
        let name = args[side].storage.lm_head.to_possible_value();
        name.map_or(String::new(), |name| name.get_name().to_owned())
    };
    vec![
        row("model", &|side| engine(side).model().name.clone()),
        row("format", &|side| engine(side).model().format.clone()),
        row("runs on", &|side| engine(side).info().description.clone()),
        row("keys and values", &|side| engine(side).info().kv_type.to_string()),
        row("output layer", &head),
        row("weights in memory", &|side| engine(side).info().weight_bytes.to_string()),
        row("perplexity", &|side| {
            let Perplexity { value, standard_error, .. } = perplexity(side);
            format!("{value:.4} ± {standard_error:.4}")
        }),
        row("nats a token", &|side| format!("{:.5}", perplexity(side).nll / perplexity(side).tokens as f64)),
    ]
}

/// How they differ, by name.
pub(super) fn figures(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let s = &report.summary;
    vec![
        ("ln(perplexity of B / A)", format!("{:+.6} ± {:.6}", s.log_ratio, s.log_ratio_error)),
        ("KL mean", format!("{} ± {}", small(s.kl.mean), small(s.kl.standard_error))),
        ("KL median", small(s.kl.median)),
        ("KL 90 %", small(s.kl.p90)),
        ("KL 99 %", small(s.kl.p99)),
        ("KL max", small(s.kl.max)),
        ("same best token", format!("{:.3} %", s.top1 * 100.0)),
        ("top 5 in common", format!("{:.3} %", s.top5 * 100.0)),
        ("largest logit difference", small(s.logit_difference.into())),
        ("probability difference, mean", format!("{:+.4} %", s.mean_difference * 100.0)),
        ("probability difference, RMS", format!("{:.4} %", s.rms_difference * 100.0)),
    ]
}

/// A number that may be tiny.
pub(super) fn small(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 1e-4 => format!("{value:.2e}"),
        _ => format!("{value:.6}"),
    }
}

fn shown(difference: &Difference) -> String {
    let d = &difference.token;
    let mut out = format!(
        "  token {}, KL {}: ...{}[{}]\n",
        d.position,
        small(d.kl),
        difference.before,
        difference.text
    );
    for (side, name) in ["A", "B"].into_iter().enumerate() {
        let _ = writeln!(
            out,
            "    {name} thinks [{}] most probable, {:.2} %; [{}] has {:.2} %",
            difference.best[side],
            d.best_logprobs[side].exp() * 100.0,
            difference.text,
            d.logprobs[side].exp() * 100.0
        );
    }
    out
}

/// All figures.
pub(super) fn json(report: &Report<'_>) -> Value {
    let s = &report.summary;
    let side = |index: usize| {
        let (engine, p) = (&report.engines[index], &s.perplexity[index]);
        model(engine, p)
    };
    let difference = |d: Difference| {
        json!({
            "position": d.token.position,
            "before": d.before,
            "token": d.text,
            "kl": d.token.kl,
            "logprob": d.token.logprobs,
            "best": d.best,
            "best_logprob": d.token.best_logprobs,
        })
    };
    json!({
        "a": side(0),
        "b": side(1),
        "text": report.text,
        "tokens": s.tokens,
        "window": report.windows.size,
        "complete": report.comparison.complete,
        "kl": {
            "mean": s.kl.mean,
            "standard_error": s.kl.standard_error,
            "median": s.kl.median,
            "p90": s.kl.p90,
            "p99": s.kl.p99,
            "max": s.kl.max,
        },
        "same_best": s.top1,
        "top5_in_common": s.top5,
        "max_logit_difference": s.logit_difference,
        "mean_probability_difference": s.mean_difference,
        "rms_probability_difference": s.rms_difference,
        "ln_perplexity_ratio": s.log_ratio,
        "ln_perplexity_ratio_error": s.log_ratio_error,
        "most_different": differences(report, report.args.worst).into_iter().map(difference).collect::<Vec<_>>(),
    })
}

fn model(engine: &InferenceEngine, perplexity: &Perplexity) -> Value {
    json!({
        "model": engine.model().name,
        "place": engine.model().place,
        "format": engine.model().format,
        "kernels": engine.info().kernels,
        "kv_type": engine.info().kv_type.name(),
        "executor": engine.info().description,
        "perplexity": perplexity.value,
        "perplexity_error": perplexity.standard_error,
        "nll": perplexity.nll,
    })
}
