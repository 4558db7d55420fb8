//! `bitnet ps`: what servers have loaded.

use std::process::ExitCode;
use std::time::Duration;

use bitnet_core::MemorySize;
use serde_json::{Value, json};

use crate::args::PsArgs;
use crate::client::{Client, clients};
use crate::error::CliError;
use crate::output::{self, Notes, Table, lasting};

pub(super) fn run(args: &PsArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let asked: Vec<(Client, Value)> = clients(&args.client)?
        .into_iter()
        .map(|client| client.status().map(|status| (client, status)))
        .collect::<Result<_, _>>()?;
    if args.json {
        output::json(&asked.into_iter().map(|(client, status)| with_url(&client, status)).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (client, status) in &asked {
        notes.say(&about(client, status));
        let text = table(status);
        if text.is_empty() {
            notes.say("no model is loaded; a request loads one");
        } else {
            output::result(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn with_url(client: &Client, mut status: Value) -> Value {
    let mut whole = json!({"url": client.url});
    if let (Some(whole), Some(status)) = (whole.as_object_mut(), status.as_object_mut()) {
        whole.append(status);
    }
    whole
}

/// One line about a server.
fn about(client: &Client, status: &Value) -> String {
    let memory = &status["memory"];
    let size = |value: &Value| MemorySize::bytes(value.as_u64().unwrap_or(0));
    let (version, up) = (status["server"]["version"].as_str(), seconds(&status["server"]["uptime_seconds"]));
    format!(
        "{}: bitnet {}, up {}, models take {} of {}",
        client.url,
        version.unwrap_or("(an older version)"),
        up.map_or_else(|| "for an unknown time".to_owned(), lasting),
        size(&memory["resident_bytes"]),
        size(&memory["budget_bytes"]),
    )
}

fn seconds(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()?).ok()
}

/// The models that are loaded or on their way; nothing if there are none.
fn table(status: &Value) -> String {
    let models = status["models"].as_array().map_or(&[][..], Vec::as_slice);
    let shown = models.iter().filter(|model| matches!(state(model), "loaded" | "loading"));
    let rows: Vec<[String; 6]> = shown.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    table.row([&"NAME", &"SIZE", &"CONTEXT", &"SLOTS", &"TOKENS/S", &"UP"]);
    for [name, size, context, slots, speed, up] in &rows {
        table.row([name, size, context, slots, speed, up]);
    }
    table.to_string()
}

fn state(model: &Value) -> &str {
    model["status"]["value"].as_str().unwrap_or_default()
}

fn row(model: &Value) -> [String; 6] {
    let name = model["id"].as_str().unwrap_or_default().to_owned();
    if state(model) == "loading" {
        return [name, "loading".to_owned(), String::new(), String::new(), String::new(), String::new()];
    }
    let slots = &model["slots"];
    let waiting = match slots["waiting"].as_u64() {
        None | Some(0) => String::new(),
        Some(waiting) => format!(" ({waiting} waiting)"),
    };
    [
        name,
        MemorySize::bytes(model["weight_bytes"].as_u64().unwrap_or(0)).to_string(),
        model["context"].to_string(),
        format!("{} of {}{waiting}", slots["running"], slots["most"]),
        speed(&model["tokens_per_second"]),
        seconds(&model["loaded_seconds"]).map_or_else(|| "-".to_owned(), lasting),
    ]
}

/// What is generated now by all requests together, else the mean of the texts so far.
fn speed(speed: &Value) -> String {
    match (speed["now"].as_f64(), speed["of_a_text"].as_f64()) {
        (Some(now), _) if now > 0.0 => format!("{now:.1} now"),
        (_, Some(mean)) => format!("{mean:.1}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_tell_what_models_do() {
        let model = json!({
            "id": "m", "status": {"value": "loaded"}, "weight_bytes": 1 << 20, "context": 512,
            "slots": {"running": 1, "waiting": 2, "most": 64}, "tokens_per_second": {"now": 12.34, "of_a_text": 99.0},
            "loaded_seconds": 61.0,
        });
        assert_eq!(row(&model), ["m", "1.0 MiB", "512", "1 of 64 (2 waiting)", "12.3 now", "1 minute"]);
        let idle = json!({"now": 0.0, "of_a_text": 99.0});
        assert_eq!((speed(&idle).as_str(), speed(&json!({"now": 0.0})).as_str()), ("99.0", "-"));
        assert_eq!(table(&json!({"models": [{"id": "m", "status": {"value": "unloaded"}}]})), "");
    }
}
