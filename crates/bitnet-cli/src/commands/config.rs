//! `bitnet config`: the settings, and the file that keeps them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bitnet_server::config::{ConfigSources, Effective};
use clap::Arg;
use serde_json::{Value, json};

use crate::args::{ConfigAction, ConfigArgs};
use crate::config::keys::{self, Setting};
use crate::config::{self, Settings, TEMPLATE, check, edited};
use crate::error::CliError;
use crate::output::{self, Notes, Table};
use crate::{folders, hub};

pub(super) fn run(args: &ConfigArgs, notes: Notes) -> Result<ExitCode, CliError> {
    match args.action.as_ref().unwrap_or(&ConfigAction::Show { json: false }) {
        ConfigAction::Show { json } => show(*json)?,
        ConfigAction::Path => output::result(&format!("{}\n", path()?.display()))?,
        ConfigAction::Get { name } => return get(name),
        ConfigAction::Set { name, value } => {
            change(name, Some(value))?;
            notes.say(&format!("{name} is set in {}", path()?.display()));
        }
        ConfigAction::Unset { name } => {
            change(name, None)?;
            notes.say(&format!("{name} is not set in {}", path()?.display()));
        }
        ConfigAction::Edit => edit(notes)?,
        ConfigAction::Init { force } => init(*force, notes)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The file, whether it is there or not.
fn path() -> Result<PathBuf, CliError> {
    config::path(&folders::environment).ok_or_else(|| {
        CliError::usage("there is no file for settings")
            .hint("set HOME, or BITNET_CONFIG to the name of a file")
    })
}

/// A setting with its value in use.
struct Row {
    name: String,
    value: Option<Value>,
    origin: String,
}

/// All settings as the commands see them now.
fn rows() -> Result<Vec<Row>, CliError> {
    // Complains about a file that cannot be used, which the command line did not.
    let settings = Settings::load()?;
    check(&settings)?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources = ConfigSources {
        environment: environment.collect(),
        section: settings.section(),
        ..ConfigSources::default()
    };
    let server = sources.load().map_err(|error| CliError::of(&error, true))?;
    let values = serde_json::to_value(&server.config).unwrap_or_default();
    keys::all().iter().map(|setting| row(setting, &settings, &server, &values)).collect()
}

fn row(setting: &Setting, settings: &Settings, server: &Effective, values: &Value) -> Result<Row, CliError> {
    let name = setting.name();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let in_file = settings.get(&name).zip(settings.path.as_ref());
    let from_file = in_file.map(|(value, path)| (json!(value), format!("file {}", path.display())));
    let from = |env: &str, value: String| (json!(value), format!("environment variable {env}"));
    let (value, origin) = match setting {
        Setting::Server(key) => {
            let hidden = key.name == "api_key" && values[key.name] != json!([]);
            let value = if hidden { json!("(not shown)") } else { values[key.name].clone() };
            let value = Some(value).filter(|value| !value.is_null());
            return Ok(Row { name, value, origin: server.origin(key.name).to_owned() });
        }
        Setting::Flag(flag) => match variable(&flag.env).map(|value| from(&flag.env, value)).or(from_file) {
            Some(found) => found,
            None => return Ok(Row { name, value: default(&flag.arg), origin: "default".to_owned() }),
        },
        Setting::Hub(setting) => {
            let set = setting.variables.iter().find(|name| variable(name).is_some());
            let config = hub::config()?;
            let value = match setting.name {
                "hub.cache" => json!(config.cache),
                "hub.endpoint" => json!(config.endpoint),
                _ => json!(config.offline),
            };
            let origin = match (set, from_file) {
                (Some(variable), _) => format!("environment variable {variable}"),
                (None, Some((_, origin))) => origin,
                (None, None) => "default".to_owned(),
            };
            (value, origin)
        }
    };
    Ok(Row { name, value: Some(value), origin })
}

fn default(arg: &Arg) -> Option<Value> {
    arg.get_default_values().first().map(|value| json!(value.to_string_lossy()))
}

/// A value for people.
fn plain(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) if values.is_empty() => "-".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn show(as_json: bool) -> Result<(), CliError> {
    let rows = rows()?;
    if as_json {
        let row = |row: &Row| json!({"name": row.name, "value": row.value, "origin": row.origin});
        return output::json(&rows.iter().map(row).collect());
    }
    let mut table = Table::default();
    table.row([&"NAME", &"VALUE", &"FROM"]);
    for row in &rows {
        table.row([&row.name, &plain(row.value.as_ref()), &row.origin]);
    }
    output::result(&table.to_string())
}

fn get(name: &str) -> Result<ExitCode, CliError> {
    if keys::find(name).is_none() {
        return Err(config::unknown(name));
    }
    let row = rows()?.into_iter().find(|row| row.name == name);
    match row.and_then(|row| row.value) {
        Some(value) => {
            output::result(&format!("{}\n", plain(Some(&value))))?;
            Ok(ExitCode::SUCCESS)
        }
        // As git does it: nothing to print, and scripts see that.
        None => Ok(ExitCode::from(crate::error::EXIT_FAILED)),
    }
}

/// The text of the file; nothing if there is none.
fn text_of(path: &Path) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

fn change(name: &str, value: Option<&str>) -> Result<(), CliError> {
    if keys::find(name).is_none() {
        return Err(config::unknown(name));
    }
    let path = path()?;
    let text = text_of(&path)?.unwrap_or_default();
    let new = edited(&path, &text, name, value)?;
    if new == text { Ok(()) } else { output::write_file_in_folder(&path, new.as_bytes()) }
}

fn init(force: bool, notes: Notes) -> Result<(), CliError> {
    let path = path()?;
    if path.exists() && !force {
        let error = CliError::failed(format!("{} is there already", path.display()));
        return Err(error.hint("--force writes over it; `bitnet config edit` opens it"));
    }
    output::write_file_in_folder(&path, TEMPLATE.as_bytes())?;
    notes.say(&format!("wrote {}", path.display()));
    Ok(())
}

fn edit(notes: Notes) -> Result<(), CliError> {
    let path = path()?;
    if !path.exists() {
        output::write_file_in_folder(&path, TEMPLATE.as_bytes())?;
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    let editor = editor.unwrap_or_else(|| if cfg!(windows) { "notepad" } else { "vi" }.to_owned());
    let words = shlex::split(&editor).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| CliError::usage(format!("the editor {editor:?} is no command")))?;
    let status = std::process::Command::new(&words[0]).args(&words[1..]).arg(&path).status();
    let status = status.map_err(|error| {
        CliError::failed(format!("cannot start the editor {editor}: {error}"))
            .hint("set EDITOR to one that is there")
    })?;
    if !status.success() {
        return Err(CliError::failed(format!("the editor {editor} failed ({status})")));
    }
    check(&Settings::open(&path)?)?;
    notes.say(&format!("{} is good", path.display()));
    Ok(())
}
