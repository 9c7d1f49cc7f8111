//! What an answer's text must be.

use serde_json::Value;

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
