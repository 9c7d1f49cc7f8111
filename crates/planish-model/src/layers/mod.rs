//! A model one layer at a time, in f32: for methods that change a layer's weights by what goes into it. Nothing of the model is held but
//! the layers that the caller has loaded; the hidden states between layers are the caller's.

mod engine;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_checkpoint::Checkpoint;
use planish_cpu::{Cpu, CpuOps, Precision};
use planish_format::PackedMatrix;
use planish_ops::{Origin, Tap};

use crate::source::{CheckpointSource, Unpack};
use crate::{Architecture, BlockSpec, Device, Error};
use engine::{GoesOn, Held, Plain};
pub(crate) use engine::{LayerEngine, On};

/// Rows whose logits are computed together.
const LOGIT_ROWS: usize = 32;

/// Runs the layers of a checkpoint.
pub struct LayerRunner<'a> {
    checkpoint: &'a Checkpoint,
    architecture: Architecture,
    engine: Box<dyn LayerEngine>,
    ear: Arc<Ear>,
}

/// A layer with its weights.
pub struct LoadedLayer {
    held: Held,
    names: HashMap<usize, Origin>,
}

/// Rows that were multiplied by weights. Weights that one product after another multiplied the same rows by stand together.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Of the weights.
    pub origins: Vec<Origin>,
    /// Values of a row.
    pub cols: usize,
    /// (rows, cols)
    pub rows: Vec<f32>,
}

/// Hears products: keeps the names of weights while they are loaded, and inputs while a layer runs.
#[derive(Debug, Default)]
struct Ear {
    names: Mutex<HashMap<usize, Origin>>,
    wanted: Mutex<HashMap<usize, Origin>>,
    /// Of those that are wanted, what was not heard in this pass.
    missing: Mutex<HashSet<usize>>,
    heard: Mutex<Vec<Heard>>,
}

impl Tap for Ear {
    fn name(&self, weight: usize, origin: Origin) {
        lock(&self.names).insert(weight, origin);
    }

    fn wants(&self, weight: usize) -> bool {
        lock(&self.wanted).contains_key(&weight)
    }

    fn inputs(&self, weight: usize, values: &[f32], cols: usize) {
        let wanted = lock(&self.wanted);
        let Some(origin) = wanted.get(&weight) else {
            return;
        };
        lock(&self.missing).remove(&weight);
        let mut heard = lock(&self.heard);
        match heard.last_mut().filter(|last| last.cols == cols && last.rows == values) {
            Some(last) if last.origins.contains(origin) => {}
            Some(last) => last.origins.push(origin.clone()),
            None => heard.push(Heard {
                origins: vec![origin.clone()],
                cols,
                rows: values.to_vec(),
            }),
        }
    }
}

impl LayerRunner<'_> {
    /// For a checkpoint of a family that is known. [`Device::Cuda`] has no ears for products of experts and of heads: models with these run
    /// on the processor, as they do with every other device.
    ///
    /// # Errors
    /// An architecture that is not known; a `PLANISH_CPU` that is not here; a GPU that does not work.
    pub fn new(checkpoint: &Checkpoint, threads: Option<usize>, device: Device) -> Result<LayerRunner<'_>, Error> {
        let architecture = Architecture::of(checkpoint)?;
        if architecture.is_entangled() {
            return Err(Error::Entangled);
        }
        let ear = Arc::new(Ear::default());
        let engine: Box<dyn LayerEngine> = match device {
            Device::Cuda if has_ears(&architecture) => crate::device::layers_on_cuda(ear.clone())?,
            _ => {
                let cpu = Cpu::new(threads.unwrap_or(0)).map_err(|error| Error::Device(Box::new(error)))?;
                // A layer stays in the mapped file, where the system can take its memory back.
                Box::new(On(CpuOps::new(cpu.with_tap(ear.clone()), Precision::Exact).in_place()))
            }
        };
        Ok(LayerRunner {
            checkpoint,
            architecture,
            engine,
            ear,
        })
    }

    /// As [`LayerRunner::new`], on the GPU behind `queue`.
    ///
    /// # Errors
    /// As [`LayerRunner::new`].
    ///
    /// # Panics
    /// If there are experts or latent attention.
    #[cfg(not(fuzzing))]
    pub fn on<Q: planish_gpu::Queue>(checkpoint: &Checkpoint, queue: Q) -> Result<LayerRunner<'_>, Error> {
        let architecture = Architecture::of(checkpoint)?;
        assert!(has_ears(&architecture), "products that a GPU tells of");
        let ear = Arc::new(Ear::default());
        Ok(LayerRunner {
            checkpoint,
            architecture,
            engine: crate::device::layers_on(queue, ear.clone())?,
            ear,
        })
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn plain(&self) -> Plain<'_> {
        Plain {
            checkpoint: self.checkpoint,
            architecture: &self.architecture,
        }
    }

    /// The entry of the checkpoint that is the token table.
    pub fn table(&self) -> Option<String> {
        let name = format!("{}.weight", self.architecture.embedding.name);
        let aliases = &self.architecture.prefix_aliases;
        let source = CheckpointSource::new(self.checkpoint, aliases, None, (false, Unpack::F32)).ok()?;
        source.find(&name).ok().map(|found| found.name)
    }

    /// The hidden states that layers begin with, of each piece of tokens. // (tokens, hidden) each
    ///
    /// # Errors
    /// A missing tensor; a token or position that is not known.
    pub fn embed(&self, pieces: &[Vec<u32>], replaced: &HashMap<String, PackedMatrix>) -> Result<Vec<Vec<f32>>, Error> {
        self.engine.embed(self.plain(), pieces, replaced)
    }

    /// A layer, with packed weights in place of what entries of these names hold.
    ///
    /// # Errors
    /// A missing tensor or a wrong shape.
    pub fn load(&self, layer: usize, replaced: &HashMap<String, PackedMatrix>) -> Result<LoadedLayer, Error> {
        lock(&self.ear.names).clear();
        let held = self.engine.load(self.plain(), layer, replaced)?;
        Ok(LoadedLayer {
            held,
            names: std::mem::take(&mut *lock(&self.ear.names)),
        })
    }

    /// Takes the hidden states of a whole sequence through a layer: what comes out, and what the weights were multiplied by whose
    /// origins are wanted. // (rows, hidden)
    ///
    /// # Errors
    /// A failing device.
    pub fn run(
        &self,
        layer: &mut LoadedLayer,
        hidden: &[f32],
        wanted: &dyn Fn(&Origin) -> bool,
    ) -> Result<(Vec<f32>, Vec<Heard>), Error> {
        self.listen(layer, hidden, wanted, &|_| true)
    }

    /// As [`LayerRunner::run`], for what the weights were multiplied by alone: steps that follow are left out.
    ///
    /// # Errors
    /// A failing device.
    pub fn hear(
        &self,
        layer: &mut LoadedLayer,
        hidden: &[f32],
        wanted: &dyn Fn(&Origin) -> bool,
    ) -> Result<Vec<Heard>, Error> {
        let goes_on = |step: usize| {
            if step == 0 {
                // Another pass.
                let wanted = lock(&self.ear.wanted).keys().copied().collect();
                *lock(&self.ear.missing) = wanted;
            }
            !lock(&self.ear.missing).is_empty()
        };
        Ok(self.listen(layer, hidden, wanted, &goes_on)?.1)
    }

    fn listen(
        &self,
        layer: &mut LoadedLayer,
        hidden: &[f32],
        wanted: &dyn Fn(&Origin) -> bool,
        goes_on: &GoesOn<'_>,
    ) -> Result<(Vec<f32>, Vec<Heard>), Error> {
        let wanted = layer.names.iter().filter(|(_, origin)| wanted(origin));
        *lock(&self.ear.wanted) = wanted.map(|(weight, origin)| (*weight, origin.clone())).collect();
        let result = self.engine.run(self.plain(), &mut layer.held, hidden, goes_on);
        lock(&self.ear.wanted).clear();
        let heard = std::mem::take(&mut *lock(&self.ear.heard));
        Ok((result?, heard))
    }

    /// Logits of rows of hidden states behind the last layer, of several sequences one after another, as `each(row, logits)`.
    /// // (rows, hidden)
    ///
    /// # Errors
    /// A missing tensor or a wrong shape.
    pub fn logits(&self, hidden: &[f32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        self.engine.logits(self.plain(), hidden, each)
    }
}

/// Whether a GPU tells of all products of the model.
fn has_ears(architecture: &Architecture) -> bool {
    let steps = architecture.layers.iter().flat_map(|layer| &layer.steps);
    let mut blocks = steps.flat_map(|step| &step.branches).map(|branch| &branch.block);
    !blocks.any(|block| matches!(block, BlockSpec::Experts(_) | BlockSpec::LatentAttention(_)))
}

impl LoadedLayer {
    /// Of all weights whose rows stand in the checkpoint as they are.
    pub fn origins(&self) -> HashSet<&Origin> {
        self.names.values().collect()
    }
}

/// A panic elsewhere leaves nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
