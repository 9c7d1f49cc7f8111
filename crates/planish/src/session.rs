//! Sequences that are remembered, as tokens or as text that comes piece by piece; and conversations.
//!
//! Whatever generates one text, here and in the program, goes through [`Session`].

use std::ops::ControlFlow;

use planish_generate::{Answer, Call, GenerationConfig, Message, Step};
use serde_json::{Map, Value};

use crate::told::Told;
use crate::{CausalLM, Error};

/// A model's memory of one sequence.
pub struct Session {
    model: CausalLM,
    inner: planish_generate::Session,
}

/// What happens while text is generated. The receiver may break off at any of them; it must not use the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextStep<'a> {
    /// So many tokens of the prompt are computed.
    Prefill {
        /// Tokens computed or remembered.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token's text in whole characters, often a word; empty where it completes no character.
    Text(&'a str),
    /// The same, of what the model thinks before it answers, where that is told apart.
    Reasoning(&'a str),
    /// A call of this tool begins.
    Call(&'a str),
    /// More of the arguments of the call that began last.
    Arguments(&'a str),
}

/// An answer with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextAnswer {
    /// Tokens, times, and why it ended.
    pub answer: Answer,
    /// The text of all its steps.
    pub text: String,
    /// What the model thought before, where that is told apart.
    pub reasoning: String,
    /// The stop string that ended it.
    pub stop: Option<String>,
    /// Tokens of that.
    pub reasoning_tokens: usize,
    /// The tools that it calls.
    pub calls: Vec<Call>,
}

impl Session {
    pub(crate) fn new(model: &CausalLM) -> Session {
        let inner = planish_generate::Session::new(&model.lock());
        Session {
            model: model.clone(),
            inner,
        }
    }

    /// Another session that remembers the same tokens: both go on by themselves, what they share is stored once.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn fork(&self) -> Result<Session, Error> {
        let inner = self.inner.fork(&mut self.model.lock())?;
        Ok(Session {
            model: self.model.clone(),
            inner,
        })
    }

    /// Forgets the tokens from `length` on. Returns how many are kept: none where the model's state cannot go back.
    pub fn truncate(&mut self, length: usize) -> usize {
        self.inner.truncate(length)
    }

    /// The tokens that are remembered.
    pub fn tokens(&self) -> &[u32] {
        self.inner.tokens()
    }

    /// Continues `prompt` and reports each step. Only what `prompt` does not share with the last prompt and its answer is computed.
    ///
    /// # Errors
    /// An empty prompt or one that the context cannot hold, an option out of its range, a failing device.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let plan = self.model.plan(config)?;
        let mut model = self.model.lock();
        Ok(self.inner.generate(&mut model, prompt, &plan, on_step)?)
    }

    /// As [`Session::generate`], as text.
    ///
    /// ```
    /// # fn main() -> Result<(), planish::Error> {
    /// use std::ops::ControlFlow;
    /// use planish::{AutoModelForCausalLM, GenerationConfig, TextStep};
    ///
    /// let model = AutoModelForCausalLM::demo().load()?;
    /// let prompt = model.tokenizer()?.encode("Once upon a time")?;
    /// let config = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
    /// model.session().generate_text(&prompt, &config, &mut |step| {
    ///     if let TextStep::Text(text) = step {
    ///         print!("{text}");
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::generate`]; a model without a tokenizer.
    pub fn generate_text(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        self.text_after(prompt, &[], config, on_step)
    }

    /// As [`Session::generate_text`], where the answer goes on with the text of the prompt: a space before its first word, or the
    /// indent of its first line, is part of it.
    ///
    /// # Errors
    /// As [`Session::generate_text`].
    pub fn continue_text(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        self.text_after(prompt, prompt, config, on_step)
    }

    fn text_after(
        &mut self,
        prompt: &[u32],
        context: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        let model = self.model.clone();
        let mut told = Told::new(&model, &model.plan(config)?, context)?;
        let mut failure = None;
        let answer = self.generate(prompt, config, &mut |step| match step {
            Step::Prefill { done, total } => on_step(TextStep::Prefill { done, total }),
            Step::Logprobs(_) => ControlFlow::Continue(()),
            Step::Token(token) => told.take(token, on_step).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            }),
        })?;
        match failure {
            Some(error) => Err(error),
            None => told.finish(answer, on_step),
        }
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.inner.clear();
    }

    /// The model.
    pub fn model(&self) -> &CausalLM {
        &self.model
    }
}

/// A conversation: remembers what both said, and computes only what is new in each turn.
pub struct ChatSession {
    session: Session,
    messages: Vec<Message>,
    variables: Map<String, Value>,
}

impl ChatSession {
    pub(crate) fn new(model: &CausalLM) -> Result<ChatSession, Error> {
        if !model.tokenizer()?.has_chat_template() {
            return Err(Error::NoChatTemplate);
        }
        Ok(ChatSession {
            session: model.session(),
            messages: Vec::new(),
            variables: Map::new(),
        })
    }

    /// Adds the user's message and the model's answer to the conversation. What is refused (a message that does not fit, a
    /// template that objects) leaves it as it was; an answer that was broken off stays as far as it went.
    ///
    /// # Errors
    /// As [`Session::generate_text`]; a template that refuses the messages.
    pub fn generate(
        &mut self,
        message: impl Into<String>,
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        self.messages.push(Message::new("user", message));
        let answer = self.answer(config, on_step);
        match &answer {
            Ok(answer) => self
                .messages
                .push(Message::answer(answer.text.as_str(), answer.reasoning.as_str())),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    fn answer(
        &mut self,
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        let tokenizer = self.session.model().tokenizer()?;
        let tokens = tokenizer.apply_chat_template_with(&self.messages, &self.variables)?;
        self.session.generate_text(&tokens, config, on_step)
    }

    /// Variables of the template, such as `enable_thinking`, for all answers from now on.
    pub fn set_variables(&mut self, variables: Map<String, Value>) {
        self.variables = variables;
    }

    /// Begins a new conversation, with a system message or without.
    pub fn reset(&mut self, system: Option<&str>) {
        self.messages.clear();
        self.messages.extend(system.map(|text| Message::new("system", text)));
        self.session.reset();
    }

    /// What was said so far, the system message first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The system message, if there is one.
    pub fn system(&self) -> Option<&str> {
        let first = self.messages.first().filter(|message| message.role() == "system");
        first.and_then(Message::content)
    }

    /// The model.
    pub fn model(&self) -> &CausalLM {
        self.session.model()
    }
}
