//! Typed access to the fields of a JSON configuration file; every error names file and field.
//!
//! A field that is `null` counts as absent, as it does in transformers.

use serde_json::{Map, Value};

use super::error::{LoadError, Result};

/// Largest configuration file that is parsed; real ones have a few kilobytes.
const MAX_BYTES: usize = 64 << 20;

/// A parsed configuration file.
#[derive(Debug)]
pub(super) struct JsonFile {
    origin: String,
    root: Map<String, Value>,
}

/// An object in a configuration file.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    origin: &'a str,
    /// Names of the enclosing objects, each followed by a dot.
    path: String,
    map: &'a Map<String, Value>,
}

impl JsonFile {
    /// Parses a file whose outermost value is an object.
    pub(super) fn parse(bytes: &[u8], origin: &str) -> Result<Self> {
        let bad = |message: String| LoadError::Json { file: origin.to_owned(), message };
        if bytes.len() > MAX_BYTES {
            return Err(bad(format!("it has {} bytes, far more than any configuration", bytes.len())));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))? {
            Value::Object(root) => Ok(Self { origin: origin.to_owned(), root }),
            other => Err(bad(format!("the outermost value is {}, not an object", brief(&other)))),
        }
    }

    /// The outermost object.
    pub(super) fn root(&self) -> Section<'_> {
        Section { origin: &self.origin, path: String::new(), map: &self.root }
    }
}

/// A value as it stands in a message.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}

impl<'a> Section<'a> {
    /// The file's name.
    pub(super) fn origin(&self) -> &'a str {
        self.origin
    }

    /// The full name of a field, for messages.
    pub(super) fn field(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// The value of a field unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there and null.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// The error for a field of the wrong kind or size.
    pub(super) fn wrong(&self, name: &str, expected: impl Into<String>) -> LoadError {
        let value = self.map.get(name).map_or_else(|| "absent".to_owned(), brief);
        LoadError::Field {
            file: self.origin.to_owned(),
            field: self.field(name),
            value,
            expected: expected.into(),
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(name, expected)),
        }
    }

    /// A whole number of at least 0.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number of at least 0", |v| usize::try_from(v.as_u64()?).ok())
    }

    /// A whole number that must be there.
    pub(super) fn required_count(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    /// The error for a field that is not there.
    pub(super) fn missing(&self, name: &str) -> LoadError {
        let remedy = "take the configuration from where the weights came from";
        LoadError::MissingField { file: self.origin.to_owned(), field: self.field(name), remedy }
    }

    /// A finite number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// True or false.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a string", Value::as_str)
    }

    /// A list of strings.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(name, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// An object.
    pub(super) fn section(&self, name: &str) -> Result<Option<Section<'a>>> {
        let path = format!("{}.", self.field(name));
        let origin = self.origin;
        self.typed(name, "an object", |v| {
            v.as_object().map(|map| Section { origin, path: path.clone(), map })
        })
    }

    /// One token id or a list of them. Negative numbers mean "none", as in old configurations.
    pub(super) fn token_ids(&self, name: &str) -> Result<Vec<u32>> {
        let read = |value: &Value| match value.as_i64() {
            Some(id) if id < 0 => Some(None),
            Some(id) => u32::try_from(id).ok().map(Some),
            None => None,
        };
        let ids = self.typed(name, "a token id or a list of token ids", |value| match value {
            Value::Array(items) => items.iter().map(read).collect::<Option<Vec<_>>>(),
            one => read(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default().into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_field_and_value() {
        let file =
            JsonFile::parse(br#"{"a": "x", "b": {"c": -1}, "n": null, "e": [1, -1, 2]}"#, "m/config.json")
                .unwrap();
        let root = file.root();
        assert_eq!(
            root.count("a").unwrap_err().to_string(),
            "m/config.json: a is \"x\", but must be a whole number of at least 0"
        );
        let b = root.section("b").unwrap().unwrap();
        assert!(b.count("c").unwrap_err().to_string().starts_with("m/config.json: b.c is -1"));
        assert!(root.count("n").unwrap().is_none());
        assert!(root.required_count("z").unwrap_err().to_string().contains("the field z is missing"));
        assert_eq!(root.token_ids("e").unwrap(), [1, 2]);
        assert!(root.token_ids("a").is_err());
    }

    #[test]
    fn damaged_files_are_errors() {
        for bytes in [&b""[..], b"{", b"[]", b"7", b"{\"a\": 1e999}", b"\xff"] {
            assert!(matches!(JsonFile::parse(bytes, "f"), Err(LoadError::Json { .. })));
        }
        let deep = "[".repeat(100_000);
        assert!(JsonFile::parse(deep.as_bytes(), "f").is_err());
        let long = format!("{{\"a\": \"{}\"}}", "é".repeat(500));
        let file = JsonFile::parse(long.as_bytes(), "f").unwrap();
        assert!(file.root().count("a").unwrap_err().to_string().len() < 300);
    }
}
