//! A conversation that is to be answered, with tools: its tokens, and how the answer is read.

use planish_generate::{
    Constraint, Family, Message, PLAIN, Reading, Reasoning, TemplateInput, Tool, ToolChoice, constraint_of_calls,
    reasoning_marks,
};
use serde_json::{Map, Value};

use crate::{AutoTokenizer, Error};

/// What was said, and how to go on.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// What was said so far.
    pub messages: Vec<Message>,
    /// What may be called.
    pub tools: Vec<Tool>,
    /// Whether something is called.
    pub choice: ToolChoice,
    /// Whether several calls may come in one answer.
    pub parallel: bool,
    /// Variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// Tokens of reasoning, at most.
    pub reasoning_budget: Option<usize>,
    /// What the text of the answer must be.
    pub constraint: Option<Constraint>,
}

/// A conversation as the model gets it. Reading and constraint go into [`GenerationConfig`](crate::GenerationConfig).
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The tokens, up to where the answer begins.
    pub prompt: Vec<u32>,
    /// How the answer is read.
    pub reading: Reading,
    /// What it is made to be.
    pub constraint: Option<Constraint>,
}

/// Tokens at the end of a prompt that are looked at for marks of reasoning.
const TAIL: usize = 16;

impl AutoTokenizer {
    /// The tokens of a conversation, and how its answer is read.
    ///
    /// # Errors
    /// As [`AutoTokenizer::apply_chat_template`]; tools that the template does not know, unless a call is forced; a budget for a
    /// model whose reasoning has no marks.
    pub fn prepare(&self, conversation: &Conversation) -> Result<Prepared, Error> {
        let template = self.template().ok_or(Error::NoChatTemplate)?;
        let calls = match conversation.tools.is_empty() || conversation.choice == ToolChoice::None {
            true => None,
            false => Some(self.family(conversation)?),
        };
        let mut messages = conversation.messages.clone();
        if !template.text().contains("tool_calls") {
            // What was called would be lost, or an error: there is no content beside it.
            messages = messages.iter().map(Message::with_calls_in_content).collect();
        }
        let known = calls.is_some_and(|family| *family != PLAIN);
        if calls.is_some() && !known {
            tell_tools(&mut messages, &conversation.tools);
        }
        let input = TemplateInput {
            add_generation_prompt: true,
            tools: known.then(|| conversation.tools.iter().map(Tool::to_json).collect()),
            variables: conversation.variables.clone(),
            ..TemplateInput::default()
        };
        let tokenizer = self.tokenizer();
        let prompt = match tokenizer.encode_conversation(template, &messages, &input) {
            Ok(prompt) => prompt,
            Err(error) => {
                // Templates differ in whether arguments are an object or its text.
                let as_texts: Vec<Message> = messages.iter().map(Message::with_written_arguments).collect();
                match as_texts == messages {
                    true => return Err(error.into()),
                    false => tokenizer.encode_conversation(template, &as_texts, &input)?,
                }
            }
        };
        let reading = Reading {
            reasoning: self.reasoning(&prompt, conversation.reasoning_budget)?,
            calls,
            tools: conversation.tools.clone().into(),
        };
        let reasoning = reading.reasoning.as_ref();
        if conversation.constraint.is_some() && reasoning.is_some_and(|marks| marks.opened && marks.tokens.is_none()) {
            let expected = "text: the marks around this model's reasoning are no tokens";
            return Err(Error::config("response_format", "a form", expected));
        }
        let asked = conversation.constraint.as_ref();
        let choice = (&conversation.choice, conversation.parallel);
        let of_calls =
            calls.and_then(|family| constraint_of_calls(tokenizer, family, &conversation.tools, choice, asked));
        if calls.is_some() && asked.is_some() && of_calls.is_none() {
            let expected = "no tools, or a JSON schema";
            return Err(Error::config(
                "response_format",
                "a regular expression or a grammar",
                expected,
            ));
        }
        Ok(Prepared {
            constraint: of_calls.or_else(|| asked.cloned()),
            prompt,
            reading,
        })
    }

    fn family(&self, conversation: &Conversation) -> Result<&'static Family, Error> {
        let text = self.template().map(|template| template.text()).unwrap_or_default();
        match (Family::of_template(text), &conversation.choice) {
            (Some(family), _) => Ok(family),
            (None, ToolChoice::Required | ToolChoice::Named(_)) => Ok(&PLAIN),
            (None, _) => Err(Error::config(
                "tool_choice",
                "auto",
                "required or a tool's name: this model's chat template knows no tools",
            )),
        }
    }

    fn reasoning(&self, prompt: &[u32], budget: Option<usize>) -> Result<Option<Reasoning>, Error> {
        let text = self.template().map(|template| template.text()).unwrap_or_default();
        let Some((open, close)) = reasoning_marks(text) else {
            return match budget {
                None => Ok(None),
                Some(budget) => Err(Error::config(
                    "reasoning_budget",
                    budget,
                    "none: this model's chat template has no marks around reasoning",
                )),
            };
        };
        let tokenizer = self.tokenizer();
        let tokens = tokenizer.id(open).zip(tokenizer.id(close));
        if let (Some(budget), None) = (budget, tokens) {
            let expected = "none: the marks around this model's reasoning are no tokens";
            return Err(Error::config("reasoning_budget", budget, expected));
        }
        let tail = tokenizer.decode_with_special_tokens(&prompt[prompt.len().saturating_sub(TAIL)..])?;
        let opened = tail.trim_end().ends_with(open);
        Ok(Some(Reasoning {
            opened,
            may_open: !opened && !tail.trim_end().ends_with(close),
            tokens,
            open: open.to_owned(),
            close: close.to_owned(),
            budget,
        }))
    }
}

/// A model whose template knows no tools is told of them by the system.
fn tell_tools(messages: &mut Vec<Message>, tools: &[Tool]) {
    let tools: Vec<Value> = tools.iter().map(Tool::to_json).collect();
    let text = format!(
        "Call one of these functions by answering with {{\"name\": .., \"arguments\": {{..}}}}:\n{}",
        Value::Array(tools)
    );
    match messages
        .first()
        .filter(|first| first.role() == "system")
        .and_then(Message::content)
    {
        Some(content) => messages[0] = Message::new("system", format!("{content}\n\n{text}")),
        None => messages.insert(0, Message::new("system", text)),
    }
}
