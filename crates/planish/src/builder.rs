//! Loading a model by name: `AutoModelForCausalLM::from_pretrained(..).load()`.

use planish_format::Packing;
use planish_generate::{Files, GenerationDefaults};
use planish_model::{CacheType, Device, LoadOptions, Model};
use planish_quantize::Recipe;

use crate::causal_lm::Text;
use crate::{AutoTokenizer, CausalLM, Error, MetalConfig, Source};

/// Loads causal language models of any supported architecture.
#[derive(Clone, Copy, Debug)]
pub struct AutoModelForCausalLM;

impl AutoModelForCausalLM {
    /// Begins to load `model`: a local folder, a `.gguf` file, or a Hub id (`org/name`). Nothing is read before
    /// [`ModelBuilder::load`].
    pub fn from_pretrained(model: impl Into<String>) -> ModelBuilder<'static> {
        ModelBuilder::new(Origin::Named(model.into()))
    }

    /// Begins to load an opened model.
    pub fn from_source(source: &Source) -> ModelBuilder<'_> {
        ModelBuilder::new(Origin::Opened(source))
    }

    /// Begins to load the small story model that the library carries inside: it continues texts, and needs no network.
    #[cfg(feature = "demo-model")]
    pub fn demo() -> ModelBuilder<'static> {
        ModelBuilder::new(Origin::Demo)
    }

    /// Begins to make a model of random packed weights in one of [`SHAPES`](crate::SHAPES), for measuring. It has no tokenizer.
    pub fn random(shape: impl Into<String>, packing: Packing) -> ModelBuilder<'static> {
        ModelBuilder::new(Origin::Random(shape.into(), packing))
    }
}

/// Where a model comes from.
#[derive(Clone, Debug)]
enum Origin<'a> {
    /// A folder, a `.gguf` file, or a Hub id.
    Named(String),
    Opened(&'a Source),
    /// The model inside the library.
    #[cfg(feature = "demo-model")]
    Demo,
    Random(String, Packing),
}

/// Which layers are packed while a model is loaded, and how.
#[derive(Clone, Debug)]
pub enum Quantization {
    /// As transformers packs them.
    Metal(MetalConfig),
    /// As a whole checkpoint would be packed.
    Recipe(Box<Recipe>),
}

impl From<MetalConfig> for Quantization {
    fn from(config: MetalConfig) -> Quantization {
        Quantization::Metal(config)
    }
}

impl From<Recipe> for Quantization {
    fn from(recipe: Recipe) -> Quantization {
        Quantization::Recipe(Box::new(recipe))
    }
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct ModelBuilder<'a> {
    origin: Origin<'a>,
    revision: Option<String>,
    quantization: Option<Quantization>,
    chat_template: Option<String>,
    options: LoadOptions,
}

impl<'a> ModelBuilder<'a> {
    fn new(origin: Origin<'a>) -> ModelBuilder<'a> {
        ModelBuilder {
            origin,
            revision: None,
            quantization: None,
            chat_template: None,
            options: LoadOptions::default(),
        }
    }

    /// Branch, tag or commit of a Hub model. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// All that [`LoadOptions`] has, in place of what was set before.
    pub fn options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    /// Where to compute. Default: [`Device::auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.options.device = device;
        self
    }

    /// Threads of the CPU. Default: one per physical core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Compute in f32 throughout, for comparing with other implementations. Default: false.
    pub fn exact(mut self, exact: bool) -> Self {
        self.options.exact = exact;
        self
    }

    /// How keys and values are stored, on the CPU. Default: f16, or f32 if exact.
    pub fn cache(mut self, cache: CacheType) -> Self {
        self.options.cache = Some(cache);
        self
    }

    /// Quantize plain weights while loading: a [`MetalConfig`] or a [`Recipe`]. Weights that are packed already stay as they are.
    pub fn quantization(mut self, quantization: impl Into<Quantization>) -> Self {
        self.quantization = Some(quantization.into());
        self
    }

    /// A chat template, in Jinja, in place of the checkpoint's.
    pub fn chat_template(mut self, source: impl Into<String>) -> Self {
        self.chat_template = Some(source.into());
        self
    }

    /// Unpack packed weights while loading. Default: false.
    pub fn dequantize(mut self, dequantize: bool) -> Self {
        self.options.dequantize = dequantize;
        self
    }

    /// Loads the model, fetching it first if it is on the Hub and not in the cache.
    ///
    /// # Errors
    /// What is missing, malformed or not supported; see [`Error`].
    pub fn load(self) -> Result<CausalLM, Error> {
        let ModelBuilder {
            origin,
            revision,
            quantization,
            chat_template,
            mut options,
        } = self;
        let opened;
        let source = match origin {
            Origin::Named(model) => {
                opened = Source::open_revision(&model, revision.as_deref(), &mut |_| {})?;
                &opened
            }
            Origin::Opened(source) => source,
            #[cfg(feature = "demo-model")]
            Origin::Demo => {
                opened = Source::demo()?;
                &opened
            }
            Origin::Random(shape, packing) => {
                let model = Model::random(&shape, packing, &options)?;
                return Ok(CausalLM::new(model, Text::default()));
            }
        };
        match quantization {
            Some(Quantization::Metal(config)) => {
                options.quantize = config.recipe(source.checkpoint())?;
                options.dequantize |= config.dequantize;
            }
            Some(Quantization::Recipe(recipe)) => options.quantize = Some(*recipe),
            None => {}
        }
        let mut files = Files::of(source.checkpoint())?;
        if let Some(source) = chat_template {
            files.chat_template = Some(source.into_bytes());
        }
        // A model without a tokenizer still runs on tokens.
        let (tokenizer, no_tokenizer) = match AutoTokenizer::read(&files) {
            Ok(tokenizer) => (Some(tokenizer), None),
            Err(Error::NoTokenizer { found }) => (None, found),
            Err(error) => return Err(error),
        };
        let template = tokenizer.as_ref().and_then(AutoTokenizer::template);
        let defaults = GenerationDefaults::read(&files, tokenizer.as_ref().map(AutoTokenizer::tokenizer), template)?;
        let model = Model::load(source.checkpoint(), &options)?;
        let text = Text {
            tokenizer,
            no_tokenizer,
            defaults,
        };
        Ok(CausalLM::new(model, text))
    }
}
