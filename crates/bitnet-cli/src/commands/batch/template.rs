//! [`Template`]: from the fields of a row to its prompt.

use std::collections::BTreeSet;

use bitnet_text::{TextError, TextTemplate};
use serde_json::{Map, Value};

use super::request::ALWAYS;
use crate::error::CliError;

/// A template for prompts.
#[derive(Debug)]
pub(super) struct Template {
    template: TextTemplate,
    source: String,
    names: BTreeSet<String>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn new(source: &str) -> Result<Self, CliError> {
        let template = TextTemplate::new(source, "the template").map_err(CliError::usage)?;
        let names = template.names();
        Ok(Self { template, source: source.to_owned(), names })
    }

    /// The template as it was given.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it names this field.
    pub(super) fn names(&self, field: &str) -> bool {
        self.names.contains(field)
    }

    /// Checks that every name that it needs is one of these columns.
    ///
    /// # Errors
    /// The first that is not, beside those that there are.
    pub(super) fn check(&self, columns: &[String]) -> Result<(), CliError> {
        let names = columns.iter().map(String::as_str).chain(ALWAYS);
        let blank = names.map(|name| (name.to_owned(), Value::String(String::new()))).collect();
        let result = self.template.render(&blank);
        match result.err().and_then(|_| self.unknown(columns.iter().map(String::as_str))) {
            Some(unknown) => {
                Err(CliError::usage(unknown).hint("columns are called as in the first line of the file"))
            }
            // What else may be wrong with blank values need not be wrong with others.
            None => Ok(()),
        }
    }

    /// The prompt of a row with these fields.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(super) fn render(&self, fields: &Map<String, Value>) -> Result<String, String> {
        let told = |error: TextError| {
            let own = fields.keys().map(String::as_str).filter(|name| !ALWAYS.contains(name));
            self.unknown(own).unwrap_or_else(|| error.to_string())
        };
        self.template.render(fields).map_err(told)
    }

    /// What is said of a name that is no field, if there is one.
    fn unknown<'a>(&self, fields: impl Iterator<Item = &'a str>) -> Option<String> {
        let fields: Vec<&str> = fields.collect();
        let is_known = |name: &&String| fields.contains(&name.as_str()) || ALWAYS.contains(&name.as_str());
        let name = self.names.iter().find(|name| !is_known(name))?;
        let known = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
        Some(format!("the template names {name:?}, which is no column; there are: {known}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn fields_by_name() {
        let template = Template::new("{{ n }}. {{text|upper}}{% if more %}!{% endif %}").unwrap();
        let row = fields(&json!({"n": 7, "text": "a <b>", "more": true, "else": [1]}));
        assert_eq!(template.render(&row).unwrap(), "7. A <B>!");
        assert!(template.names("text") && !template.names("else"));
        let row = fields(&json!({"n": null, "text": null, "more": null}));
        assert_eq!(template.render(&row).unwrap(), ". ", "one that is null prints nothing, as an empty cell");
    }

    #[test]
    fn unknown_names_are_told_beside_known_ones() {
        let template = Template::new("{{ titel }}: {{ body }}").unwrap();
        let columns = ["title".to_owned(), "body".to_owned()];
        let CliError::Failed { message, usage, .. } = template.check(&columns).unwrap_err() else { panic!() };
        assert!(usage && message.contains("\"titel\"") && message.contains("title, body"), "{message}");
        let error = template.render(&fields(&json!({"title": "x"}))).unwrap_err();
        assert!(error.contains("\"body\"") && error.contains("there are: title"), "{error}");
        Template::new("{{ row }} of {{ file }}").unwrap().check(&columns).unwrap();
        Template::new("{{ titel|default('') }}").unwrap().check(&columns).unwrap();
        Template::new("{{ title|int + 1 }}").unwrap().check(&columns).unwrap();
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in ["{{ text", "{% for %}", "{{ text|nonsense }}"] {
            assert!(Template::new(bad).is_err(), "{bad}");
        }
    }
}
