//! Changing the file: what was not changed stays as it was written.

use std::path::Path;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use super::keys::{self, Setting};
use super::read::unknown;
use super::{HUB_SWITCH, Settings, check};
use crate::error::CliError;

/// What a new file says.
pub(crate) const TEMPLATE: &str = "\
# Settings of bitnet. Flags come before environment variables, these before this file.
# `bitnet config show` lists all settings, with their values and where these come from.

# model = \"microsoft/bitnet-b1.58-2B-4T\"
# threads = 4
# ctx_size = 4096
# kv_type = \"f16\"

[sampling]
# temp = 0.7
# top_p = 0.9

[hub]
# cache = \"/large/disk/huggingface/hub\"
# offline = false

[server]
# host = \"127.0.0.1\"
# port = 8080
";

/// The text of the file with a setting set, or with none left out.
///
/// # Errors
/// If there is no such setting, or its value is not possible.
pub(crate) fn edited(path: &Path, text: &str, name: &str, value: Option<&str>) -> Result<String, CliError> {
    let setting = keys::find(name).ok_or_else(|| unknown(name))?;
    // Says what is wrong with the file as it is, with its line.
    Settings::read(path, text)?;
    let mut document: DocumentMut =
        text.parse().map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
    let (section, key) = name.split_once('.').map_or((None, name), |(section, key)| (Some(section), key));
    let root = document.as_table_mut();
    let table = match section {
        None => root,
        Some(section) => {
            let item = root.entry(section).or_insert_with(|| Item::Table(Table::new()));
            item.as_table_mut()
                .ok_or_else(|| CliError::usage(format!("{}: {section} is no section", path.display())))?
        }
    };
    match value {
        Some(value) => {
            let value = typed(&setting, value)?;
            // Comments beside the old value stay.
            match table.get_mut(key).and_then(Item::as_value_mut) {
                Some(old) => {
                    let decor = old.decor().clone();
                    *old = value;
                    *old.decor_mut() = decor;
                }
                None if section.is_none() => insert_on_top(table, key, value),
                None => drop(table.insert(key, Item::Value(value))),
            }
        }
        None => drop(table.remove(key)),
    }
    let new = document.to_string();
    check(&Settings::read(path, &new)?)?;
    Ok(new)
}

/// Puts a setting behind the comments that a file begins with, which belong to its first section for a parser.
fn insert_on_top(root: &mut Table, key: &str, value: Value) {
    let is_first = !root.iter().any(|(_, item)| item.is_value());
    let comments = root
        .iter_mut()
        .filter_map(|(_, item)| item.as_table_mut())
        .filter(|table| is_first && table.position().is_some())
        .min_by_key(|table| table.position())
        .and_then(|section| {
            let comments = section.decor().prefix()?.as_str()?.to_owned();
            section.decor_mut().set_prefix("\n");
            Some(comments)
        });
    root.insert(key, Item::Value(value));
    if let (Some(comments), Some(mut key)) = (comments, root.key_mut(key)) {
        key.leaf_decor_mut().set_prefix(comments);
    }
}

/// A value in the type that suits it.
fn typed(setting: &Setting, text: &str) -> Result<Value, CliError> {
    Ok(match setting {
        Setting::Server(key) => {
            let wrong =
                |allowed| CliError::usage(format!("server.{} = {text:?}: this is not {allowed}", key.name));
            of_json(&key.read(text).map_err(wrong)?)
        }
        Setting::Hub(hub) if hub.name == HUB_SWITCH => {
            text.parse::<bool>().map_or_else(|_| text.into(), Value::from)
        }
        Setting::Hub(_) => text.into(),
        Setting::Flag(_) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) if text.contains('.') && number.to_string() == text => number.into(),
            _ => text.into(),
        },
    })
}

fn of_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(yes) => (*yes).into(),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Value::from)
        }
        serde_json::Value::Array(values) => values.iter().map(of_json).collect::<Array>().into(),
        serde_json::Value::Object(members) => {
            members.iter().map(|(name, value)| (name, of_json(value))).collect::<InlineTable>().into()
        }
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Null => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, name: &str, value: Option<&str>) -> Result<String, String> {
        edited(Path::new("c.toml"), text, name, value).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn values_are_set_and_taken_away_and_comments_stay() {
        let text = "# mine\nthreads = 2 # two\n\n[sampling]\ntemp = 0.5\n";
        let changed = edit(text, "threads", Some("3")).unwrap();
        assert_eq!(changed, "# mine\nthreads = 3 # two\n\n[sampling]\ntemp = 0.5\n");
        let added = edit(&changed, "sampling.top_k", Some("40")).unwrap();
        assert!(added.contains("temp = 0.5\ntop_k = 40\n"), "{added}");
        let removed = edit(&added, "sampling.temp", None).unwrap();
        assert!(!removed.contains("temp") && removed.contains("top_k = 40"), "{removed}");
        let fresh = edit("", "server.cors_origin", Some("http://a, http://b")).unwrap();
        assert_eq!(fresh, "[server]\ncors_origin = [\"http://a\", \"http://b\"]\n");
        let model = edit("", "server.models", Some("small=a.gguf")).unwrap();
        assert!(model.contains("name = \"small\", path = \"a.gguf\""), "{model}");
    }

    #[test]
    fn a_first_setting_stands_behind_the_comments_of_the_file() {
        let text = edit(TEMPLATE, "threads", Some("3")).unwrap();
        let threads = text.find("\nthreads = 3\n").unwrap();
        assert!(text.starts_with("# Settings") && threads > text.find("# kv_type").unwrap(), "{text}");
        assert!(threads < text.find("[sampling]").unwrap(), "{text}");
        let more = edit(&text, "kernels", Some("scalar")).unwrap();
        assert!(
            more.starts_with("# Settings") && more.contains("threads = 3\nkernels = \"scalar\"\n"),
            "{more}"
        );
    }

    #[test]
    fn numbers_keep_their_digits() {
        for (text, line) in [("18446744073709551615", "seed = \"18446744073709551615\""), ("7", "seed = 7")] {
            let text = edit("", "sampling.seed", Some(text)).unwrap();
            assert!(text.contains(line), "{text}");
        }
        assert!(edit("", "sampling.temp", Some("0.25")).unwrap().contains("temp = 0.25"));
    }

    #[test]
    fn what_is_not_possible_is_not_written() {
        for (name, value) in [
            ("threads", "0"),
            ("sampling.temp", "warm"),
            ("server.port", "many"),
            ("server.port", "99999"),
            ("tmep", "1"),
        ] {
            assert!(edit("", name, Some(value)).is_err(), "{name} = {value}");
        }
        assert!(edit("treads = 1", "threads", Some("1")).unwrap_err().contains("treads"));
    }

    #[test]
    fn the_template_is_a_file_without_settings() {
        let settings = Settings::read(Path::new("c.toml"), TEMPLATE).unwrap();
        assert!(settings.values.is_empty());
        // What is only a comment in it is possible as well.
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let settings = Settings::read(Path::new("c.toml"), &uncommented).unwrap();
        assert!(settings.values.len() >= 6);
        check(&settings).unwrap();
    }
}
