//! Whether a value obeys a JSON schema, by the words of the specification (draft 2020-12) that the tests use. Others are a mistake of
//! the test.

use regex::Regex;
use serde_json::{Map, Value};

pub fn obeys(schema: &Value, value: &Value) -> bool {
    check(schema, schema, value)
}

fn check(root: &Value, schema: &Value, value: &Value) -> bool {
    match schema {
        Value::Bool(allowed) => *allowed,
        Value::Object(rules) => rules
            .iter()
            .all(|(word, rule)| obeys_rule(root, rules, (word, rule), value)),
        other => panic!("{other} is no schema"),
    }
}

fn matches(pattern: &Value, text: &str) -> bool {
    Regex::new(pattern.as_str().unwrap()).unwrap().is_match(text)
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

fn obeys_rule(root: &Value, rules: &Map<String, Value>, (word, rule): (&str, &Value), value: &Value) -> bool {
    let number = |holds: &dyn Fn(f64, f64) -> bool| {
        let rule = rule.as_f64().unwrap();
        value.as_f64().is_none_or(|number| holds(number, rule))
    };
    let length = |length: Option<usize>, holds: &dyn Fn(usize, usize) -> bool| {
        let rule = rule.as_u64().unwrap() as usize;
        length.is_none_or(|length| holds(length, rule))
    };
    let text = value.as_str();
    let (letters, list, object) = (
        text.map(|text| text.chars().count()),
        value.as_array(),
        value.as_object(),
    );
    let all = |schemas: &Value| -> Vec<bool> {
        let schemas = schemas.as_array().unwrap().iter();
        schemas.map(|schema| check(root, schema, value)).collect()
    };
    let first = rules.get("prefixItems").and_then(Value::as_array);
    match word {
        "$defs" => true,
        "$ref" => check(
            root,
            root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(),
            value,
        ),
        "type" => match rule {
            Value::Array(names) => names.iter().any(|name| is_of_type(name, value)),
            name => is_of_type(name, value),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "const" => rule == value,
        "minimum" => number(&|number, rule| number >= rule),
        "maximum" => number(&|number, rule| number <= rule),
        "exclusiveMinimum" => number(&|number, rule| number > rule),
        "exclusiveMaximum" => number(&|number, rule| number < rule),
        "multipleOf" => number(&|number, rule| (number / rule).fract() == 0.0),
        "minLength" => length(letters, &|length, rule| length >= rule),
        "maxLength" => length(letters, &|length, rule| length <= rule),
        "pattern" => text.is_none_or(|text| matches(rule, text)),
        "format" => {
            let pattern = match rule.as_str().unwrap() {
                "date" => r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$",
                "time" => r"^([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$",
                other => panic!("{other} is no format of these tests"),
            };
            text.is_none_or(|text| matches(&Value::from(pattern), text))
        }
        "items" => {
            let rest = list.into_iter().flatten().skip(first.map_or(0, Vec::len));
            rest.into_iter().all(|item| check(root, rule, item))
        }
        "prefixItems" => {
            let pairs = rule.as_array().unwrap().iter().zip(list.into_iter().flatten());
            pairs.into_iter().all(|(schema, item)| check(root, schema, item))
        }
        "minItems" => length(list.map(Vec::len), &|length, rule| length >= rule),
        "maxItems" => length(list.map(Vec::len), &|length, rule| length <= rule),
        "properties" => {
            let fields = rule.as_object().unwrap();
            let own = object.into_iter().flatten();
            own.into_iter()
                .all(|(name, value)| fields.get(name).is_none_or(|schema| check(root, schema, value)))
        }
        "patternProperties" => object.into_iter().flatten().all(|(name, value)| {
            let mut patterns = rule.as_object().unwrap().iter();
            patterns
                .all(|(pattern, schema)| !matches(&Value::from(pattern.as_str()), name) || check(root, schema, value))
        }),
        "additionalProperties" => object.into_iter().flatten().all(|(name, value)| {
            let named = rules.get("properties").is_some_and(|fields| fields.get(name).is_some());
            let patterns = rules.get("patternProperties").and_then(Value::as_object);
            let mut patterns = patterns.into_iter().flatten();
            let matched = patterns.any(|(pattern, _)| matches(&Value::from(pattern.as_str()), name));
            named || matched || check(root, rule, value)
        }),
        "propertyNames" => object
            .into_iter()
            .flatten()
            .all(|(name, _)| check(root, rule, &Value::from(name.as_str()))),
        "required" => {
            let mut names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
            object.is_none_or(|object| names.all(|name| object.contains_key(name)))
        }
        "minProperties" => length(object.map(Map::len), &|length, rule| length >= rule),
        "maxProperties" => length(object.map(Map::len), &|length, rule| length <= rule),
        "anyOf" => all(rule).contains(&true),
        "allOf" => !all(rule).contains(&false),
        "oneOf" => all(rule).into_iter().filter(|obeys| *obeys).count() == 1,
        other => panic!("{other} is no word of these tests"),
    }
}

#[test]
fn what_does_not_obey_is_found() {
    use serde_json::json;
    for (schema, right, wrong) in [
        (json!({"type": ["null", "integer"]}), json!(2.0), json!(2.5)),
        (
            json!({"prefixItems": [{"type": "null"}], "items": false}),
            json!([null]),
            json!([null, 1]),
        ),
        (
            json!({"properties": {"a": {"const": 1}}, "required": ["a"]}),
            json!({"a": 1}),
            json!({"b": 1}),
        ),
        (
            json!({"patternProperties": {"^n": true}, "additionalProperties": false}),
            json!({"n": 1}),
            json!({"m": 1}),
        ),
        (json!({"oneOf": [{"minimum": 2}, {"maximum": 3}]}), json!(7), json!(2)),
        (
            json!({"multipleOf": 0.25, "exclusiveMinimum": 0}),
            json!(0.75),
            json!(0),
        ),
        (
            json!({"$defs": {"a": {"minLength": 2}}, "items": {"$ref": "#/$defs/a"}}),
            json!(["üü"]),
            json!(["ü"]),
        ),
        (json!({"format": "date"}), json!("2024-02-29"), json!("2024-13-01")),
        (
            json!({"propertyNames": {"maxLength": 1}, "maxProperties": 1}),
            json!({"a": 1}),
            json!({"a": 1, "b": 2}),
        ),
    ] {
        assert!(obeys(&schema, &right), "{schema} {right}");
        assert!(!obeys(&schema, &wrong), "{schema} {wrong}");
    }
}
