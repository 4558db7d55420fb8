//! What is printed of a task: tables for people, JSON for machines.

use bitnet_inference::evaluate::LogLikelihood;
use bitnet_inference::evaluate::task::{
    Accuracy, ChoiceScore, Choices, Choosing, Figures, ItemResult, Outcome, Writing,
};
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
    out + &format!("\n{} tokens in prompts and answers\n", count(report.summary.tokens as u64))
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
    out.insert("tokens".to_owned(), report.summary.tokens.into());
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
    out.insert("tokens".to_owned(), result.tokens.into());
    Value::Object(out)
}

/// What became of one row, read from what [`item`] wrote; nothing was computed for it now. Log-likelihoods may differ in their
/// last bit, on which no figure depends: which choice is the largest was written down.
pub(super) fn parsed(row: &Value) -> Option<ItemResult> {
    let word = |name: &str| row[name].as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let score = |choice: &Value| {
        let likelihood = LogLikelihood {
            sum: choice["loglikelihood"].as_f64()?,
            tokens: number(&choice["tokens"])?,
            greedy: choice["greedy"].as_bool()?,
        };
        Some(ChoiceScore { text: choice["text"].as_str()?.to_owned(), likelihood })
    };
    let outcome = match row["choices"].as_array() {
        Some(choices) => Outcome::Chosen(Choosing {
            scores: choices.iter().map(score).collect::<Option<_>>()?,
            right: number(&row["answer"])?,
            by_sum: number(&row["chosen"])?,
            by_byte: number(&row["chosen_norm"])?,
            by_token: number(&row["chosen_token"])?,
        }),
        None => Outcome::Written(Writing { text: word("text")?, correct: row["exact"].as_bool()? }),
    };
    let (id, category, tokens) = (word("id")?, word("category"), number(&row["tokens"])?);
    Some(ItemResult { id, category, outcome, tokens, computed: 0, reused: 0 })
}
