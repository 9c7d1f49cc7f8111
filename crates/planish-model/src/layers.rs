//! A model one layer at a time, on the processor in f32: for methods that change a layer's weights by what goes into it. Nothing of
//! the model is held but the layers that the caller has loaded; the hidden states between layers are the caller's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_checkpoint::Checkpoint;
use planish_cpu::{Cpu, CpuOps, Precision};
use planish_format::{PackedMatrix, memory};
use planish_ops::{Activation, Gate, Linear, Norm, Ops, Origin, Places, Residual, RopeAngles, Span, Tap, Tokens};

use crate::blocks::{BlockState, LinearLayer, Loader, NormLayer, device_error};
use crate::decoder::groups::passes;
use crate::embedding::Embedding;
use crate::source::{CheckpointSource, Unpack};
use crate::step::{Step, Stream};
use crate::workspace::{TensorSets, Workspace};
use crate::{Architecture, Error, HeadSpec, LayerSpec, NormSpec};

/// Rows whose logits are computed together.
const LOGIT_ROWS: usize = 32;

/// Runs the layers of a checkpoint.
pub struct LayerRunner<'a> {
    checkpoint: &'a Checkpoint,
    architecture: Architecture,
    ops: CpuOps,
    ear: Arc<Ear>,
}

/// A layer with its weights.
pub struct LoadedLayer {
    steps: Vec<Step<CpuOps>>,
    workspace: Workspace<CpuOps>,
    states: Vec<Vec<BlockState<CpuOps>>>, // (steps, branches), of one sequence
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
    heard: Mutex<Vec<Heard>>,
}

impl Tap for Ear {
    fn name(&self, weight: usize, origin: Origin) {
        lock(&self.names).insert(weight, origin);
    }

    fn inputs(&self, weight: usize, values: &[f32], cols: usize) {
        let wanted = lock(&self.wanted);
        let Some(origin) = wanted.get(&weight) else {
            return;
        };
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
    /// For a checkpoint of a family that is known.
    ///
    /// # Errors
    /// An architecture that is not known; a `PLANISH_CPU` that is not here.
    pub fn new(checkpoint: &Checkpoint, threads: Option<usize>) -> Result<LayerRunner<'_>, Error> {
        let ear = Arc::new(Ear::default());
        let cpu = Cpu::new(threads.unwrap_or(0)).map_err(|error| Error::Device(Box::new(error)))?;
        Ok(LayerRunner {
            architecture: Architecture::of(checkpoint)?,
            ops: CpuOps::new(cpu.with_tap(ear.clone()), Precision::Exact),
            checkpoint,
            ear,
        })
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The entry of the checkpoint that is the token table.
    pub fn table(&self) -> Option<String> {
        let name = format!("{}.weight", self.architecture.embedding.name);
        let aliases = &self.architecture.prefix_aliases;
        let source = CheckpointSource::new(self.checkpoint, aliases, None, (false, Unpack::F32)).ok()?;
        source.find(&name).ok().map(|found| found.name)
    }

    /// Loads something with packed weights in place of what entries of these names hold, and keeps the names of its weights.
    fn load_with<T>(
        &self,
        replaced: &HashMap<String, PackedMatrix>,
        load: impl FnOnce(&Loader<'_, CpuOps>) -> Result<T, Error>,
    ) -> Result<(T, HashMap<usize, Origin>), Error> {
        lock(&self.ear.names).clear();
        let aliases = &self.architecture.prefix_aliases;
        let source = CheckpointSource::new(self.checkpoint, aliases, None, (false, Unpack::F32))?.replacing(replaced);
        let (ops, source) = (&self.ops, &source);
        let loaded = load(&Loader { ops, source });
        self.checkpoint.release_all();
        // A file that was cut is the cause of whatever it led to.
        self.checkpoint.check_unchanged()?;
        Ok((loaded?, std::mem::take(&mut *lock(&self.ear.names))))
    }

    /// The hidden states that layers begin with, of each piece of tokens. // (tokens, hidden) each
    ///
    /// # Errors
    /// A missing tensor; a token or position that is not known.
    pub fn embed(&self, pieces: &[Vec<u32>], replaced: &HashMap<String, PackedMatrix>) -> Result<Vec<Vec<f32>>, Error> {
        let architecture = &self.architecture;
        let load = |loader: &Loader<'_, CpuOps>| Embedding::load(loader, architecture);
        let (embedding, _) = self.load_with(replaced, load)?;
        let mut workspace = Workspace::new(&self.ops, architecture, &TensorSets::default())?;
        let mut run = |tokens: &Vec<u32>| {
            let vocabulary = architecture.vocabulary;
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
                return Err(Error::Token { token, vocabulary });
            }
            if let Some(positions) = &architecture.embedding.positions {
                let (needed, known) = (tokens.len(), positions.rows.saturating_sub(positions.offset));
                if needed > known {
                    return Err(Error::UnknownPosition { needed, known });
                }
            }
            let mut hidden = memory::with_room("hidden states", tokens.len() * architecture.hidden);
            let mut done = 0;
            for pass in passes(tokens, 0, workspace.rows, None) {
                self.pass(&mut workspace, (done, pass.len()), &mut |stream| {
                    embedding.run(stream, Tokens::Known(pass));
                    Ok(())
                })?;
                hidden.extend_from_slice(workspace.hidden.first(pass.len()));
                done += pass.len();
            }
            Ok(hidden)
        };
        pieces.iter().map(&mut run).collect()
    }

    /// A layer, with packed weights in place of what entries of these names hold.
    ///
    /// # Errors
    /// A missing tensor or a wrong shape.
    pub fn load(&self, layer: usize, replaced: &HashMap<String, PackedMatrix>) -> Result<LoadedLayer, Error> {
        let LayerSpec { steps } = &self.architecture.layers[layer];
        let mut sets = TensorSets::default();
        let load = |loader: &Loader<'_, CpuOps>| -> Result<Vec<Step<CpuOps>>, Error> {
            steps.iter().map(|step| Step::load(loader, step, &mut sets)).collect()
        };
        let (steps, names) = self.load_with(replaced, load)?;
        let states = steps.iter().map(|step| step.states(&self.ops, 1));
        Ok(LoadedLayer {
            states: states.collect::<Result<_, _>>()?,
            workspace: Workspace::new(&self.ops, &self.architecture, &sets)?,
            steps,
            names,
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
        let wanted = layer.names.iter().filter(|(_, origin)| wanted(origin));
        *lock(&self.ear.wanted) = wanted.map(|(weight, origin)| (*weight, origin.clone())).collect();
        let result = self.run_rows(layer, hidden);
        lock(&self.ear.wanted).clear();
        let heard = std::mem::take(&mut *lock(&self.ear.heard));
        Ok((result?, heard))
    }

    fn run_rows(&self, layer: &mut LoadedLayer, hidden: &[f32]) -> Result<Vec<f32>, Error> {
        let cols = self.architecture.hidden;
        let rows = vec![0; hidden.len() / cols];
        let LoadedLayer {
            steps,
            workspace,
            states,
            ..
        } = layer;
        states.iter_mut().flatten().for_each(|state| state.clear(0));
        let ropes = self.architecture.ropes.iter();
        let frequencies: Vec<Vec<f32>> = ropes.map(|rope| rope.frequencies(rows.len())).collect();
        let mut found = memory::with_room("hidden states", hidden.len());
        let mut done = 0;
        for pass in passes(&rows, 0, workspace.rows, self.architecture.period()) {
            let values = &hidden[done * cols..][..pass.len() * cols];
            workspace.hidden.first_mut(pass.len()).copy_from_slice(values);
            self.pass(workspace, (done, pass.len()), &mut |stream| {
                let ropes = self.architecture.ropes.iter().zip(&frequencies);
                for ((rope, frequencies), output) in ropes.zip(&mut stream.workspace.angles) {
                    self.ops.rope_angles(RopeAngles {
                        frequencies,
                        factor: rope.attention_factor(),
                        places: stream.places,
                        output: &mut output.tensor,
                    });
                }
                let mut steps = steps.iter().zip(states.iter_mut());
                steps.try_for_each(|(step, states)| step.run(stream, states))
            })?;
            found.extend_from_slice(workspace.hidden.first(pass.len()));
            done += pass.len();
        }
        Ok(found)
    }

    /// Some rows of the only sequence, from position `first` on, on their way; what is pending is added.
    fn pass(
        &self,
        workspace: &mut Workspace<CpuOps>,
        (first_position, rows): (usize, usize),
        run: &mut dyn FnMut(&mut Stream<'_, CpuOps>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut sequences = self.ops.sequences().map_err(device_error)?;
        let spans = [Span {
            slot: 0,
            first_row: 0,
            rows,
            first_position,
        }];
        self.ops.begin_pass(&spans, &mut sequences).map_err(device_error)?;
        let mut stream = Stream {
            ops: &self.ops,
            rows,
            places: Places {
                spans: &spans,
                sequences: &sequences,
            },
            workspace,
            pending: None,
        };
        run(&mut stream)?;
        stream.add_pending();
        Ok(())
    }

    /// Logits of rows of hidden states behind the last layer, of several sequences one after another, as `each(row, logits)`.
    /// // (rows, hidden)
    ///
    /// # Errors
    /// A missing tensor or a wrong shape.
    pub fn logits(&self, hidden: &[f32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        let architecture = &self.architecture;
        let load = |loader: &Loader<'_, CpuOps>| {
            let final_norm = NormSpec {
                scale: architecture.final_norm.scale * architecture.logits.scale,
                ..architecture.final_norm.clone()
            };
            let head = match &architecture.head {
                HeadSpec::Tied(spec) if !loader.source.has(&format!("{}.weight", spec.name)) => None,
                HeadSpec::Tied(spec) | HeadSpec::Separate(spec) => Some(loader.linear(spec)?),
            };
            Ok((loader.norm(&final_norm)?, head, Embedding::load(loader, architecture)?))
        };
        let (head, _): (Head, _) = self.load_with(&HashMap::new(), load)?;
        let mut workspace = Workspace::new(&self.ops, architecture, &TensorSets::default())?;
        let mut logits = self
            .ops
            .tensor_f32(LOGIT_ROWS, architecture.vocabulary)
            .map_err(device_error)?;
        let (norm, head, embedding) = &head;
        for (index, hidden) in hidden.chunks(LOGIT_ROWS * architecture.hidden).enumerate() {
            let rows = hidden.len() / architecture.hidden;
            workspace.hidden.first_mut(rows).copy_from_slice(hidden);
            self.ops.norm(Norm {
                residual: None::<Residual<'_, CpuOps>>,
                output: Some(&mut workspace.normed),
                ..norm.of(0..rows, &mut workspace.hidden)
            });
            let input = match &mut workspace.embedded {
                Some(output) => embedding.project_out(&self.ops, rows, &workspace.normed, output),
                None => &workspace.normed,
            };
            let (weight, bias) = match head {
                Some(head) => (&head.weight, head.bias.as_ref()),
                None => (embedding.table(), None),
            };
            self.ops.linear(Linear {
                rows,
                input,
                weights: &[weight],
                biases: &[bias],
                outputs: &mut [&mut logits],
            });
            if let Some(cap) = architecture.logits.softcap {
                self.ops.gate(Gate {
                    rows,
                    activation: Activation::Softcap(cap),
                    gate: &mut logits,
                    up: None,
                });
            }
            let values = logits.first(rows).chunks_exact(architecture.vocabulary);
            values
                .enumerate()
                .for_each(|(row, logits)| each(index * LOGIT_ROWS + row, logits));
        }
        Ok(())
    }
}

/// The final norm, the head where it is not the embedding, and the embedding.
type Head = (NormLayer<CpuOps>, Option<LinearLayer<CpuOps>>, Embedding<CpuOps>);

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
