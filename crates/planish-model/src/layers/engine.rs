//! Layers on one device: embedding, running and the head, for whatever has the operations.

use std::any::Any;
use std::collections::HashMap;

use planish_checkpoint::Checkpoint;
use planish_format::{PackedMatrix, memory};
use planish_ops::{Activation, Gate, Linear, Norm, Ops, Places, Residual, RopeAngles, Span, Tokens};

use super::LOGIT_ROWS;
use crate::blocks::{BlockState, LinearLayer, Loader, NormLayer, device_error};
use crate::decoder::groups::passes;
use crate::embedding::Embedding;
use crate::source::{CheckpointSource, Unpack};
use crate::step::{Step, Stream};
use crate::workspace::{AdapterSizes, TensorSets, Workspace};
use crate::{Architecture, Error, HeadSpec, LayerSpec, NormSpec};

/// What is run.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a> {
    pub checkpoint: &'a Checkpoint,
    pub architecture: &'a Architecture,
}

/// A layer with its weights, on the device of the engine that loaded it.
pub(crate) type Held = Box<dyn Any>;

/// Whether the step of this number is to be run.
pub(crate) type GoesOn<'a> = dyn Fn(usize) -> bool + 'a;

/// Packed weights in place of what entries of these names hold.
pub(crate) type Replaced = HashMap<String, PackedMatrix>;

/// Layers on a device.
pub(crate) trait LayerEngine {
    /// Hidden states of pieces of tokens. // (tokens, hidden) each
    fn embed(&self, plain: Plain<'_>, pieces: &[Vec<u32>], replaced: &Replaced) -> Result<Vec<Vec<f32>>, Error>;
    /// A layer.
    fn load(&self, plain: Plain<'_>, layer: usize, replaced: &Replaced) -> Result<Held, Error>;
    /// Takes a whole sequence through a layer. Of each pass the steps are left out from the first on of which `goes_on` is false.
    /// // (rows, hidden)
    fn run(&self, plain: Plain<'_>, layer: &mut Held, hidden: &[f32], goes_on: &GoesOn<'_>) -> Result<Vec<f32>, Error>;
    /// Logits of rows behind the last layer. // (rows, hidden)
    fn logits(&self, plain: Plain<'_>, hidden: &[f32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error>;
}

/// The operations of a device.
pub(crate) struct On<O: Ops>(pub O);

/// A layer of [`On`].
struct LayerOn<O: Ops> {
    steps: Vec<Step<O>>,
    workspace: Workspace<O>,
    states: Vec<Vec<BlockState<O>>>, // (steps, branches), of one sequence
}

impl<O: Ops> On<O> {
    /// Loads something with packed weights in place of others.
    fn load_with<T>(
        &self,
        plain: Plain<'_>,
        replaced: &Replaced,
        load: impl FnOnce(&Loader<'_, O>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let aliases = &plain.architecture.prefix_aliases;
        let source = CheckpointSource::new(plain.checkpoint, aliases, None, (false, Unpack::F32))?.replacing(replaced);
        let loaded = load(&Loader::new(&self.0, &source));
        plain.checkpoint.release_all();
        // A file that was cut is the cause of whatever it led to.
        plain.checkpoint.check_unchanged()?;
        loaded
    }

    /// Some rows of the only sequence, from position `first` on, on their way; what is pending is added. What comes out. // (rows, hidden)
    fn pass(
        &self,
        workspace: &mut Workspace<O>,
        sequences: &mut O::Sequences,
        (first_position, rows): (usize, usize),
        run: &mut dyn FnMut(&mut Stream<'_, O>) -> Result<(), Error>,
    ) -> Result<Vec<f32>, Error> {
        let spans = [Span {
            slot: 0,
            first_row: 0,
            rows,
            first_position,
        }];
        self.0.begin_pass(&spans, sequences).map_err(device_error)?;
        let mut stream = Stream {
            ops: &self.0,
            rows,
            places: Places {
                spans: &spans,
                sequences,
            },
            workspace,
            pending: None,
        };
        run(&mut stream)?;
        stream.add_pending();
        self.read(&workspace.hidden, rows)
    }

    fn read(&self, tensor: &O::Tensor, rows: usize) -> Result<Vec<f32>, Error> {
        let mut staging = Vec::new();
        let values = self.0.read(tensor, 0..rows, &mut staging).map_err(device_error)?;
        Ok(values.to_vec())
    }
}

impl<O: Ops> LayerEngine for On<O> {
    fn embed(&self, plain: Plain<'_>, pieces: &[Vec<u32>], replaced: &Replaced) -> Result<Vec<Vec<f32>>, Error> {
        let architecture = plain.architecture;
        let load = |loader: &Loader<'_, O>| Embedding::load(loader, architecture);
        let embedding = self.load_with(plain, replaced, load)?;
        let mut workspace = Workspace::new(&self.0, architecture, &TensorSets::default(), &AdapterSizes::default())?;
        let mut run = |tokens: &Vec<u32>| {
            let vocabulary = architecture.vocabulary;
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
                return Err(Error::Token { token, vocabulary });
            }
            architecture.check_positions(tokens.len())?;
            let mut hidden = memory::with_room("hidden states", tokens.len() * architecture.hidden);
            let mut done = 0;
            let mut sequences = self.0.sequences().map_err(device_error)?;
            for pass in passes(tokens, 0, workspace.rows, None) {
                let place = (done, pass.len());
                let found = self.pass(&mut workspace, &mut sequences, place, &mut |stream| {
                    embedding.run(stream, Tokens::Known(pass));
                    Ok(())
                })?;
                hidden.extend(found);
                done += pass.len();
            }
            Ok(hidden)
        };
        pieces.iter().map(&mut run).collect()
    }

    fn load(&self, plain: Plain<'_>, layer: usize, replaced: &Replaced) -> Result<Held, Error> {
        let LayerSpec { steps } = &plain.architecture.layers[layer];
        let mut sets = TensorSets::default();
        let load = |loader: &Loader<'_, O>| -> Result<Vec<Step<O>>, Error> {
            steps.iter().map(|step| Step::load(loader, step, &mut sets)).collect()
        };
        let steps = self.load_with(plain, replaced, load)?;
        let states = steps.iter().map(|step| step.states(&self.0, 1));
        Ok(Box::new(LayerOn {
            states: states.collect::<Result<_, _>>()?,
            workspace: Workspace::new(&self.0, plain.architecture, &sets, &AdapterSizes::default())?,
            steps,
        }))
    }

    fn run(&self, plain: Plain<'_>, layer: &mut Held, hidden: &[f32], goes_on: &GoesOn<'_>) -> Result<Vec<f32>, Error> {
        let cols = plain.architecture.hidden;
        let rows = vec![0; hidden.len() / cols];
        let layer = layer.downcast_mut::<LayerOn<O>>().expect("a layer of this device");
        let LayerOn {
            steps,
            workspace,
            states,
        } = layer;
        let mut sequences = self.0.sequences().map_err(device_error)?;
        states.iter_mut().flatten().for_each(|state| state.clear(0));
        let ropes = plain.architecture.ropes.iter();
        let frequencies: Vec<Vec<f32>> = ropes.map(|rope| rope.frequencies(rows.len())).collect();
        let mut found = memory::with_room("hidden states", hidden.len());
        let mut done = 0;
        for pass in passes(&rows, 0, workspace.rows, plain.architecture.period()) {
            let values = &hidden[done * cols..][..pass.len() * cols];
            self.0.write(&mut workspace.hidden, values).map_err(device_error)?;
            let rows = self.pass(workspace, &mut sequences, (done, pass.len()), &mut |stream| {
                let ropes = plain.architecture.ropes.iter().zip(&frequencies);
                for ((rope, frequencies), output) in ropes.zip(&mut stream.workspace.angles) {
                    self.0.rope_angles(RopeAngles {
                        frequencies,
                        factor: rope.attention_factor(),
                        places: stream.places,
                        output: &mut output.tensor,
                    });
                }
                let steps = steps.iter().zip(states.iter_mut()).enumerate();
                let mut asked = steps.take_while(|(index, _)| goes_on(*index));
                asked.try_for_each(|(_, (step, states))| step.run(stream, states))
            })?;
            found.extend(rows);
            done += pass.len();
        }
        Ok(found)
    }

    fn logits(&self, plain: Plain<'_>, hidden: &[f32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        let architecture = plain.architecture;
        let load = |loader: &Loader<'_, O>| {
            let final_norm = NormSpec {
                scale: architecture.final_norm.scale * architecture.logits.scale,
                ..architecture.final_norm.clone()
            };
            let head = match &architecture.head {
                HeadSpec::Tied(spec) if !loader.source.has(&format!("{}.weight", spec.name)) => None,
                HeadSpec::Tied(spec) | HeadSpec::Separate(spec) => Some(loader.merged_linear(spec)?),
            };
            Ok((loader.norm(&final_norm)?, head, Embedding::load(loader, architecture)?))
        };
        let head: Head<O> = self.load_with(plain, &HashMap::new(), load)?;
        let mut workspace = Workspace::new(&self.0, architecture, &TensorSets::default(), &AdapterSizes::default())?;
        let mut logits = self
            .0
            .tensor_f32(LOGIT_ROWS, architecture.vocabulary)
            .map_err(device_error)?;
        let (norm, head, embedding) = &head;
        for (index, hidden) in hidden.chunks(LOGIT_ROWS * architecture.hidden).enumerate() {
            let rows = hidden.len() / architecture.hidden;
            self.0.write(&mut workspace.hidden, hidden).map_err(device_error)?;
            self.0.norm(Norm {
                residual: None::<Residual<'_, O>>,
                output: Some(&mut workspace.normed),
                ..norm.of(0..rows, &mut workspace.hidden)
            });
            let input = match &mut workspace.embedded {
                Some(output) => embedding.project_out(&self.0, rows, &workspace.normed, output),
                None => &workspace.normed,
            };
            let (weight, bias) = match head {
                Some(head) => (&head.weight, head.bias.as_ref()),
                None => (embedding.table(), None),
            };
            self.0.linear(Linear {
                rows,
                input,
                weights: &[weight],
                biases: &[bias],
                outputs: &mut [&mut logits],
            });
            if let Some(cap) = architecture.logits.softcap {
                self.0.gate(Gate {
                    rows,
                    activation: Activation::Softcap(cap),
                    gate: &mut logits,
                    up: None,
                });
            }
            let values = self.read(&logits, rows)?;
            values
                .chunks_exact(architecture.vocabulary)
                .enumerate()
                .for_each(|(row, logits)| each(index * LOGIT_ROWS + row, logits));
        }
        Ok(())
    }
}

/// The final norm, the head where it is not the embedding, and the embedding.
type Head<O> = (NormLayer<O>, Option<LinearLayer<O>>, Embedding<O>);
