//! From a TOML file to [`Settings`].

use std::ops::Range;
use std::path::Path;

use bitnet_server::config::keys::KEYS;
use serde_json::{Map, Value, json};
use toml_edit::{ImDocument, Item, TableLike};

use super::{SHARED, Settings, keys, path};
use crate::error::CliError;
use crate::folders::{Lookup, environment};

/// Sections of settings that are not the server's.
const SECTIONS: [&str; 2] = ["sampling", "hub"];

impl Settings {
    /// The settings of the file there is, if there is one.
    ///
    /// # Errors
    /// If the file that was named is not there, or it has something that is no setting.
    pub(crate) fn load() -> Result<Self, CliError> {
        let get: Lookup<'_> = &environment;
        let Some(path) = path(get) else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::read(&path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && get(super::VARIABLE).is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// The settings of a file for `bitnet serve`, whose settings may stand outside any section.
    ///
    /// # Errors
    /// If it cannot be read; as [`load`](Self::load).
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::read_with(path, &text, true)
    }

    /// The settings of a text.
    ///
    /// # Errors
    /// With file and line, for what is no TOML, no setting, or no single value.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Self, CliError> {
        Self::read_with(path, text, false)
    }

    fn read_with(path: &Path, text: &str, serves: bool) -> Result<Self, CliError> {
        let place = Place { path, text };
        let document: ImDocument<&str> =
            ImDocument::parse(text).map_err(|error| place.error(error.span(), error.message()))?;
        let mut settings = Self { path: Some(path.to_owned()), ..Self::default() };
        let root = document.as_table();
        if is_for_a_server(root, serves) {
            settings.server = object(root);
            return Ok(settings);
        }
        for (name, item) in root.iter() {
            match item.as_table_like() {
                Some(table) if name == "server" => settings.server = object(table),
                Some(table) if SECTIONS.contains(&name) => {
                    settings.add(table, &format!("{name}."), &place)?;
                }
                _ => settings.add_one(root, name, name.to_owned(), item, &place)?,
            }
        }
        Ok(settings)
    }

    fn add(&mut self, table: &dyn TableLike, section: &str, place: &Place<'_>) -> Result<(), CliError> {
        for (name, item) in table.iter() {
            self.add_one(table, name, format!("{section}{name}"), item, place)?;
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        table: &dyn TableLike,
        key: &str,
        name: String,
        item: &Item,
        place: &Place<'_>,
    ) -> Result<(), CliError> {
        let span = || table.key(key).and_then(toml_edit::Key::span);
        if keys::find(&name).is_none() {
            return Err(place.unknown(span(), &name));
        }
        let value = single(item)
            .ok_or_else(|| place.error(span(), &format!("{name} must be a text, a number, true or false")))?;
        self.values.push((name, value));
        Ok(())
    }
}

/// Where something stands.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn error(&self, span: Option<Range<usize>>, problem: &str) -> CliError {
        let path = self.path.display();
        CliError::usage(match span.and_then(|span| self.text.get(..span.start)) {
            Some(before) => format!("{path}, line {}: {problem}", before.matches('\n').count() + 1),
            None => format!("{path}: {problem}"),
        })
    }

    fn unknown(&self, span: Option<Range<usize>>, name: &str) -> CliError {
        meant(self.error(span, &format!("there is no setting `{name}`")), name)
    }
}

/// The error for a name of a setting that there is not.
pub(crate) fn unknown(name: &str) -> CliError {
    meant(CliError::usage(format!("there is no setting `{name}`")), name)
}

/// Adds which setting was perhaps meant.
fn meant(error: CliError, name: &str) -> CliError {
    match keys::nearest(name) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`bitnet config show` lists all settings"),
    }
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format!("cannot read the settings in {}: {error}", path.display()))
}

/// Whether a file is one for `bitnet serve` alone, with the settings of a server outside any section. If it was given to
/// `bitnet serve`, it is unless it has something that no such file has.
fn is_for_a_server(root: &dyn TableLike, serves: bool) -> bool {
    let is_ours = |name: &str| ["model", "lm_head", "server"].contains(&name) || SECTIONS.contains(&name);
    let is_servers = |name: &str| !SHARED.contains(&name) && KEYS.iter().any(|key| key.name == name);
    let mut names = root.iter().map(|(name, _)| name);
    !root.iter().any(|(name, _)| is_ours(name)) && (serves || names.any(is_servers))
}

/// A single value as a person would write it after a flag.
fn single(item: &Item) -> Option<String> {
    Some(match item.as_value()? {
        toml_edit::Value::String(text) => text.value().clone(),
        toml_edit::Value::Integer(number) => number.value().to_string(),
        toml_edit::Value::Float(number) => number.value().to_string(),
        toml_edit::Value::Boolean(yes) => yes.value().to_string(),
        _ => return None,
    })
}

fn object(table: &dyn TableLike) -> Map<String, Value> {
    table.iter().map(|(name, item)| (name.to_owned(), json_of(item))).collect()
}

/// The same as JSON.
fn json_of(item: &Item) -> Value {
    if let Some(table) = item.as_table_like() {
        return Value::Object(object(table));
    }
    if let Some(tables) = item.as_array_of_tables() {
        return tables.iter().map(|table| Value::Object(object(table))).collect();
    }
    match item.as_value() {
        Some(toml_edit::Value::Integer(number)) => json!(number.value()),
        Some(toml_edit::Value::Float(number)) => json!(number.value()),
        Some(toml_edit::Value::Boolean(yes)) => json!(yes.value()),
        Some(toml_edit::Value::Array(values)) => {
            values.iter().map(|value| json_of(&Item::Value(value.clone()))).collect()
        }
        Some(value) => json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> (String, String) {
        match Settings::read(Path::new("c.toml"), text) {
            Err(CliError::Failed { message, hint, usage: true, .. }) => (message, hint.unwrap_or_default()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, message, hint) in [
            ("\ntreads = 1", "c.toml, line 2: there is no setting `treads`", "`threads`"),
            ("[sampling]\ntopk = 1", "line 2: there is no setting `sampling.topk`", "`sampling.top_k`"),
            ("temp = 1.0", "there is no setting `temp`", "`sampling.temp`"),
            ("threads = [1]", "line 1: threads must be a text", ""),
            ("[other]\na = 1", "there is no setting `other`", "bitnet config show"),
            ("threads = ", "line 1", ""),
        ] {
            let (told, hinted) = fails(text);
            assert!(told.contains(message) && hinted.contains(hint), "{text}: {told} / {hinted}");
        }
    }

    #[test]
    fn a_file_for_a_server_alone_is_a_section() {
        let settings =
            Settings::read(Path::new("s.toml"), "port = 1\nthreads = 2\ncors_origin = [\"*\"]\n").unwrap();
        let expected = json!({"port": 1, "threads": 2, "cors_origin": ["*"]});
        assert_eq!(Value::Object(settings.section().unwrap().values), expected);
        assert_eq!(settings.get("threads"), None);
        let tables = "[server]\n[[server.models]]\nname = \"a\"\npath = \"b\"\n";
        let settings = Settings::read(Path::new("s.toml"), tables).unwrap();
        assert_eq!(settings.section().unwrap().values["models"], json!([{"name": "a", "path": "b"}]));
    }
}
