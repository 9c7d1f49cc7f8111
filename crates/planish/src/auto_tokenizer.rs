//! A tokenizer by name, with the chat template of its model.

use planish_generate::{AnswerText, ChatTemplate, Files, Message, Piece, Reading, TemplateInput, Tokenizer};
use serde_json::{Map, Value};

use crate::{Error, Source};

/// The tokenizer of a model and its chat template.
#[derive(Debug)]
pub struct AutoTokenizer {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl AutoTokenizer {
    /// Reads the tokenizer of `model`: a local folder, a `.gguf` file, or a Hub id (`org/name`). A loaded model has its own:
    /// [`CausalLM::tokenizer`](crate::CausalLM::tokenizer).
    ///
    /// # Errors
    /// What is missing or malformed; see [`Error`].
    pub fn from_pretrained(model: impl AsRef<str>) -> Result<AutoTokenizer, Error> {
        AutoTokenizer::from_source(&Source::open(model.as_ref())?)
    }

    /// Reads the tokenizer of an opened model.
    ///
    /// # Errors
    /// As [`AutoTokenizer::from_pretrained`].
    pub fn from_source(source: &Source) -> Result<AutoTokenizer, Error> {
        AutoTokenizer::read(&Files::of(source.checkpoint())?)
    }

    /// Reads the tokenizer of the model that the library carries inside.
    ///
    /// # Errors
    /// As [`AutoTokenizer::from_pretrained`].
    #[cfg(feature = "demo-model")]
    pub fn demo() -> Result<AutoTokenizer, Error> {
        AutoTokenizer::from_source(&Source::demo()?)
    }

    pub(crate) fn read(files: &Files) -> Result<AutoTokenizer, Error> {
        if !files.have_tokenizer() {
            return Err(Error::NoTokenizer { found: None });
        }
        let tokenizer = match Tokenizer::new(files) {
            Ok(tokenizer) => tokenizer,
            Err(error @ planish_generate::Error::UnsupportedTokenizer { .. }) => {
                let found = Some(error.to_string());
                return Err(Error::NoTokenizer { found });
            }
            Err(error) => return Err(error.into()),
        };
        let template = ChatTemplate::new(files)?;
        Ok(AutoTokenizer {
            template: template.map(|template| template.with_special_tokens(tokenizer.special_tokens())),
            tokenizer,
        })
    }

    pub(crate) fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Whether the model was trained for conversations.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokens of a conversation, up to where the model's answer begins. Special tokens that stand in a message's text are text.
    ///
    /// # Errors
    /// When the model has no chat template, or its template refuses these messages.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        self.apply_chat_template_with(messages, &Map::new())
    }

    /// As [`AutoTokenizer::apply_chat_template`], with variables of the template, such as `enable_thinking`.
    ///
    /// # Errors
    /// As [`AutoTokenizer::apply_chat_template`].
    pub fn apply_chat_template_with(
        &self,
        messages: &[Message],
        variables: &Map<String, Value>,
    ) -> Result<Vec<u32>, Error> {
        let input = TemplateInput {
            add_generation_prompt: true,
            variables: variables.clone(),
            ..TemplateInput::default()
        };
        self.encode_conversation(messages, &input)
    }

    /// The tokens of a conversation with all that its template may use.
    ///
    /// # Errors
    /// As [`AutoTokenizer::apply_chat_template`].
    pub fn encode_conversation(&self, messages: &[Message], input: &TemplateInput) -> Result<Vec<u32>, Error> {
        let template = self.template.as_ref().ok_or(Error::NoChatTemplate)?;
        Ok(self.tokenizer.encode_conversation(template, messages, input)?)
    }

    /// The text of a conversation. Special tokens that stand in a message's text cannot be told from those of the template in it.
    ///
    /// # Errors
    /// As [`AutoTokenizer::apply_chat_template`].
    pub fn render_conversation(&self, messages: &[Message], input: &TemplateInput) -> Result<String, Error> {
        let template = self.template.as_ref().ok_or(Error::NoChatTemplate)?;
        Ok(template.render(messages, input)?)
    }

    /// What the chat templates are written as, if there are some.
    pub fn chat_template_text(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::text)
    }

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

    /// The text as whole chunks of `length` tokens, for [`CausalLM::evaluate`](crate::CausalLM::evaluate); what is left over is
    /// dropped. A token that the tokenizer puts before every text also starts every chunk, in place of its first.
    ///
    /// # Errors
    /// A text that is too short for one chunk; as [`Tokenizer::encode`].
    pub fn chunks(&self, text: &str, length: usize) -> Result<Vec<Vec<u32>>, Error> {
        const SHORTEST: usize = 4;
        if length < SHORTEST {
            return Err(Error::config("the length of a chunk", length, "at least 4 tokens"));
        }
        let tokens = self.encode(text)?;
        let first = self.encode("")?.first().copied();
        let first = first.filter(|first| tokens.first() == Some(first));
        let mut chunks: Vec<Vec<u32>> = tokens.chunks_exact(length).map(<[u32]>::to_vec).collect();
        if chunks.is_empty() {
            return Err(Error::ShortText {
                tokens: tokens.len(),
                chunk: length,
            });
        }
        if let Some(first) = first {
            chunks.iter_mut().for_each(|chunk| chunk[0] = first);
        }
        Ok(chunks)
    }

    /// The text of an answer's tokens, and the text of what the model thought before, where it has a channel for that. An answer that
    /// goes on with a text has its tokens as `context`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn answer_text(&self, tokens: &[u32], context: &[u32]) -> Result<(String, String), Error> {
        let mut pieces = AnswerText::new(&self.tokenizer, context, &Reading::default())?;
        let (mut text, mut reasoning) = (String::new(), String::new());
        let mut take = |pieces: Vec<Piece>| {
            for piece in pieces {
                match piece {
                    Piece::Text(piece) => text.push_str(&piece),
                    Piece::Reasoning(piece) => reasoning.push_str(&piece),
                    Piece::Call(_) | Piece::Arguments(_) => {}
                }
            }
        };
        for &token in tokens {
            take(pieces.push(token)?);
        }
        take(pieces.finish()?);
        Ok((text, reasoning))
    }

    /// The tokenizer itself, for streaming and special tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
