//! A language model by name: `AutoModelForCausalLM::from_pretrained(..).load()`, then `generate`.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use planish_checkpoint::{Checkpoint, resolve};
use planish_generate::{Answer, Files, GenerationConfig, GenerationDefaults, Session, Step, Tokenizer};
use planish_model::{Architecture, CacheType, Device, LoadOptions, Model};

use crate::{Error, MetalConfig};

/// Loads causal language models of any supported architecture.
#[derive(Clone, Copy, Debug)]
pub struct AutoModelForCausalLM;

impl AutoModelForCausalLM {
    /// Begins to load `model`: a local folder, a `.gguf` file, or a Hub id (`org/name`). Nothing is read before
    /// [`ModelBuilder::load`].
    pub fn from_pretrained(model: impl Into<String>) -> ModelBuilder {
        ModelBuilder::new(Origin::Named(model.into()))
    }

    /// Begins to load the small story model that the library carries inside: it continues texts, and needs no network.
    #[cfg(feature = "demo-model")]
    pub fn demo() -> ModelBuilder {
        ModelBuilder::new(Origin::Demo)
    }
}

/// Where a model comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// A folder, a `.gguf` file, or a Hub id.
    Named(String),
    /// The model inside the library.
    #[cfg(feature = "demo-model")]
    Demo,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    origin: Origin,
    revision: Option<String>,
    quantization: Option<MetalConfig>,
    options: LoadOptions,
}

impl ModelBuilder {
    fn new(origin: Origin) -> ModelBuilder {
        ModelBuilder {
            origin,
            revision: None,
            quantization: None,
            options: LoadOptions::default(),
        }
    }

    /// Branch, tag or commit of a Hub model. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> ModelBuilder {
        self.revision = Some(revision.into());
        self
    }

    /// Where to compute. Default: [`Device::auto`].
    pub fn device(mut self, device: Device) -> ModelBuilder {
        self.options.device = device;
        self
    }

    /// Threads of the CPU. Default: one per physical core.
    pub fn threads(mut self, threads: usize) -> ModelBuilder {
        self.options.threads = Some(threads);
        self
    }

    /// Compute in f32 throughout, for comparing with other implementations. Default: false.
    pub fn exact(mut self, exact: bool) -> ModelBuilder {
        self.options.exact = exact;
        self
    }

    /// How keys and values are stored, on the CPU. Default: f16, or f32 if exact.
    pub fn cache(mut self, cache: CacheType) -> ModelBuilder {
        self.options.cache = Some(cache);
        self
    }

    /// Quantize plain weights while loading. Weights that are packed already stay as they are.
    pub fn quantization(mut self, config: MetalConfig) -> ModelBuilder {
        self.quantization = Some(config);
        self
    }

    /// Loads the model, fetching it first if it is on the Hub and not in the cache.
    ///
    /// # Errors
    /// What is missing, malformed or not supported; see [`Error`].
    pub fn load(self) -> Result<CausalLM, Error> {
        let mut options = self.options;
        let checkpoint = match &self.origin {
            Origin::Named(model) => open(model, self.revision.as_deref())?,
            #[cfg(feature = "demo-model")]
            Origin::Demo => crate::demo_checkpoint()?,
        };
        if let Some(config) = self.quantization {
            options.quantize = config.recipe(&checkpoint)?;
            options.dequantize |= config.dequantize;
        }
        let files = Files::of(&checkpoint)?;
        // Only the end token is taken from it: a model without a tokenizer still runs.
        let tokenizer = Tokenizer::new(&files).ok();
        let defaults = GenerationDefaults::read(&files, tokenizer.as_ref())?;
        let model = Model::load(&checkpoint, &options)?;
        Ok(CausalLM {
            architecture: model.architecture().clone(),
            model: Mutex::new(model),
            defaults,
        })
    }
}

/// A model ready to generate. Can be shared between threads; they take turns.
pub struct CausalLM {
    architecture: Architecture,
    model: Mutex<Model>,
    defaults: GenerationDefaults,
}

impl CausalLM {
    /// Continues `prompt`: returns its tokens followed by the new ones, without the token that ended the text.
    ///
    /// # Errors
    /// An empty prompt or one that the context cannot hold, an option out of its range, a failing device.
    pub fn generate(&self, prompt: &[u32], config: &GenerationConfig) -> Result<Vec<u32>, Error> {
        let answer = self.generate_with(prompt, config, &mut |_| ControlFlow::Continue(()))?;
        Ok([prompt, &answer.tokens].concat())
    }

    /// Continues `prompt` and reports each step as it happens; the receiver may break off.
    ///
    /// # Errors
    /// As [`CausalLM::generate`].
    pub fn generate_with(
        &self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let plan = config.resolve(&self.defaults)?;
        // A panic elsewhere leaves the model usable: every answer starts from an empty cache.
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = Session::new(&model)?;
        Ok(session.generate(&mut model, prompt, &plan, on_step)?)
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }
}

/// Opens a checkpoint by path or Hub id, downloading quietly.
pub(crate) fn open(model: &str, revision: Option<&str>) -> Result<Checkpoint, Error> {
    let path = resolve(model, revision, &mut |_| {})?;
    Ok(Checkpoint::open(&path)?)
}
