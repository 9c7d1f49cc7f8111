//! Tools that a model may call: what is offered, how families of models write calls, and the calls in what a model writes.
//!
//! Nothing here belongs to one way to ask over HTTP.

mod families;
mod grammar;
mod json;
mod literal;
mod reader;
mod tags;

use std::sync::Arc;

use serde_json::{Value, json};

pub use families::{FAMILIES, Family, PLAIN, Shape, Tags};
pub use grammar::constraint as constraint_of_calls;
pub use reader::{Piece, Reader};

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments, an object.
    pub parameters: Value,
}

impl Tool {
    /// As chat templates have it: `{"type": "function", "function": {..}}`.
    pub fn to_json(&self) -> Value {
        let mut function = json!({"name": self.name});
        if let Some(description) = &self.description {
            function["description"] = Value::from(description.as_str());
        }
        function["parameters"] = self.parameters.clone();
        json!({"type": "function", "function": function})
    }

    /// The schema of an argument.
    fn argument(&self, name: &str) -> Option<&Value> {
        self.parameters.get("properties")?.get(name)
    }
}

/// Whether tools are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// Not at all.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// A call that a model wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// The arguments, JSON as the model wrote it.
    pub arguments: String,
}

/// Marks around what a model thinks before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasoning {
    /// Before.
    pub open: String,
    /// After.
    pub close: String,
    /// Whether the prompt ends within them.
    pub opened: bool,
    /// Whether the answer may begin with them.
    pub may_open: bool,
    /// The tokens of both, where they are tokens.
    pub tokens: Option<(u32, u32)>,
    /// Tokens between them, at most; the close is made to follow.
    pub budget: Option<usize>,
}

/// How what a model writes is told apart. By default all of it is its answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What it thinks.
    pub reasoning: Option<Reasoning>,
    /// How its calls are written; `None` takes none out.
    pub calls: Option<&'static Family>,
    /// What may be called.
    pub tools: Arc<[Tool]>,
}

impl Reading {
    /// All marks.
    pub(crate) fn marks(&self) -> Vec<String> {
        let mut marks: Vec<String> = Vec::new();
        if let Some(reasoning) = &self.reasoning {
            marks.extend([reasoning.open.clone(), reasoning.close.clone()]);
        }
        if let Some(family) = self.calls {
            marks.extend(family.marks().into_iter().map(str::to_owned));
        }
        marks
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

/// Marks around reasoning, by what chat templates hold.
const REASONING: [(&str, &str); 3] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
];

/// The marks around reasoning that a template knows, where it knows some.
pub fn reasoning_marks(template: &str) -> Option<(&'static str, &'static str)> {
    REASONING.into_iter().find(|(_, close)| template.contains(close))
}
