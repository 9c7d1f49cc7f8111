//! `response_format`, `regex` and `grammar`: what an answer is made to be.

use planish::Constraint;
use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, kind};

/// A constraint, and the field that it came from.
#[derive(Default)]
pub(super) struct Format {
    pub constraint: Option<Constraint>,
    pub param: &'static str,
}

/// Takes the three fields, of which one may say something.
pub(super) fn take(fields: &mut Fields) -> Result<Format, ApiError> {
    const FORMAT: &str = "response_format";
    let format = fields.take(FORMAT).as_ref().map(of_format).transpose()?.flatten();
    let regex = fields.text("regex")?.map(Constraint::Regex);
    let grammar = fields.text("grammar")?.map(Constraint::Grammar);
    let mut asked = [(FORMAT, format), ("regex", regex), ("grammar", grammar)]
        .into_iter()
        .filter_map(|(param, constraint)| Some((param, constraint?)));
    match (asked.next(), asked.next()) {
        (None, _) => Ok(Format::default()),
        (Some((param, constraint)), None) => Ok(Format {
            constraint: Some(constraint),
            param,
        }),
        (Some((one, _)), Some((other, _))) => {
            let message = format!("{other} and {one} both say what the answer must be");
            Err(ApiError::field(other, message))
        }
    }
}

fn of_format(format: &Value) -> Result<Option<Constraint>, ApiError> {
    let error = |param: &str, expected: &str| {
        let message = format!("{param} must be {expected}");
        Err(ApiError::field(param, message))
    };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => match &format["json_schema"]["schema"] {
            schema @ (Value::Object(_) | Value::Bool(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            other => error(
                "response_format.json_schema.schema",
                &format!("a JSON schema, found {}", kind(other)),
            ),
        },
        _ => error("response_format.type", "text, json_object or json_schema"),
    }
}
