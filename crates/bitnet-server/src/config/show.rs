//! A configuration as TOML, with where its values came from.

use std::fmt::Write as _;

use serde_json::Value;

use super::ServerConfig;
use super::keys::KEYS;

/// A TOML file that gives this configuration, but for the keys, which are not told.
pub(super) fn toml(config: &ServerConfig, origins: &[(&'static str, String)]) -> String {
    let values = serde_json::to_value(config).unwrap_or_default();
    let mut out = String::new();
    for key in KEYS {
        let value = values.get(key.name).unwrap_or(&Value::Null);
        let origin = origins.iter().find(|(name, _)| *name == key.name);
        let origin = origin.map_or("default", |(_, origin)| origin.as_str());
        // A file name could have a line break, which would end the comment.
        let origin: String = origin.chars().filter(|c| !c.is_control()).collect();
        let name = key.name;
        let _ = match value {
            Value::Null => writeln!(out, "# {name} is not set"),
            Value::Array(keys) if name == "api_key" && !keys.is_empty() => {
                writeln!(out, "# {name} has {} (not shown)  # {origin}", keys.len())
            }
            value => writeln!(out, "{name} = {}  # {origin}", inline(value)),
        };
    }
    out
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        // JSON's escapes are TOML's; but one character that TOML wants escaped.
        Value::String(text) => Value::from(text.as_str()).to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name} = {}", inline(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}
