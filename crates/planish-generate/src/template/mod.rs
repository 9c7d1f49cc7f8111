//! Chat templates: messages to the text that a model was trained on, rendered as transformers' `apply_chat_template` does.

mod environment;
mod held;
mod iteration;
mod json;
mod limits;
mod percent;
mod python;
mod tags;

use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::files::{Files, parse_object, parse_text};
use crate::foreign::{on_own_stack, within};
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
    text: String,
    special: Vec<(String, String)>,
    /// It went on for too long once, and is not run again.
    endless: AtomicBool,
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
    /// The templates of a checkpoint: `chat_template.jinja`, else `chat_template` of `chat_template.json` or
    /// `tokenizer_config.json`, which is one template or a list of named ones. `None` if it has none.
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
        let bytes: usize = sources.iter().map(|(_, source)| source.len()).sum();
        if bytes > limits::MOST_SOURCE_BYTES {
            let most = limits::MOST_SOURCE_BYTES;
            return Err(Error::Template(format!(
                "it has {bytes} bytes, expected at most {most}"
            )));
        }
        let names = sources.iter().map(|(name, _)| name.clone()).collect();
        let text = sources.iter().map(|(_, source)| source.as_str()).collect();
        let compile = || {
            let mut environment = environment::new();
            for (name, source) in sources {
                let source = held::rewrite(&iteration::rewrite(&environment::plain_blocks(&source)));
                let source = percent::rewrite(&source);
                environment.add_template_owned(name, source)?;
            }
            Ok(environment)
        };
        let environment = on_own_stack(|| compile().map_err(template_error)).map_err(engine_failed)??;
        Ok(ChatTemplate {
            environment,
            names,
            text,
            special,
            endless: AtomicBool::new(false),
        })
    }

    /// The same with these special tokens, role and text: a tokenizer may know some that no other file names.
    pub fn with_special_tokens(self, special: &[(String, String)]) -> ChatTemplate {
        let special = special.to_vec();
        ChatTemplate { special, ..self }
    }

    /// What all templates are written as.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text that the template puts after what the assistant said, where it can be told: how a turn ends.
    pub fn end_of_turn(&self) -> Option<String> {
        const WORDS: &str = "planish asks how a turn ends";
        let messages = [Message::new("user", "x"), Message::new("assistant", WORDS)];
        let text = self.render(&messages, &TemplateInput::default()).ok()?;
        let (before, after) = text.rsplit_once(WORDS)?;
        // In a conversation of channels a part of an answer ends as a turn does.
        (!before.contains("<|channel|>") && !after.is_empty()).then(|| after.trim_start().to_owned())
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
        let name = self.choose(input.tools.is_some())?.to_owned();
        if self.endless.load(Ordering::Relaxed) {
            return Err(computes_too_much());
        }
        let mut environment = self.environment.clone();
        let input_bytes = size(&variables);
        environment.set_fuel(Some(limits::fuel(input_bytes)));
        let render = move || {
            let template = environment.get_template(&name)?;
            template.render(minijinja::value::Serde(&variables))
        };
        match within(limits::time(input_bytes), move || render().map_err(template_error)) {
            Some(rendered) => rendered.map_err(engine_failed)?,
            None => {
                self.endless.store(true, Ordering::Relaxed);
                Err(computes_too_much())
            }
        }
    }

    fn choose(&self, with_tools: bool) -> Result<&str, Error> {
        let has = |name: &str| self.names.iter().any(|known| known == name);
        match () {
            () if with_tools && has(TOOL_USE) => Ok(TOOL_USE),
            () if has(DEFAULT) => Ok(DEFAULT),
            () if self.names.len() == 1 => Ok(&self.names[0]),
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
    for (file, bytes) in [
        ("chat_template.json", &files.chat_template_json),
        (CONFIG, &files.tokenizer_config),
    ] {
        let object = parse_object(file, bytes.as_deref())?;
        sources.extend(sources_in(file, object.get("chat_template"))?);
        if !sources.is_empty() {
            break;
        }
    }
    Ok(sources)
}

/// One text, a list of named ones, or an object of them.
fn sources_in(file: &'static str, value: Option<&Value>) -> Result<Vec<(String, String)>, Error> {
    let mut sources = Vec::new();
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => sources.push((DEFAULT.to_owned(), text.clone())),
        Some(Value::Array(list)) => {
            for item in list {
                sources.push(named_source(file, item)?);
            }
        }
        Some(Value::Object(named)) => {
            for (name, text) in named {
                let text = text.as_str().ok_or_else(|| not_a_template(file, name))?;
                sources.push((name.clone(), text.to_owned()));
            }
        }
        Some(_) => {
            return Err(Error::bad_file(
                file,
                "chat_template: expected a text or a list of named texts",
            ));
        }
    }
    Ok(sources)
}

/// `{"name": .., "template": ..}`.
fn named_source(file: &'static str, item: &Value) -> Result<(String, String), Error> {
    let field = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    field("name")
        .zip(field("template"))
        .ok_or_else(|| not_a_template(file, &item.to_string()))
}

fn not_a_template(file: &str, found: &str) -> Error {
    Error::bad_file(
        file,
        format!("chat_template: expected a name and a template, found {found:.80}"),
    )
}

/// Bytes of all texts, and a few for every value.
fn size(variables: &Map<String, Value>) -> usize {
    let entry = |(key, value): (&String, &Value)| key.len() + value_size(value);
    variables.iter().map(entry).sum()
}

fn value_size(value: &Value) -> usize {
    8 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(fields) => size(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn computes_too_much() -> Error {
    let what = "it computes too much: a loop without end, or values that grow without bound";
    Error::Template(what.to_owned())
}

/// A panic of the library that runs templates.
fn engine_failed(panic: String) -> Error {
    Error::Template(format!("the template engine failed on it ({panic})"))
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
    if root.kind() == minijinja::ErrorKind::OutOfFuel {
        return computes_too_much();
    }
    Error::Template(root.to_string())
}
