//! The library's model: load, cache, forward. Hides which device computes.

use planish_checkpoint::Checkpoint;
use planish_gpu::Queue;
use planish_ops::Choice;
use planish_quantize::Recipe;

use crate::decoder::{DeviceMemory, Engine, NextInput};
use crate::device::{Job, Loaded};
use crate::source::{CheckpointSource, Unpack, WeightSource};
use crate::{Architecture, Cache, CacheType, Device, Error, Phases, Spelling};

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: Device,
    /// Threads of the CPU; `None` is one per physical core.
    pub threads: Option<usize>,
    /// Compute in f32 throughout: no int8 activations, no 16-bit cache. For comparing with other implementations.
    pub exact: bool,
    /// How keys and values are stored, on the CPU; `None` is f32 with `exact`, else f16. GPUs store them as they compute.
    pub cache: Option<CacheType>,
    /// Pack plain weights while loading, layer by layer.
    pub quantize: Option<Recipe>,
    /// Unpack packed weights while loading.
    pub dequantize: bool,
}

/// A model ready to run.
pub struct Model {
    architecture: Architecture,
    device: String,
    threads: usize,
    notice: Option<Error>,
    engine: Box<dyn Engine>,
}

impl Model {
    /// Loads every weight that the architecture needs. Packed weights, and plain ones that stay plain, are read in place
    /// from the mapped file.
    ///
    /// # Errors
    /// An architecture, RoPE type or activation that is not known; a missing tensor; a wrong shape; an absent device.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Model, Error> {
        let architecture = Architecture::from_config(checkpoint.config())?;
        let spellings = architecture.spellings.clone();
        let source = checkpoint_source(checkpoint, &spellings, options)?;
        Model::build(architecture, &source, options)
    }

    /// As [`Model::load`], on the GPU behind `queue` instead of `options.device`.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_on<Q: Queue>(checkpoint: &Checkpoint, options: &LoadOptions, queue: Q) -> Result<Model, Error> {
        let architecture = Architecture::from_config(checkpoint.config())?;
        let spellings = architecture.spellings.clone();
        let source = checkpoint_source(checkpoint, &spellings, options)?;
        let job = Job {
            architecture: &architecture,
            source: &source,
            options,
        };
        let loaded = job.on_queue("gpu", Ok(queue))?;
        Ok(Model::of(architecture, loaded))
    }

    pub(crate) fn build(
        architecture: Architecture,
        source: &dyn WeightSource,
        options: &LoadOptions,
    ) -> Result<Model, Error> {
        let job = Job {
            architecture: &architecture,
            source,
            options,
        };
        let loaded = job.load()?;
        Ok(Model::of(architecture, loaded))
    }

    fn of(architecture: Architecture, loaded: Loaded) -> Model {
        let Loaded {
            engine,
            device,
            threads,
            notice,
        } = loaded;
        Model {
            architecture,
            device,
            threads,
            notice,
            engine,
        }
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The device and its instruction set, for reports.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Why [`Device::Auto`] did not take the GPU that is there; handed out once.
    pub fn take_notice(&mut self) -> Option<Error> {
        self.notice.take()
    }

    /// Threads of the CPU.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// An empty key-value cache for up to `capacity` positions; memory is taken as it fills.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn cache(&self, capacity: usize) -> Result<Cache, Error> {
        self.engine.cache(capacity)
    }

    /// Says that the sequence in the cache will grow to at least `length` positions, before its tokens come in pieces: some
    /// position encodings depend on it. Returns how many positions are kept: none if those stored were placed otherwise.
    pub fn expect(&self, cache: &mut Cache, length: usize) -> usize {
        self.engine.expect(cache, length)
    }

    /// Appends `tokens` to the cache and returns the logits after the last one. // (vocabulary)
    ///
    /// # Errors
    /// No token, a token outside of the vocabulary, a full cache: nothing has changed then. A lost device.
    ///
    /// # Panics
    /// If the cache belongs to a model of another architecture or device.
    pub fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error> {
        self.engine.forward(tokens, cache)
    }

    /// Appends `tokens` to the cache, for what comes after them.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn append(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
        self.engine.append(tokens, cache)
    }

    /// Appends `tokens` to the cache and hands the logits after each of them to `each(index, logits)`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        self.engine.forward_all(tokens, cache, each)
    }

    /// Whether the device can choose tokens: [`Model::choose`].
    pub fn chooses(&self) -> bool {
        self.engine.chooses()
    }

    /// Appends the input to the cache and chooses the next token on the device, which goes on meanwhile: [`Model::take`] waits for the
    /// token. The next step may begin before that, with [`NextInput::Chosen`]. At most 4 tokens may wait to be taken;
    /// they are forgotten when the input is tokens.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// If the device does not choose; as [`Model::forward`].
    pub fn choose(&mut self, input: NextInput<'_>, cache: &mut Cache, choice: Choice) -> Result<(), Error> {
        self.engine.choose(input, cache, choice)
    }

    /// The first token chosen that was not taken yet; `None` if none of its logits was finite.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// If there is none.
    pub fn take(&mut self) -> Result<Option<u32>, Error> {
        self.engine.take()
    }

    /// Device memory in use; `None` where it is the processor's.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.engine.memory()
    }

    /// Begins to measure where time goes, from zero, or stops. On a GPU, whose work goes on by itself, nothing is measured.
    pub fn measure(&mut self, on: bool) {
        self.engine.measure(on);
    }

    /// Where time went since measuring began.
    pub fn phases(&self) -> Phases {
        self.engine.phases()
    }
}

fn checkpoint_source<'a>(
    checkpoint: &'a Checkpoint,
    spellings: &'a [Spelling],
    options: &'a LoadOptions,
) -> Result<CheckpointSource<'a>, Error> {
    let unpack = match options.exact {
        true => Unpack::Single,
        false => Unpack::ScaleType,
    };
    let unpacking = (options.dequantize, unpack);
    CheckpointSource::new(checkpoint, spellings, options.quantize.as_ref(), unpacking)
}
