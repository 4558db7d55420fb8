//! What is said on stderr, a line each: in colours for people, or as JSON for machines, in the form of the server's log.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bitnet_server::logging::rfc3339;
use console::Style;
use serde_json::{Map, Value, json};

use crate::args::LogFormat;

/// Whether machines read stderr. Set once, when the command line was read.
static JSON: AtomicBool = AtomicBool::new(false);

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Chooses the form of all that follows.
pub(crate) fn set_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Whether machines read stderr.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether a command line that cannot be understood asks for JSON.
pub(crate) fn wants_json(args: &[std::ffi::OsString]) -> bool {
    let by_flag = args.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    let by_word = args.iter().any(|arg| arg == "--log-format=json");
    by_flag || by_word || std::env::var_os("BITNET_LOG_FORMAT").is_some_and(|format| format == "json")
}

/// Says something.
pub(super) fn event(level: Level, text: &str) {
    if is_json() {
        return line(&object(level, text, Map::new()));
    }
    let style = Style::new().for_stderr();
    match level {
        Level::Error => line(&format!("{} {text}", style.red().bold().apply_to("error:"))),
        Level::Warn => line(&format!("{} {text}", style.yellow().apply_to("warning:"))),
        Level::Info | Level::Debug => line(&style.dim().apply_to(text).to_string()),
    }
}

/// Says why a command failed, what lies behind that, and what to try.
pub(crate) fn failure(message: &str, causes: &[String], hint: Option<&str>) {
    if is_json() {
        let mut more = Map::new();
        if !causes.is_empty() {
            more.insert("causes".to_owned(), json!(causes));
        }
        more.extend(hint.map(|hint| ("hint".to_owned(), json!(hint))));
        return line(&object(Level::Error, message, more));
    }
    event(Level::Error, message);
    for cause in causes {
        line(&format!("  {} {cause}", Style::new().for_stderr().red().apply_to("because:")));
    }
    if let Some(hint) = hint {
        line(&format!("{} {hint}", Style::new().for_stderr().cyan().apply_to("hint:")));
    }
}

fn object(level: Level, text: &str, more: Map<String, Value>) -> String {
    let level = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    };
    let mut object = Map::new();
    object.insert("timestamp".to_owned(), json!(rfc3339(SystemTime::now())));
    object.insert("level".to_owned(), json!(level));
    object.insert("message".to_owned(), json!(text));
    object.extend(more);
    Value::Object(object).to_string()
}

/// A line on stderr. If stderr is closed there is no place left for complaints.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
