//! What is printed of a task: tables for people, JSON for machines.

use bitnet_inference::evaluate::task::{Accuracy, Choices, Figures, ItemResult, Outcome};
use serde_json::{Map, Value, json};

use super::Report;
use crate::output::{Table, count};

/// The tables.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut out = format!(
        "{}: {} of {} rows, {} shots, {}\n\n",
        report.task,
        report.answered,
        report.rows,
        report.shots,
        report.engine.model().name
    );
    let mut table = Table::default();
    table.row([&"", &"accuracy", &"95 % interval", &"right"]);
    let overall = &report.summary.overall;
    if let Some(choices) = &overall.choices {
        for (name, accuracy) in accuracies(choices) {
            accuracy_row(&mut table, name, &accuracy);
        }
        table.row([&"chance", &percent(choices.chance), &"", &""]);
    }
    if let Some(accuracy) = &overall.texts {
        accuracy_row(&mut table, "exact", accuracy);
    }
    out += &table.to_string();
    if !report.summary.categories.is_empty() {
        out += &format!("\n{}", categories(report));
    }
    out + &format!(
        "\n{} tokens computed, {} shared between rows and choices\n",
        count(report.summary.computed as u64),
        count(report.summary.reused as u64)
    )
}

fn accuracies(choices: &Choices) -> [(&'static str, Accuracy); 3] {
    [("acc", choices.by_sum), ("acc_norm", choices.by_byte), ("acc_token", choices.by_token)]
}

fn accuracy_row(table: &mut Table, name: &str, accuracy: &Accuracy) {
    let (low, high) = accuracy.interval();
    let interval = format!("{:.1} to {}", low * 100.0, percent(high));
    let right = format!("{} of {}", accuracy.correct, accuracy.total);
    table.row([&name, &percent(accuracy.value()), &interval, &right]);
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn categories(report: &Report<'_>) -> String {
    let mut table = Table::default();
    table.row([&"category", &"rows", &"acc", &"acc_norm", &"chance", &"exact"]);
    for (name, figures) in &report.summary.categories {
        let Figures { choices, texts } = figures;
        let rows = choices.map_or(0, |c| c.by_sum.total) + texts.map_or(0, |t| t.total);
        let choice = |f: fn(&Choices) -> f64| choices.as_ref().map_or(String::new(), |c| percent(f(c)));
        table.row([
            name,
            &rows,
            &choice(|c| c.by_sum.value()),
            &choice(|c| c.by_byte.value()),
            &choice(|c| c.chance),
            &texts.map_or(String::new(), |t| percent(t.value())),
        ]);
    }
    table.to_string()
}

/// All figures.
pub(super) fn json(report: &Report<'_>) -> Value {
    let mut out = Map::new();
    out.insert("task".to_owned(), report.task.as_str().into());
    out.insert("model".to_owned(), report.engine.model().name.as_str().into());
    out.insert("kv_type".to_owned(), report.engine.info().kv_type.name().into());
    out.insert("rows".to_owned(), report.rows.into());
    out.insert("answered".to_owned(), report.answered.into());
    out.insert("shots".to_owned(), report.shots.into());
    figures(&report.summary.overall, &mut out);
    let categories = report.summary.categories.iter().map(|(name, of)| {
        let mut object = Map::new();
        figures(of, &mut object);
        (name.clone(), Value::Object(object))
    });
    out.insert("categories".to_owned(), categories.collect::<Map<_, _>>().into());
    out.insert("tokens_computed".to_owned(), report.summary.computed.into());
    out.insert("tokens_shared".to_owned(), report.summary.reused.into());
    Value::Object(out)
}

fn figures(figures: &Figures, out: &mut Map<String, Value>) {
    let of = |accuracy: &Accuracy| {
        let (low, high) = accuracy.interval();
        json!({
            "value": accuracy.value(),
            "interval": [low, high],
            "correct": accuracy.correct,
            "total": accuracy.total,
        })
    };
    if let Some(choices) = &figures.choices {
        for (name, accuracy) in accuracies(choices) {
            out.insert(name.to_owned(), of(&accuracy));
        }
        out.insert("chance".to_owned(), choices.chance.into());
    }
    if let Some(accuracy) = &figures.texts {
        out.insert("exact".to_owned(), of(accuracy));
    }
}

/// What became of one row.
pub(super) fn item(result: &ItemResult) -> Value {
    let mut out = Map::new();
    out.insert("id".to_owned(), result.id.as_str().into());
    if let Some(category) = &result.category {
        out.insert("category".to_owned(), category.as_str().into());
    }
    let rest = match &result.outcome {
        Outcome::Chosen(choosing) => json!({
            "answer": choosing.right,
            "chosen": choosing.by_sum,
            "chosen_norm": choosing.by_byte,
            "chosen_token": choosing.by_token,
            "acc": choosing.by_sum == choosing.right,
            "acc_norm": choosing.by_byte == choosing.right,
            "acc_token": choosing.by_token == choosing.right,
            "choices": choosing.scores.iter().map(|score| json!({
                "text": score.text,
                "loglikelihood": score.likelihood.sum,
                "tokens": score.likelihood.tokens,
                "bytes": score.text.len(),
                "greedy": score.likelihood.greedy,
            })).collect::<Vec<_>>(),
        }),
        Outcome::Written(writing) => json!({"text": writing.text, "exact": writing.correct}),
    };
    if let Value::Object(rest) = rest {
        out.extend(rest);
    }
    out.insert("tokens_computed".to_owned(), result.computed.into());
    out.insert("tokens_shared".to_owned(), result.reused.into());
    Value::Object(out)
}
