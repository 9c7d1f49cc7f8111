//! A tokenizer by name, with the chat template of its model.

use planish_checkpoint::Checkpoint;
use planish_generate::{ChatTemplate, Files, Message, TemplateInput, Tokenizer};

use crate::Error;
use crate::causal_lm::open;

/// The tokenizer of a model and its chat template.
#[derive(Debug)]
pub struct AutoTokenizer {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl AutoTokenizer {
    /// Reads the tokenizer of `model`: a local folder, a `.gguf` file, or a Hub id (`org/name`).
    ///
    /// # Errors
    /// What is missing or malformed; see [`Error`].
    pub fn from_pretrained(model: impl AsRef<str>) -> Result<AutoTokenizer, Error> {
        AutoTokenizer::of(&open(model.as_ref(), None)?)
    }

    /// Reads the tokenizer of the model that the library carries inside.
    ///
    /// # Errors
    /// As [`AutoTokenizer::from_pretrained`].
    #[cfg(feature = "demo-model")]
    pub fn demo() -> Result<AutoTokenizer, Error> {
        AutoTokenizer::of(&crate::demo_checkpoint()?)
    }

    fn of(checkpoint: &Checkpoint) -> Result<AutoTokenizer, Error> {
        let files = Files::of(checkpoint)?;
        Ok(AutoTokenizer {
            tokenizer: Tokenizer::new(&files)?,
            template: ChatTemplate::new(&files)?,
        })
    }

    /// The tokens of a conversation, up to where the model's answer begins.
    ///
    /// # Errors
    /// When the model has no chat template, or its template refuses these messages.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        let template = self.template.as_ref().ok_or(planish_generate::Error::MissingFile {
            file: "chat template",
            need: "turns messages into text",
        })?;
        let input = TemplateInput {
            add_generation_prompt: true,
            ..TemplateInput::default()
        };
        Ok(self.tokenizer.encode_plain(&template.render(messages, &input)?)?)
    }
}

impl AutoTokenizer {
    /// The ids of `text`, with the special tokens that the model expects around a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text)?)
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer.decode(ids)?)
    }

    /// The tokenizer itself, for streaming and special tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
