//! The library's model: load, cache, forward. Hides which device computes.

use std::sync::Arc;

use planish_checkpoint::{Checkpoint, FilesRead};
use planish_format::memory::or_out_of_memory;
#[cfg(not(fuzzing))]
use planish_gpu::Queue;
use planish_ops::Tap;
use planish_quantize::Recipe;

use crate::batch::{Chunk, Input, LateChoice, Row, Ticket, Want};
use crate::decoder::{DeviceMemory, Engine};
use crate::device::{Job, Loaded};
use crate::source::{CheckpointSource, Unpack, WeightSource};
use crate::{Architecture, Cache, CacheType, Device, Error, Phases, PrefixAlias};

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
    /// Leave weights that can be used as they are stored in the mapped file, whose pages the system can take back, instead of copying
    /// them to where the processor reads them fastest. For memory that does not grow with the model. GPUs copy them in any case.
    pub in_place: bool,
    /// Who is told of the inputs of all products. The model is then on the processor, whatever `device` says.
    pub tap: Option<Arc<dyn Tap>>,
}

/// A model ready to run.
pub struct Model {
    architecture: Architecture,
    device: String,
    threads: usize,
    notice: Option<Error>,
    engine: Box<dyn Engine>,
    files: FilesRead,
    logits: Vec<f32>, // of the last [`Model::forward`]
}

impl Model {
    /// Loads every weight that the architecture needs. Packed weights, and plain ones that stay plain, are read in place
    /// from the mapped file.
    ///
    /// # Errors
    /// An architecture, RoPE type or activation that is not known; a missing tensor; a wrong shape; an absent device.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Model, Error> {
        let architecture = Architecture::of(checkpoint)?;
        let prefix_aliases = architecture.prefix_aliases.clone();
        let source = checkpoint_source(checkpoint, &prefix_aliases, options)?;
        let built = Model::build(architecture, &source, options);
        // A file that was cut is the cause of whatever it led to.
        checkpoint.check_unchanged()?;
        Ok(Model {
            files: checkpoint.files_read(),
            ..built?
        })
    }

    /// As [`Model::load`], on the GPU behind `queue` instead of `options.device`.
    ///
    /// # Errors
    /// As [`Model::load`].
    #[cfg(not(fuzzing))]
    pub fn load_on<Q: Queue>(checkpoint: &Checkpoint, options: &LoadOptions, queue: Q) -> Result<Model, Error> {
        let architecture = Architecture::of(checkpoint)?;
        let prefix_aliases = architecture.prefix_aliases.clone();
        let source = checkpoint_source(checkpoint, &prefix_aliases, options)?;
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
        let loaded = or_out_of_memory(|| job.load())??;
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
            files: FilesRead::default(),
            logits: Vec::new(),
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

    /// An empty cache of a sequence for up to `capacity` positions; memory is taken as it fills.
    pub fn cache(&self, capacity: usize) -> Cache {
        self.engine.cache(capacity)
    }

    /// The same sequence once more: both go on by themselves. What they share is stored once, but for the last positions, which
    /// are copied when one of them goes on; states of fixed size are copied now.
    ///
    /// # Errors
    /// The device is out of memory.
    ///
    /// # Panics
    /// If the cache belongs to another model.
    pub fn fork(&mut self, cache: &Cache) -> Result<Cache, Error> {
        or_out_of_memory(|| self.engine.fork(cache))?
    }

    /// Announces that the sequence in the cache will grow to at least `length` positions, before its tokens come in pieces: dynamic
    /// and longrope frequencies depend on it. Returns how many stored positions stay valid: none if keys were rotated for
    /// another length.
    pub fn announce_length(&self, cache: &mut Cache, length: usize) -> usize {
        self.engine.announce_length(cache, length)
    }

    /// Appends the tokens of every chunk to its cache and computes what is wanted of it. Logits go to `each`. Chosen tokens stay on
    /// the device, which goes on meanwhile: the ticket, there if any chunk wants a choice, is for [`Model::take`], and the next
    /// call may begin with [`crate::Input::Chosen`] before that. At most 4 tickets may be open; older ones are given up.
    ///
    /// Chunks of several tokens go through the layers alone, chunks of one token together.
    ///
    /// # Errors
    /// No token, a token outside of the vocabulary, a full cache: nothing has changed then. A device that is out of memory or lost,
    /// weights that are read in place from a file that was cut meanwhile: the caches are as long as before, or empty where
    /// [`Cache::can_truncate`] says that they cannot go back.
    ///
    /// # Panics
    /// If a cache belongs to another model or stands in two chunks.
    pub fn run(&mut self, chunks: &mut [Chunk<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<Option<Ticket>, Error> {
        let ticket = self.engine.run(chunks, each);
        self.files.check()?;
        ticket
    }

    /// Chooses the tokens that the last [`Model::run`] left for later ([`crate::Want::Later`]), one for each such chunk, in their order.
    /// Whatever the choices depend on may be found out while the device still computes the logits.
    ///
    /// # Errors
    /// A device that is out of memory or lost.
    ///
    /// # Panics
    /// If another number of chunks wanted it.
    pub fn choose(&mut self, choices: &[LateChoice<'_>]) -> Result<Ticket, Error> {
        self.engine.choose(choices)
    }

    /// Waits for the tokens of a ticket and for nothing that began after it. One for each chunk that wanted a choice, in their
    /// order; `None` if none of its logits was finite.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// If the ticket was given up.
    pub fn take(&mut self, ticket: Ticket, tokens: &mut Vec<Option<u32>>) -> Result<(), Error> {
        self.engine.take(ticket, tokens)
    }

    /// [`Model::run`] for one sequence: the logits after the last token. // (vocabulary)
    ///
    /// # Errors
    /// As [`Model::run`].
    ///
    /// # Panics
    /// As [`Model::run`].
    pub fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error> {
        let Model {
            engine, logits, files, ..
        } = self;
        let chunk = Chunk {
            cache,
            input: Input::Tokens(tokens),
            want: Want::Logits,
        };
        engine.run(&mut [chunk], &mut |row| {
            logits.clear();
            logits.extend_from_slice(row.logits);
        })?;
        files.check()?;
        Ok(logits)
    }

    /// [`Model::run`] for one sequence: the logits after every token, as `each(index, logits)`.
    ///
    /// # Errors
    /// As [`Model::run`].
    ///
    /// # Panics
    /// As [`Model::run`].
    pub fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let chunk = Chunk {
            cache,
            input: Input::Tokens(tokens),
            want: Want::AllLogits,
        };
        self.run(&mut [chunk], &mut |row| each(row.token, row.logits))?;
        Ok(())
    }

    /// Chunks of one token that go through the layers together, at most. On the CPU so many give each the same bits as alone.
    pub fn batch(&self) -> usize {
        self.engine.batch()
    }

    /// Whether prompts of so many tokens each are computed alike, so that what they begin with in common can be taken from one for the
    /// other without changing a bit: on the CPU short ones are rounded as tokens of answers are, longer ones otherwise.
    pub fn reads_alike(&self, left: usize, right: usize) -> bool {
        self.engine.reads_alike(left, right)
    }

    /// Whether the device works by itself, so that it has something to do while a token is on its way here: a pass that begins with
    /// [`crate::Input::Chosen`] pays, though the pass after the last token of an answer is in vain.
    pub fn runs_ahead(&self) -> bool {
        self.engine.runs_ahead()
    }

    /// Device memory in use; `None` where it is the processor's.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.engine.memory()
    }

    /// Bytes of memory that are free for what sequences remember: the device's, or the machine's where the processor computes. `None`
    /// where nobody tells.
    pub fn free_bytes(&self) -> Option<u64> {
        self.engine.free_bytes()
    }

    /// Memory of what all sequences remember now: keys, values and states.
    pub fn sequence_bytes(&self) -> usize {
        self.engine.sequence_bytes()
    }

    /// Memory that one more position of a sequence takes, in layers with windows as long as no window is full.
    pub fn position_bytes(&self) -> usize {
        self.engine.position_bytes()
    }

    /// Memory of the states of fixed size that every sequence has, however long it is.
    pub fn state_bytes(&self) -> usize {
        self.engine.state_bytes()
    }

    /// The entries that each part of the model reads, from its input to its output.
    pub(crate) fn parts(&self) -> &[Vec<String>] {
        self.engine.parts()
    }

    pub(crate) fn begin_trials(&mut self, pieces: &[Vec<u32>]) -> Result<(), Error> {
        or_out_of_memory(|| self.engine.begin_trials(pieces))?
    }

    pub(crate) fn run_trial(
        &mut self,
        parts: &[usize],
        source: &dyn WeightSource,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        let result = self.engine.run_trial(parts, source, each);
        self.files.check()?;
        result
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

pub(crate) fn checkpoint_source<'a>(
    checkpoint: &'a Checkpoint,
    prefix_aliases: &'a [PrefixAlias],
    options: &'a LoadOptions,
) -> Result<CheckpointSource<'a>, Error> {
    let unpacking = (options.dequantize, Unpack::of(options.exact));
    CheckpointSource::new(checkpoint, prefix_aliases, options.quantize.as_ref(), unpacking)
}
