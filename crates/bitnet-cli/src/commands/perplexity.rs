//! `bitnet perplexity`: how well a model predicts a text.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use bitnet_inference::evaluate::WindowScore;
use bitnet_inference::{InferenceEngine, Perplexity, TextStart, TextWindows};
use serde_json::{Value, json};

use super::generate::read_whole;
use crate::args::PerplexityArgs;
use crate::error::CliError;
use crate::output::{self, Notes, Progress, Table, count};
use crate::{interrupt, model};

/// Tokens of a window unless told otherwise.
const WINDOW: usize = 511;

pub(super) fn run(args: &PerplexityArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let mut texts = Vec::with_capacity(args.files.len());
    for path in &args.files {
        texts.push((path.as_path(), read_whole(path)?));
    }
    let engine = model::engine(&args.model, notes)?;
    let windows = windows(args, &engine);
    if args.csv {
        output::result("file,window,token,context,tokens,nll,perplexity,so_far\n")?;
    }
    let listening = interrupt::listen();
    let mut results: Vec<(&Path, Perplexity)> = Vec::new();
    for (path, text) in &texts {
        if results.last().is_some_and(|(_, last)| !last.complete) || interrupt::requested() {
            break;
        }
        results.push((path, score(args, &engine, path, text, &windows, notes)?));
    }
    let complete = results.len() == texts.len() && results.iter().all(|(_, result)| result.complete);
    drop(listening);
    let method = method(&windows, engine.defaults().bos.is_some());
    if args.json {
        output::json(&json(&engine, &windows, &method, &results, complete))?;
    } else if args.csv {
        results.iter().for_each(|(_, result)| notes.say(&line(result)));
    } else {
        output::result(&text(&results, &method))?;
    }
    if complete {
        return Ok(ExitCode::SUCCESS);
    }
    notes.warn("interrupted: the figures are those of the windows so far");
    Ok(ExitCode::from(interrupt::EXIT_CODE))
}

fn windows(args: &PerplexityArgs, engine: &InferenceEngine) -> TextWindows {
    let start: TextStart = args.bos.into();
    let before = usize::from(start == TextStart::EachWindow && engine.defaults().bos.is_some());
    let most = engine.context().saturating_sub(before);
    // Who names a context wants windows that fill it.
    let size = args.window.unwrap_or(if args.model.ctx_size.is_some() { most } else { WINDOW.min(most) });
    TextWindows::new(size).stride(args.stride.unwrap_or(size)).start(start)
}

/// Scores one text.
fn score(
    args: &PerplexityArgs,
    engine: &InferenceEngine,
    path: &Path,
    text: &str,
    windows: &TextWindows,
    notes: Notes,
) -> Result<Perplexity, CliError> {
    let mut progress = Progress::new("scoring", notes);
    let mut failed = None;
    let result = engine.perplexity_with(text, windows, &mut |window| {
        progress.set(window.done as u64, window.total as u64);
        if args.csv {
            progress.hide(|| failed = output::result(&csv(path, window)).err());
        }
        let stop = failed.is_some() || interrupt::requested();
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    progress.clear();
    match failed {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

/// How the figures came about, in a line.
fn method(windows: &TextWindows, has_bos: bool) -> String {
    let TextWindows { size, stride, start } = *windows;
    let first = match start {
        _ if !has_bos => "no token that begins a text",
        TextStart::EachWindow => "the token that begins a text before each",
        TextStart::Once => "the token that begins a text once, before the first",
        TextStart::Never => "no token that begins a text",
    };
    let overlap = if stride == size {
        "side by side".to_owned()
    } else {
        format!(
            "every {stride} tokens, so that each token but the first has at least {} before it",
            size - stride
        )
    };
    format!("windows of {size} tokens {overlap}; {first}; each token scored once")
}

fn csv(path: &Path, window: &WindowScore) -> String {
    let WindowScore { index, position, context, tokens, nll, so_far, .. } = window;
    let name = path.display().to_string();
    // Quoted as a spreadsheet wants it.
    let name =
        if name.contains([',', '"', '\n']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name };
    let value = (nll / *tokens as f64).exp();
    format!("{name},{index},{position},{context},{tokens},{nll:.6},{value:.6},{so_far:.6}\n")
}

fn line(result: &Perplexity) -> String {
    let mean = result.nll / result.tokens as f64;
    let bits = result.bits_per_byte().map_or(String::new(), |bits| format!(", {bits:.4} bits per byte"));
    format!(
        "perplexity {:.4} ± {:.4} ({} tokens, {mean:.4} nats each{bits})",
        result.value, result.standard_error, result.tokens
    )
}

/// All of them together.
fn together(results: &[(&Path, Perplexity)]) -> Option<Perplexity> {
    results.iter().map(|(_, result)| *result).reduce(|all, result| all.and(&result))
}

fn text(results: &[(&Path, Perplexity)], method: &str) -> String {
    let Some(all) = together(results) else { return String::new() };
    let mut out = format!("{}\nmethod: {method}\n", line(&all));
    if results.len() > 1 {
        let mut table = Table::default();
        for (path, result) in results {
            let value = format!("{:.4} ± {:.4}", result.value, result.standard_error);
            table.row([&path.display(), &value, &format!("{} tokens", count(result.tokens as u64))]);
        }
        out += &format!("\n{table}");
    }
    out
}

fn json(
    engine: &InferenceEngine,
    windows: &TextWindows,
    method: &str,
    results: &[(&Path, Perplexity)],
    complete: bool,
) -> Value {
    let figures = |result: &Perplexity| {
        json!({
            "perplexity": result.value,
            "standard_error": result.standard_error,
            "nll": result.nll,
            "tokens": result.tokens,
            "bits_per_byte": result.bits_per_byte(),
        })
    };
    let mut out = json!({"model": engine.model().name});
    let file = |(path, result): &(&Path, Perplexity)| {
        let mut file = json!({"file": path.display().to_string()});
        merge(&mut file, figures(result));
        file
    };
    if let Some(all) = together(results) {
        merge(&mut out, figures(&all));
    }
    let settings = json!({
        "window": windows.size,
        "stride": windows.stride,
        "method": method,
        "kv_type": engine.info().kv_type.name(),
        "complete": complete,
        "files": results.iter().map(file).collect::<Vec<_>>(),
    });
    merge(&mut out, settings);
    out
}

/// Adds the fields of one object to another.
fn merge(object: &mut Value, other: Value) {
    if let (Value::Object(object), Value::Object(other)) = (object, other) {
        object.extend(other);
    }
}
