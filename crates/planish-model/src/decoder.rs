//! The decoder: an architecture with its weights on one device. Tokens go through in passes of some hundred rows.

use planish_ops::{Activation, Choice, Choose, Gate, Linear, Norm, Ops, RopeAngles, Tokens};

use crate::blocks::{LinearLayer, Loader, NormLayer, device_error};
use crate::clock::{Clock, Phase};
use crate::embedding::Embedding;
use crate::source::WeightSource;
use crate::step::{Pending, Step, Stream};
use crate::workspace::{TensorSets, Workspace};
use crate::{Architecture, Cache, Error, HeadSpec, NormSpec, Phases};

/// Rows whose logits are computed together by [`Engine::forward_all`].
const LOGIT_ROWS: usize = 32;

/// What [`crate::Model`] needs of a decoder, whatever its device.
pub(crate) trait Engine: Send {
    fn cache(&self, capacity: usize) -> Result<Cache, Error>;
    fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error>;
    fn append(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(), Error>;
    fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error>;
    fn chooses(&self) -> bool;
    fn choose(&mut self, input: NextInput<'_>, cache: &mut Cache, choice: Choice) -> Result<(), Error>;
    fn take(&mut self) -> Result<Option<u32>, Error>;
    fn expect(&self, cache: &mut Cache, length: usize) -> usize;
    fn memory(&self) -> Option<DeviceMemory>;
    fn measure(&mut self, on: bool);
    fn phases(&self) -> Phases;
}

/// What a step of generation begins with.
#[derive(Clone, Copy, Debug)]
pub enum NextInput<'a> {
    /// These tokens.
    Tokens(&'a [u32]),
    /// The token that the device chose last, whether it is known yet or not.
    Chosen,
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Weights and tables.
    pub weights: u64,
    /// Tensors between the operations.
    pub workspace: u64,
    /// Everything else now: what sequences remember, and scratch.
    pub sequences: u64,
}

/// An architecture with its weights.
pub(crate) struct Decoder<O: Ops> {
    ops: O,
    architecture: Architecture,
    embedding: Embedding<O>,
    steps: Vec<Step<O>>, // of all layers
    final_norm: NormLayer<O>,
    head: Option<LinearLayer<O>>, // (vocabulary, hidden); the embedding where there is none
    frequencies: Vec<Vec<f32>>,   // of each rope, (rotated / 2), for the length in `frequencies_length`
    frequencies_length: usize,
    period: Option<usize>, // no pass crosses a multiple of it
    workspace: Workspace<O>,
    logits: Option<O::Tensor>, // (LOGIT_ROWS, vocabulary), for forward_all
    staging: Vec<f32>,
    chosen: Option<O::Chosen>, // where the device chooses tokens
    memory: Option<DeviceMemory>,
    clock: Clock,
}

impl<O: Ops> Decoder<O> {
    pub(crate) fn load(ops: O, architecture: &Architecture, source: &dyn WeightSource) -> Result<Decoder<O>, Error> {
        let loader = Loader { ops: &ops, source };
        let embedding = Embedding::load(&loader, architecture)?;
        let mut sets = TensorSets::default();
        let specs = architecture.layers.iter().flat_map(|layer| &layer.steps);
        let load = |spec| {
            source.release();
            Step::load(&loader, spec, &mut sets)
        };
        let steps = specs.map(load).collect::<Result<_, _>>()?;
        // What multiplies the logits may as well multiply what they are made of.
        let final_norm = NormSpec {
            scale: architecture.final_norm.scale * architecture.logits.scale,
            ..architecture.final_norm.clone()
        };
        let final_norm = loader.norm(&final_norm)?;
        let head = match &architecture.head {
            HeadSpec::Tied(spec) if !source.has(&format!("{}.weight", spec.name)) => None,
            HeadSpec::Tied(spec) | HeadSpec::Separate(spec) => Some(loader.linear(spec)?),
        };
        source.release();
        let weights = ops.used_bytes();
        let workspace = Workspace::new(&ops, architecture, &sets)?;
        let memory = weights.zip(ops.used_bytes()).map(|(weights, used)| DeviceMemory {
            weights,
            workspace: used.saturating_sub(weights),
            sequences: 0,
        });
        Ok(Decoder {
            embedding,
            steps,
            final_norm,
            head,
            frequencies: architecture.ropes.iter().map(|rope| rope.frequencies(0)).collect(),
            frequencies_length: 0,
            period: architecture.period(),
            workspace,
            chosen: ops.chosen().map_err(device_error)?,
            memory,
            logits: None,
            staging: Vec::new(),
            clock: Clock::default(),
            architecture: architecture.clone(),
            ops,
        })
    }

    /// Checks what the caller gives; nothing has changed when this fails.
    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<(), Error> {
        let vocabulary = self.architecture.vocabulary;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        self.check_positions(tokens.len(), cache)
    }

    /// Checks that there is room for `count` more positions.
    fn check_positions(&self, count: usize, cache: &Cache) -> Result<(), Error> {
        let needed = cache.len() + count;
        if let Some(positions) = &self.architecture.embedding.positions {
            let known = positions.rows.saturating_sub(positions.offset);
            if needed > known {
                return Err(Error::UnknownPosition { needed, known });
            }
        }
        cache.check_room(count)
    }

    /// Frequencies for a sequence of `length`; only some scalings depend on it.
    fn update_frequencies(&mut self, length: usize) {
        let ropes = &self.architecture.ropes;
        if self.frequencies_length != length && ropes.iter().any(|rope| rope.depends_on_length()) {
            self.frequencies = ropes.iter().map(|rope| rope.frequencies(length)).collect();
            self.frequencies_length = length;
        }
    }

    /// All passes of these tokens, and the logits after the last.
    fn run(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
        let (last, pending) = self.run_passes(tokens, cache)?;
        self.run_head(last, 1, pending, None);
        Ok(())
    }

    /// All passes of these tokens. Returns the last row of the last, and what it still lacks.
    fn run_passes(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(usize, Option<Pending>), Error> {
        self.check(tokens, cache)?;
        self.clock.skip();
        self.update_frequencies(cache.rotate_for(tokens.len()));
        let mut last = (0, None);
        for pass in passes(tokens, cache.len(), self.workspace.rows, self.period) {
            last = (pass.len() - 1, self.run_layers(NextInput::Tokens(pass), cache)?);
        }
        Ok(last)
    }

    /// All layers for one pass. Returns what `hidden` still lacks: the final norm adds it.
    fn run_layers(&mut self, input: NextInput<'_>, cache: &mut Cache) -> Result<Option<Pending>, Error> {
        let tokens = match (input, &self.chosen) {
            (NextInput::Tokens(tokens), _) => Tokens::Known(tokens),
            (NextInput::Chosen, Some(chosen)) => Tokens::Chosen(chosen),
            (NextInput::Chosen, None) => unreachable!("only asked of devices that choose"),
        };
        let (rows, first_position) = (tokens.count(), cache.len());
        let ropes = self.architecture.ropes.iter().zip(&self.frequencies);
        for ((rope, frequencies), output) in ropes.zip(&mut self.workspace.angles) {
            self.ops.rope_angles(RopeAngles {
                frequencies,
                factor: rope.attention_factor(),
                first_position,
                rows,
                output: &mut output.tensor,
            });
        }
        let mut stream = Stream {
            ops: &self.ops,
            rows,
            first_position,
            workspace: &mut self.workspace,
            clock: &mut self.clock,
            pending: None,
        };
        self.embedding.run(&mut stream, tokens);
        for (step, states) in self.steps.iter().zip(cache.states::<O>()) {
            if let Err(error) = step.run(&mut stream, states) {
                cache.fail();
                return Err(error);
            }
        }
        let pending = stream.pending;
        cache.advance(rows);
        Ok(pending)
    }

    /// Logits of rows `first..first + count` of the pass into the first rows of `logits`.
    fn run_head(&mut self, first: usize, count: usize, pending: Option<Pending>, logits: Option<&mut O::Tensor>) {
        let Decoder {
            ops, workspace, clock, ..
        } = self;
        let (hidden, deltas) = (&mut workspace.hidden, &workspace.deltas);
        ops.norm(Norm {
            residual: pending.map(|pending| pending.residual(deltas)),
            output: Some(&mut workspace.normed),
            ..self.final_norm.of(first..first + count, hidden)
        });
        let (weight, bias) = match &self.head {
            Some(head) => (&head.weight, head.bias.as_ref()),
            None => (self.embedding.table(), None),
        };
        let logits = logits.unwrap_or(&mut workspace.logits);
        let input = match &mut workspace.narrow {
            Some(narrow) => self.embedding.narrow(ops, count, &workspace.normed, narrow),
            None => &workspace.normed,
        };
        clock.timed_head(ops).linear(Linear {
            rows: count,
            input,
            weights: &[weight],
            biases: &[bias],
            outputs: &mut [&mut *logits],
        });
        if let Some(cap) = self.architecture.logits.softcap {
            ops.gate(Gate {
                rows: count,
                activation: Activation::Softcap(cap),
                gate: logits,
                up: None,
            });
        }
        clock.lap(Phase::Head);
    }
}

/// Tokens from `position` on in runs of at most `rows` that do not cross a multiple of `period`.
fn passes(tokens: &[u32], position: usize, rows: usize, period: Option<usize>) -> impl Iterator<Item = &[u32]> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let to_boundary = period.map_or(rows, |period| period - (position + done) % period);
        let end = tokens.len().min(done + rows.min(to_boundary));
        let pass = &tokens[done..end];
        done = end;
        (!pass.is_empty()).then_some(pass)
    })
}

impl<O: Ops> Engine for Decoder<O> {
    fn cache(&self, capacity: usize) -> Result<Cache, Error> {
        let states = self.steps.iter().map(|step| step.states(&self.ops));
        let windowed = self.architecture.has_windows();
        Ok(Cache::new::<O>(states.collect::<Result<_, _>>()?, capacity, windowed))
    }

    fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error> {
        self.run(tokens, cache)?;
        self.ops
            .read(&self.workspace.logits, 0..1, &mut self.staging)
            .map_err(device_error)
    }

    fn append(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
        self.run_passes(tokens, cache).map(|_| ())
    }

    fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        self.check(tokens, cache)?;
        self.update_frequencies(cache.rotate_for(tokens.len()));
        let vocabulary = self.architecture.vocabulary;
        let mut logits = match self.logits.take() {
            Some(logits) => logits,
            None => self.ops.tensor_f32(LOGIT_ROWS, vocabulary).map_err(device_error)?,
        };
        let mut index = 0;
        for pass in passes(tokens, cache.len(), self.workspace.rows, self.period) {
            self.clock.skip();
            let pending = self.run_layers(NextInput::Tokens(pass), cache)?;
            for first in (0..pass.len()).step_by(LOGIT_ROWS) {
                let count = LOGIT_ROWS.min(pass.len() - first);
                self.run_head(first, count, pending, Some(&mut logits));
                let values = self
                    .ops
                    .read(&logits, 0..count, &mut self.staging)
                    .map_err(device_error)?;
                for logits in values.chunks_exact(vocabulary) {
                    each(index, logits);
                    index += 1;
                }
            }
        }
        self.logits = Some(logits);
        Ok(())
    }

    fn chooses(&self) -> bool {
        self.chosen.is_some()
    }

    fn choose(&mut self, input: NextInput<'_>, cache: &mut Cache, choice: Choice) -> Result<(), Error> {
        match input {
            NextInput::Tokens(tokens) => self.run(tokens, cache)?,
            NextInput::Chosen => {
                self.check_positions(1, cache)?;
                self.update_frequencies(cache.rotate_for(1));
                let pending = self.run_layers(input, cache)?;
                self.run_head(0, 1, pending, None);
            }
        }
        let logits = &self.workspace.logits;
        let Some(chosen) = &mut self.chosen else {
            unreachable!("only asked of devices that choose")
        };
        let problem = Choose {
            logits,
            choice,
            afresh: matches!(input, NextInput::Tokens(_)),
            chosen,
        };
        self.ops.choose(problem).map_err(device_error)
    }

    fn take(&mut self) -> Result<Option<u32>, Error> {
        let Some(chosen) = &mut self.chosen else {
            unreachable!("only asked of devices that choose")
        };
        self.ops.take(chosen).map_err(device_error)
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let (memory, used) = (self.memory?, self.ops.used_bytes()?);
        Some(DeviceMemory {
            sequences: used.saturating_sub(memory.weights + memory.workspace),
            ..memory
        })
    }

    fn expect(&self, cache: &mut Cache, length: usize) -> usize {
        let ropes = self.architecture.ropes.iter().filter(|rope| rope.depends_on_length());
        let turned = |stored: usize| {
            ropes
                .clone()
                .any(|rope| rope.frequencies(stored) != rope.frequencies(length))
        };
        if cache.rotated_for().is_some_and(turned) {
            cache.truncate(0);
        }
        cache.expect(length);
        cache.len()
    }

    fn measure(&mut self, on: bool) {
        // Launches that are still under way would count as nothing.
        self.clock.measure(on && O::SYNCHRONOUS);
    }

    fn phases(&self) -> Phases {
        self.clock.phases
    }
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn passes_end_at_multiples_of_the_period() {
        let tokens: Vec<u32> = (0..20).collect();
        let lengths = |position, rows, period| -> Vec<usize> {
            let passes: Vec<&[u32]> = passes(&tokens, position, rows, period).collect();
            assert_eq!(passes.concat(), tokens);
            passes.iter().map(|pass| pass.len()).collect()
        };
        assert_eq!(lengths(0, 8, None), [8, 8, 4]);
        assert_eq!(lengths(3, 8, Some(10)), [7, 8, 2, 3]);
        assert_eq!(lengths(10, 64, Some(10)), [10, 10]);
    }
}
