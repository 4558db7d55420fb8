//! `bitnet embed`: texts to vectors.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use bitnet_inference::{EmbedOptions, Embeddings, EngineError, InferenceEngine, cosine_similarity};
use serde_json::{Value, json};

use super::generate::read;
use crate::args::{EmbedArgs, EmbedFormat};
use crate::error::CliError;
use crate::model;
use crate::output::{self, Notes, Progress, Table};

pub(super) fn run(args: &EmbedArgs, notes: Notes) -> Result<ExitCode, CliError> {
    if args.similarity && matches!(args.format, Some(EmbedFormat::Raw | EmbedFormat::Jsonl)) {
        return Err(CliError::usage("--similarity gives a table, --format json or --format csv"));
    }
    let texts = texts(args)?;
    let engine = model::engine(&args.model, notes)?;
    let options = EmbedOptions {
        pooling: args.pooling,
        normalize: !args.no_normalize && engine.model().embedding.normalize.unwrap_or(true),
        instruct: args.instruct.clone(),
        truncate: args.truncate,
    };
    let mut progress = Progress::new("embedding", notes);
    let result =
        engine.embed_with(&texts, &options, &mut |done, total| progress.set(done as u64, total as u64));
    progress.clear();
    let embeddings = result.map_err(|error| match &error {
        EngineError::TextTooLong { .. } => CliError::from(error).hint("--truncate cuts it"),
        _ => error.into(),
    })?;
    if args.similarity {
        similarity(&texts, &embeddings, args.format)?;
    } else {
        vectors(&engine, &embeddings, &options, args.format.unwrap_or(EmbedFormat::Json))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The texts: arguments, or lines of a file or of stdin.
fn texts(args: &EmbedArgs) -> Result<Vec<String>, CliError> {
    let content = match &args.file {
        Some(path) => read(path)?,
        None if !args.texts.is_empty() => return Ok(args.texts.clone()),
        None if std::io::stdin().is_terminal() => {
            return Err(CliError::usage(
                "there is nothing to embed; give texts, --file FILE, or lines on stdin",
            ));
        }
        None => read(Path::new("-"))?,
    };
    let texts: Vec<String> = content.lines().map(str::to_owned).collect();
    if texts.is_empty() { Err(CliError::failed("there is nothing to embed: no lines")) } else { Ok(texts) }
}

/// A float as its shortest decimal.
fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn vectors(
    engine: &InferenceEngine,
    embeddings: &Embeddings,
    options: &EmbedOptions,
    format: EmbedFormat,
) -> Result<(), CliError> {
    let each = embeddings.vectors.iter().zip(&embeddings.tokens).enumerate();
    let object = |(index, (vector, tokens)): (usize, (&Vec<f32>, &usize))| {
        let numbers: Vec<Value> = vector.iter().map(|&x| number(x)).collect();
        json!({"index": index, "tokens": tokens, "embedding": numbers})
    };
    match format {
        EmbedFormat::Json => {
            let all = json!({
                "model": engine.model().name,
                "dimensions": engine.spec().hidden_size,
                "pooling": embeddings.pooling.name(),
                "normalized": options.normalize,
                "embeddings": each.map(object).collect::<Vec<_>>(),
            });
            output::result(&format!("{all}\n"))
        }
        EmbedFormat::Jsonl => each.map(object).try_for_each(|object| output::result(&format!("{object}\n"))),
        EmbedFormat::Csv => embeddings.vectors.iter().try_for_each(|vector| {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            output::result(&format!("{}\n", numbers.join(",")))
        }),
        EmbedFormat::Raw => {
            let bytes: Vec<u8> = embeddings.vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            Ok(out.flush()?)
        }
    }
}

fn similarity(
    texts: &[String],
    embeddings: &Embeddings,
    format: Option<EmbedFormat>,
) -> Result<(), CliError> {
    let rows: Vec<Vec<f64>> = embeddings
        .vectors
        .iter()
        .map(|a| embeddings.vectors.iter().map(|b| cosine_similarity(a, b)).collect())
        .collect();
    match format {
        Some(EmbedFormat::Json) => output::json(&json!({"texts": texts, "similarity": rows})),
        Some(_) => {
            let mut out = String::new();
            for row in &rows {
                let numbers: Vec<String> = row.iter().map(|x| format!("{x:.6}")).collect();
                let _ = writeln!(out, "{}", numbers.join(","));
            }
            output::result(&out)
        }
        None => output::result(&table(texts, &rows)),
    }
}

/// The cosines under the numbers of the texts, the texts at the side.
fn table(texts: &[String], rows: &[Vec<f64>]) -> String {
    let mut table = Table::default();
    let brief = |text: &str| match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    };
    let head: Vec<String> = (1..=texts.len()).map(|i| format!("{i:>7}")).collect();
    table.row([&"", &head.concat()]);
    for (i, (text, row)) in texts.iter().zip(rows).enumerate() {
        let cells: Vec<String> = row.iter().map(|x| format!("{x:>7.3}")).collect();
        table.row([&format!("{} {}", i + 1, brief(text)), &cells.concat()]);
    }
    table.to_string()
}
