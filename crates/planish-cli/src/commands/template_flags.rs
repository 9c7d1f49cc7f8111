//! Flags by which `generate` and `chat` change what the chat template makes of the messages.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::texts::read_text;

/// What the template is told.
#[derive(clap::Args, Debug)]
pub struct TemplateFlags {
    /// A variable of the model's chat template, such as enable_thinking=false: JSON, or else text (repeatable)
    #[arg(long = "template-kwarg", value_name = "NAME=VALUE", value_parser = variable)]
    pub template_kwargs: Vec<(String, Value)>,
    /// A chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
}

impl TemplateFlags {
    /// The variables by name.
    pub fn variables(&self) -> Map<String, Value> {
        self.template_kwargs.iter().cloned().collect()
    }

    /// The text of the template.
    pub fn template(&self) -> anyhow::Result<Option<String>> {
        self.chat_template.as_deref().map(read_text).transpose()
    }
}

/// For clap: a name and a value.
fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}
