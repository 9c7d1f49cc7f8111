//! What an answer's text must be.

use serde_json::{Value, json};

/// The form that an answer is made to have. What a model thinks before is free.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// A JSON object.
    JsonObject,
    /// JSON that a schema allows.
    JsonSchema(Value),
    /// All of a regular expression, in the syntax of Rust's crate regex.
    Regex(String),
    /// A grammar in llguidance's dialect of Lark.
    Grammar(String),
}

/// The schema, with one way to put spaces: models could go on with them for ever.
pub(crate) fn spaced(schema: Value) -> Value {
    match schema {
        Value::Object(mut schema) => {
            let spaces = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            schema.insert("x-guidance".to_owned(), spaces);
            Value::Object(schema)
        }
        other => other,
    }
}
