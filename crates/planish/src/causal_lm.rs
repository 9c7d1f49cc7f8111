//! A loaded model: generates from tokens, computes logits, opens sessions. Clones share the weights.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use planish_generate::{Answer, GenerationConfig, GenerationDefaults, GenerationPlan, Grammars, Step};
use planish_model::{Architecture, Cache, Chunk, DeviceMemory, Input, Model, Want};

use crate::turns::{Turn, Turns};
use crate::{AutoTokenizer, ChatSession, Error, Session};

/// A model ready to generate. Cheap to clone; clones, sessions and threads share it and take turns, one call at a time.
#[derive(Clone)]
pub struct CausalLM {
    shared: Arc<Shared>,
}

struct Shared {
    architecture: Architecture,
    device: String,
    threads: usize,
    notice: Option<Error>,
    text: Text,
    grammars: OnceLock<Grammars>,
    model: Turns<Model>,
}

/// What a model has besides its weights.
#[derive(Default)]
pub(crate) struct Text {
    pub(crate) tokenizer: Option<AutoTokenizer>,
    pub(crate) no_tokenizer: Option<String>,
    pub(crate) defaults: GenerationDefaults,
}

impl CausalLM {
    pub(crate) fn new(mut model: Model, text: Text) -> CausalLM {
        let shared = Shared {
            architecture: model.architecture().clone(),
            device: model.device().to_owned(),
            threads: model.threads(),
            notice: model.take_notice().map(Error::from),
            text,
            grammars: OnceLock::new(),
            model: Turns::new(model),
        };
        CausalLM {
            shared: Arc::new(shared),
        }
    }

    /// Continues `prompt`: returns its tokens followed by the new ones, without the token that ended the text. Nothing is
    /// remembered between calls; a [`Session`] does remember.
    ///
    /// # Errors
    /// An empty prompt or one that the context cannot hold, an option out of its range, a failing device.
    pub fn generate(&self, prompt: &[u32], config: &GenerationConfig) -> Result<Vec<u32>, Error> {
        let answer = self.generate_with(prompt, config, &mut |_| ControlFlow::Continue(()))?;
        Ok([prompt, &answer.tokens].concat())
    }

    /// Continues `prompt` and reports each step as it happens; the receiver may break off. It must not use the model.
    ///
    /// # Errors
    /// As [`CausalLM::generate`].
    pub fn generate_with(
        &self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        self.session().generate(prompt, config, on_step)
    }

    /// A sequence that is remembered: a prompt that begins as the last one and its answer did costs only its new tokens. A model
    /// can have many.
    pub fn session(&self) -> Session {
        Session::new(self)
    }

    /// A conversation.
    ///
    /// # Errors
    /// A model without a tokenizer or chat template.
    pub fn chat(&self) -> Result<ChatSession, Error> {
        ChatSession::new(self)
    }

    /// The logits after the last of `tokens`. // (vocabulary)
    ///
    /// # Errors
    /// No token, a token outside of the vocabulary, more than the context holds, a failing device.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let mut model = self.lock();
        let mut cache = model.cache(tokens.len());
        Ok(model.forward(tokens, &mut cache)?.to_vec())
    }

    /// Hands the logits after every token of `tokens` from index `first` on to `each(index, logits)`. // (vocabulary)
    ///
    /// # Errors
    /// As [`CausalLM::logits`].
    ///
    /// # Panics
    /// If `first` is beyond the tokens.
    pub fn logits_from(&self, tokens: &[u32], first: usize, each: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        let (before, asked) = tokens.split_at(first);
        let mut model = self.lock();
        let mut cache = model.cache(tokens.len());
        read(&mut model, before, &mut cache)?;
        Ok(model.forward_all(asked, &mut cache, &mut |index, logits| each(first + index, logits))?)
    }

    /// Every choice of a generation made: by `config`, else by the checkpoint, else as transformers does.
    ///
    /// # Errors
    /// An option out of its range; a constraint that cannot be followed.
    pub fn plan(&self, config: &GenerationConfig) -> Result<GenerationPlan, Error> {
        let mut plan = config.resolve(&self.shared.text.defaults)?;
        if let Some(constraint) = &config.constraint {
            plan.grammar = Some(self.grammars()?.compile(constraint)?);
        }
        Ok(plan)
    }

    fn grammars(&self) -> Result<&Grammars, Error> {
        if let Some(grammars) = self.shared.grammars.get() {
            return Ok(grammars);
        }
        let tokenizer = self.tokenizer()?.tokenizer();
        let grammars = Grammars::new(tokenizer, self.architecture().vocabulary)?;
        Ok(self.shared.grammars.get_or_init(|| grammars))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// When the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&AutoTokenizer, Error> {
        let Text {
            tokenizer,
            no_tokenizer,
            ..
        } = &self.shared.text;
        tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer {
            found: no_tokenizer.clone(),
        })
    }

    /// What the checkpoint asks of whoever generates, and does not get.
    pub fn generation_notices(&self) -> &[String] {
        self.shared.text.defaults.notices()
    }

    /// How many tokens the checkpoint suggests for an answer to a prompt of so many.
    pub fn suggested_max_new_tokens(&self, prompt: usize) -> Option<usize> {
        self.shared.text.defaults.max_new_tokens(prompt)
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.shared.architecture
    }

    /// The device and its instruction set, for reports.
    pub fn device(&self) -> &str {
        &self.shared.device
    }

    /// Threads of the CPU.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Why [`Device::Auto`](crate::Device::Auto) took the processor and not the GPU that is there.
    pub fn notice(&self) -> Option<&Error> {
        self.shared.notice.as_ref()
    }

    /// Device memory in use; `None` where it is the processor's.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.lock().device_memory()
    }

    /// Waits for the turn. A panic elsewhere leaves the model usable: what a session remembers is its own.
    pub(crate) fn lock(&self) -> Turn<'_, Model> {
        self.shared.model.lock()
    }
}

/// Appends tokens, if there are any, and wants nothing of them.
pub(crate) fn read(model: &mut Model, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
    if !tokens.is_empty() {
        let (input, want) = (Input::Tokens(tokens), Want::Nothing);
        model.run(&mut [Chunk { cache, input, want }], &mut |_| {})?;
    }
    Ok(())
}
