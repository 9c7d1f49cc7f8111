//! Chat templates: messages to the text that a model was trained on, rendered as transformers' `apply_chat_template` does.

mod environment;
mod json;
mod python;

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::files::{Files, parse_object, parse_text};
use crate::special::SpecialTokens;
use crate::{Error, Message};

const CONFIG: &str = "tokenizer_config.json";
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat templates of a checkpoint, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    names: Vec<String>,
    special: Vec<(String, String)>,
}

/// What a template may use besides the messages.
#[derive(Clone, Debug, Default)]
pub struct TemplateInput {
    /// Ask for the words that open an answer.
    pub add_generation_prompt: bool,
    /// JSON schemas of the functions that the model may call.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from, each with `title` and `text`.
    pub documents: Option<Vec<Value>>,
    /// Variables of this template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl ChatTemplate {
    /// The templates of a checkpoint: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`, which is one
    /// template or a list of named ones. `None` if it has none.
    ///
    /// # Errors
    /// When a file contradicts its format or a template does not compile.
    pub fn new(files: &Files) -> Result<Option<ChatTemplate>, Error> {
        let sources = sources(files)?;
        if sources.is_empty() {
            return Ok(None);
        }
        let special = SpecialTokens::read(files)?.roles;
        ChatTemplate::compile(sources, special).map(Some)
    }

    /// Compiles templates given as (name, source); `special` are the special tokens they see as (role, text).
    ///
    /// # Errors
    /// When a template does not compile.
    pub fn compile(sources: Vec<(String, String)>, special: Vec<(String, String)>) -> Result<ChatTemplate, Error> {
        let mut environment = environment::new();
        let names = sources.iter().map(|(name, _)| name.clone()).collect();
        for (name, source) in sources {
            environment
                .add_template_owned(name, environment::plain_blocks(&source))
                .map_err(template_error)?;
        }
        Ok(ChatTemplate {
            environment,
            names,
            special,
        })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// When the template refuses the messages (it says why) or uses something that is not there.
    pub fn render(&self, messages: &[Message], input: &TemplateInput) -> Result<String, Error> {
        let mut variables: Map<String, Value> = Map::new();
        for (role, text) in &self.special {
            variables.insert(role.clone(), Value::from(text.as_str()));
        }
        variables.extend(input.variables.clone());
        let messages = messages.iter().map(|message| Value::Object(message.fields())).collect();
        variables.insert("messages".into(), Value::Array(messages));
        variables.insert("tools".into(), input.tools.clone().map_or(Value::Null, Value::Array));
        variables.insert(
            "documents".into(),
            input.documents.clone().map_or(Value::Null, Value::Array),
        );
        variables.insert("add_generation_prompt".into(), Value::Bool(input.add_generation_prompt));
        let template = self
            .environment
            .get_template(self.choose(input.tools.is_some())?)
            .map_err(template_error)?;
        template
            .render(minijinja::value::Serde(&variables))
            .map_err(template_error)
    }

    fn choose(&self, with_tools: bool) -> Result<&str, Error> {
        let has = |name: &str| self.names.iter().any(|known| known == name);
        match () {
            () if with_tools && has(TOOL_USE) => Ok(TOOL_USE),
            () if has(DEFAULT) => Ok(DEFAULT),
            () => Err(Error::Template(format!(
                "none is named {DEFAULT:?}; there are {}",
                self.names.join(", ")
            ))),
        }
    }
}

/// Name and text of each template.
fn sources(files: &Files) -> Result<Vec<(String, String)>, Error> {
    let mut sources = Vec::new();
    let separate = [
        (DEFAULT, "chat_template.jinja", &files.chat_template),
        (
            TOOL_USE,
            "additional_chat_templates/tool_use.jinja",
            &files.tool_use_template,
        ),
    ];
    for (name, file, bytes) in separate {
        if let Some(text) = parse_text(file, bytes.as_deref())? {
            sources.push((name.to_owned(), text.to_owned()));
        }
    }
    if !sources.is_empty() {
        return Ok(sources);
    }
    let config = parse_object(CONFIG, files.tokenizer_config.as_deref())?;
    match config.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => sources.push((DEFAULT.to_owned(), text.clone())),
        Some(Value::Array(list)) => {
            for item in list {
                sources.push(named_source(item)?);
            }
        }
        Some(Value::Object(named)) => {
            for (name, text) in named {
                let text = text.as_str().ok_or_else(|| not_a_template(name))?;
                sources.push((name.clone(), text.to_owned()));
            }
        }
        Some(_) => {
            return Err(Error::bad_file(
                CONFIG,
                "chat_template: expected a text or a list of named texts",
            ));
        }
    }
    Ok(sources)
}

/// `{"name": .., "template": ..}`.
fn named_source(item: &Value) -> Result<(String, String), Error> {
    let field = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    field("name")
        .zip(field("template"))
        .ok_or_else(|| not_a_template(&item.to_string()))
}

fn not_a_template(found: &str) -> Error {
    Error::bad_file(
        CONFIG,
        format!("chat_template: expected a name and a template, found {found:.80}"),
    )
}

/// The template's own words where it refused, else what is wrong and in which line.
fn template_error(error: minijinja::Error) -> Error {
    let mut root: &minijinja::Error = &error;
    while let Some(inner) = std::error::Error::source(root).and_then(|source| source.downcast_ref()) {
        root = inner;
    }
    if let Some(refusal) = root
        .detail()
        .and_then(|detail| detail.strip_prefix(environment::REFUSAL))
    {
        return Error::Template(refusal.to_owned());
    }
    Error::Template(root.to_string())
}
