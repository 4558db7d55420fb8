//! Walks through a schema and what it refers to.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::edit::Edit;
use super::{kind, wrong};
use crate::grammar::GrammarError;

/// Deepest nesting with references followed.
const DEEPEST: usize = 1000;

/// Keywords that would have to be enforced and cannot be.
const UNSUPPORTED: [&str; 19] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$recursiveRef",
    "$recursiveAnchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "contentSchema",
];

/// Formats that are enforced. By the standard all others are annotations.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

const TYPES: [&str; 7] = ["null", "boolean", "number", "integer", "string", "array", "object"];

/// Keywords beside a reference that change nothing.
const ANNOTATIONS: [&str; 7] =
    ["title", "description", "default", "examples", "$comment", "readOnly", "writeOnly"];

/// Goes through a schema, collecting what is to be changed.
pub(super) struct Walk<'a> {
    root: &'a Value,
    /// Pointers of the targets of references that were visited.
    seen: HashSet<String>,
    edits: Vec<Edit>,
    depth: usize,
}

type Result<T> = std::result::Result<T, GrammarError>;

impl<'a> Walk<'a> {
    /// Walks through everything reachable.
    pub(super) fn over(root: &'a Value) -> Result<Vec<Edit>> {
        let mut walk = Self { root, seen: HashSet::from([String::new()]), edits: Vec::new(), depth: 0 };
        walk.schema(root, "")?;
        Ok(walk.edits)
    }

    fn schema(&mut self, schema: &'a Value, at: &str) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let what = "the nesting of the schema with its references";
            return Err(GrammarError::TooLarge { what, found: self.depth, limit: DEEPEST });
        }
        match schema {
            Value::Bool(_) => {}
            Value::Object(map) => {
                for (key, value) in map {
                    self.keyword(map, key, value, at)?;
                }
            }
            other => {
                return Err(wrong(at, format!("a schema is an object or a boolean, not {}", kind(other))));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn keyword(&mut self, map: &'a Map<String, Value>, key: &str, value: &'a Value, at: &str) -> Result<()> {
        let here = below(at, key);
        match key {
            "properties" | "patternProperties" => self.schemas_by_name(value, &here),
            "allOf" | "anyOf" | "prefixItems" => self.schemas(value, &here),
            "oneOf" => {
                self.schemas(value, &here)?;
                self.inline_references(value, &here);
                Ok(())
            }
            "items" if value.is_array() => self.schemas(value, &here),
            "items" | "additionalItems" | "additionalProperties" => self.schema(value, &here),
            "$ref" => self.reference(value, at),
            "type" => check_type(value, &here),
            "enum" => check(
                value.as_array().is_some_and(|a| !a.is_empty()),
                &here,
                "an array that is not empty",
                value,
            ),
            "required" => {
                let names = value.as_array().is_some_and(|names| names.iter().all(Value::is_string));
                check(names, &here, "an array of strings", value)
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                check(value.is_u64(), &here, "a whole number that is not negative", value)
            }
            "minimum" | "maximum" => check(value.is_number(), &here, "a number", value),
            "multipleOf" => {
                check(value.as_f64().is_some_and(|n| n > 0.0), &here, "a number greater than 0", value)
            }
            "exclusiveMinimum" | "exclusiveMaximum" => {
                check(value.is_number() || value.is_boolean(), &here, "a number", value)
            }
            "pattern" => check_pattern(value, &here),
            "format" => self.format(value, at),
            _ => self.unsupported(map, key, value, at),
        }
    }

    fn schemas(&mut self, value: &'a Value, at: &str) -> Result<()> {
        let Value::Array(items) = value else { return check(false, at, "an array of schemas", value) };
        items.iter().enumerate().try_for_each(|(index, item)| self.schema(item, &format!("{at}/{index}")))
    }

    fn schemas_by_name(&mut self, value: &'a Value, at: &str) -> Result<()> {
        let Value::Object(map) = value else { return check(false, at, "an object of schemas", value) };
        map.iter().try_for_each(|(name, schema)| self.schema(schema, &below(at, name)))
    }

    fn unsupported(&mut self, map: &Map<String, Value>, key: &str, value: &Value, at: &str) -> Result<()> {
        let Some(&keyword) = UNSUPPORTED.iter().find(|known| **known == key) else { return Ok(()) };
        let idle = match keyword {
            "uniqueItems" => *value == Value::Bool(false),
            "unevaluatedItems" | "unevaluatedProperties" | "contentSchema" => *value == Value::Bool(true),
            "propertyNames" => *value == Value::Bool(true),
            // Without `if` and `contains` these mean nothing.
            "then" | "else" => !map.contains_key("if"),
            "minContains" | "maxContains" => !map.contains_key("contains"),
            "$dynamicAnchor" | "$recursiveAnchor" => true,
            _ => false,
        };
        if idle || keyword == "contentSchema" {
            self.edits.push(Edit::Drop { at: at.to_owned(), keyword });
            return Ok(());
        }
        Err(wrong(&below(at, key), format!("the keyword {key} cannot be enforced; leave it out")))
    }

    fn format(&mut self, value: &Value, at: &str) -> Result<()> {
        match value.as_str() {
            Some(name) if FORMATS.contains(&name) => Ok(()),
            Some(_) => {
                self.edits.push(Edit::Drop { at: at.to_owned(), keyword: "format" });
                Ok(())
            }
            None => check(false, &below(at, "format"), "a string", value),
        }
    }

    /// Checks a reference of the schema at `at` and visits its target.
    fn reference(&mut self, value: &Value, at: &str) -> Result<()> {
        let here = below(at, "$ref");
        let Value::String(reference) = value else { return check(false, &here, "a string", value) };
        let (pointer, target) = self.target(reference, &here)?;
        if reference.contains(['~', '%']) {
            self.edits.push(Edit::Move { at: at.to_owned(), target: pointer.clone() });
        }
        if self.seen.insert(pointer.clone()) { self.schema(target, &pointer) } else { Ok(()) }
    }

    /// The pointer and the schema that a reference means.
    fn target(&self, reference: &str, at: &str) -> Result<(String, &'a Value)> {
        let Some(pointer) =
            reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            let problem = format!(
                "the reference {reference:?} leads elsewhere; only those that begin with \"#/\" can be followed"
            );
            return Err(wrong(at, problem));
        };
        let pointer = if pointer == "/" { String::new() } else { percent_decoded(pointer) };
        match self.root.pointer(&pointer) {
            Some(target) => Ok((pointer, target)),
            None => Err(wrong(at, format!("the reference {reference:?} leads nowhere"))),
        }
    }

    /// The parser tells alternatives apart only if it sees them.
    fn inline_references(&mut self, alternatives: &'a Value, at: &str) {
        for (index, alternative) in alternatives.as_array().into_iter().flatten().enumerate() {
            let Some(Value::String(reference)) = alternative.get("$ref") else { continue };
            let bare = alternative.as_object().is_some_and(|map| {
                map.keys().all(|key| key == "$ref" || ANNOTATIONS.contains(&key.as_str()))
            });
            if let (true, Ok((target, _))) = (bare, self.target(reference, at)) {
                let at = format!("{at}/{index}");
                self.edits.push(Edit::Inline { at, target });
            }
        }
    }
}

/// The pointer of what lies under `key` of the value at `at`.
fn below(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn check(fine: bool, at: &str, wanted: &str, value: &Value) -> Result<()> {
    if fine { Ok(()) } else { Err(wrong(at, format!("it must be {wanted}, not {}", described(value)))) }
}

/// A value for a message: small ones as they are.
fn described(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        Value::String(text) if text.len() > 60 => kind(value).to_owned(),
        other => other.to_string(),
    }
}

fn check_type(value: &Value, at: &str) -> Result<()> {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let fine =
        known(value) || value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(known));
    check(fine, at, "one of null, boolean, number, integer, string, array, object, or a list of them", value)
}

fn check_pattern(value: &Value, at: &str) -> Result<()> {
    let Value::String(pattern) = value else { return check(false, at, "a string", value) };
    // The parser would hide from the text what such a group matches.
    if pattern.contains("(?P<stop>") || pattern.contains("(?<stop>") {
        return Err(wrong(at, "a group must not be called \"stop\"; give it another name"));
    }
    Ok(())
}

/// Text in which `%` and two hexadecimal digits stand for a byte.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
