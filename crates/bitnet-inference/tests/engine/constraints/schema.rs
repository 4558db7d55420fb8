//! Texts under JSON schemas, checked by a direct reading of the schema.

use bitnet_inference::{Constraint, FinishReason};
use regex::Regex;
use serde_json::{Value, json};

use super::{run, wild};
use crate::support::engine;

/// Whether a value is what a schema describes, keyword by keyword.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(map) = schema else { return *schema == Value::Bool(true) };
    map.iter().all(|(keyword, wanted)| keyword_fits(root, map, keyword, wanted, value))
}

fn type_fits(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn keyword_fits(
    root: &Value,
    schema: &serde_json::Map<String, Value>,
    keyword: &str,
    wanted: &Value,
    value: &Value,
) -> bool {
    let all = || wanted.as_array().unwrap().iter();
    let number = || wanted.as_f64().unwrap();
    match (keyword, value) {
        ("type", _) if wanted.is_array() => all().any(|name| type_fits(name, value)),
        ("type", _) => type_fits(wanted, value),
        ("enum", _) => all().any(|one| same(one, value)),
        ("const", _) => same(wanted, value),
        ("anyOf", _) => all().any(|schema| fits(root, schema, value)),
        ("oneOf", _) => all().filter(|schema| fits(root, schema, value)).count() == 1,
        ("allOf", _) => all().all(|schema| fits(root, schema, value)),
        ("$ref", _) => {
            let pointer = wanted.as_str().unwrap().trim_start_matches('#').replace("%20", " ");
            fits(root, root.pointer(&pointer).unwrap(), value)
        }
        ("properties", Value::Object(map)) => wanted
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, schema)| map.get(name).is_none_or(|value| fits(root, schema, value))),
        ("required", Value::Object(map)) => all().all(|name| map.contains_key(name.as_str().unwrap())),
        ("additionalProperties", Value::Object(map)) => map.iter().all(|(name, value)| {
            schema.get("properties").is_some_and(|known| known.get(name).is_some())
                || fits(root, wanted, value)
        }),
        ("items", Value::Array(items)) => {
            let first = schema.get("prefixItems").map_or(0, |items| items.as_array().unwrap().len());
            items.iter().skip(first).all(|item| fits(root, wanted, item))
        }
        ("prefixItems", Value::Array(items)) => {
            all().zip(items).all(|(schema, item)| fits(root, schema, item))
        }
        ("minItems", Value::Array(items)) => items.len() as f64 >= number(),
        ("maxItems", Value::Array(items)) => items.len() as f64 <= number(),
        ("minLength", Value::String(text)) => text.chars().count() as f64 >= number(),
        ("maxLength", Value::String(text)) => text.chars().count() as f64 <= number(),
        ("pattern", Value::String(text)) => Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text),
        ("minimum", Value::Number(n)) => n.as_f64().unwrap() >= number(),
        ("maximum", Value::Number(n)) => n.as_f64().unwrap() <= number(),
        ("exclusiveMinimum", Value::Number(n)) => n.as_f64().unwrap() > number(),
        ("exclusiveMaximum", Value::Number(n)) => n.as_f64().unwrap() < number(),
        ("multipleOf", Value::Number(n)) => n.as_f64().unwrap() % number() == 0.0,
        ("minProperties", Value::Object(map)) => map.len() as f64 >= number(),
        ("maxProperties", Value::Object(map)) => map.len() as f64 <= number(),
        _ => true,
    }
}

fn schemas() -> Vec<Value> {
    vec![
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 8},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "kind": {"enum": ["cat", "dog", 7, null, true]},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 1, "maxItems": 3}
            },
            "required": ["name", "age", "kind", "tags"],
            "additionalProperties": false
        }),
        json!({"type": "array", "items": {"type": ["boolean", "null"]}, "minItems": 2, "maxItems": 5}),
        json!({
            "$defs": {
                "cat": {"type": "object", "properties": {"type": {"const": "cat"}, "lives": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["type", "lives"], "additionalProperties": false},
                "a dog": {"type": "object", "properties": {"type": {"const": "dog"}, "good": {"type": "boolean"}}, "required": ["type", "good"], "additionalProperties": false}
            },
            "type": "object",
            "properties": {"pet": {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/a%20dog", "description": "a dog"}]}},
            "required": ["pet"],
            "additionalProperties": false
        }),
        json!({
            "$defs": {"tree/node": {
                "type": "object",
                "properties": {"n": {"type": "integer", "minimum": -3, "maximum": 3}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree~1node"}]}},
                "required": ["n", "next"],
                "additionalProperties": false
            }},
            "$ref": "#/$defs/tree~1node"
        }),
        json!({
            "type": "array",
            "prefixItems": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]$"}],
            "items": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
            "minItems": 2,
            "maxItems": 4
        }),
        json!({"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 5}], "format": "a-format-of-our-own"}),
        json!({"type": "string", "format": "date"}),
        json!({"anyOf": [{"type": "integer", "minimum": 10, "maximum": 20}, {"const": {"a": [1, "x"]}}]}),
    ]
}

#[test]
fn texts_are_what_schemas_describe() {
    let engine = engine(2);
    for schema in schemas() {
        let constraint = Constraint::JsonSchema(schema.clone());
        let mut whole = 0;
        for seed in 0..10 {
            let generation = run(&engine, &wild(constraint.clone(), seed));
            match serde_json::from_str(&generation.text) {
                Ok(value) => {
                    assert!(fits(&schema, &schema, &value), "{schema} does not describe {value}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.is_eof(), "{error} in {:?}", generation.text);
                    assert_eq!(generation.finish, FinishReason::Length);
                }
            }
        }
        assert!(whole > 5, "{schema}: only {whole} texts ended");
    }
}

#[test]
fn the_direct_reading_tells_right_from_wrong() {
    for (schema, right, wrong) in [
        (json!({"type": "integer"}), json!(3), json!(3.5)),
        (json!({"enum": [1, "a"]}), json!(1.0), json!("b")),
        (json!({"required": ["a"]}), json!({"a": 1}), json!({})),
        (json!({"properties": {"a": false}}), json!({"b": 1}), json!({"a": 1})),
        (json!({"additionalProperties": false}), json!({}), json!({"a": 1})),
        (json!({"oneOf": [{"type": "integer"}, {"minimum": 5}]}), json!(4), json!(6)),
        (
            json!({"prefixItems": [{"type": "null"}], "items": {"type": "string"}}),
            json!([null, "a"]),
            json!([null, 1]),
        ),
    ] {
        assert!(fits(&schema, &schema, &right) && !fits(&schema, &schema, &wrong), "{schema}");
    }
}
