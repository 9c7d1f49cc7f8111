//! The decoder: an architecture with its weights on one device, and what its layers remember of all sequences.
//!
//! `groups.rs` says which chunks go through the layers together, `pass.rs` takes rows through them, `head.rs` ends a call;
//! `trial.rs` runs it with parts in other forms.

pub(crate) mod groups;
mod head;
mod pass;
mod trial;

use std::sync::Arc;

use planish_format::memory::or_out_of_memory;
use planish_ops::{Ops, SequenceStore, Span};

use crate::batch::{Chunk, Input, LateChoice, Row, Ticket, Want};
use crate::blocks::{BlockState, LinearLayer, Loader, NormLayer, device_error};
use crate::cache::Slots;
use crate::embedding::Embedding;
use crate::source::WeightSource;
use crate::step::Step;
use crate::workspace::{TensorSets, Workspace};
use crate::{Architecture, Cache, Error, HeadSpec, NormSpec, Phases};
use head::Finals;
use trial::Trials;

/// What [`crate::Model`] needs of a decoder, whatever its device.
pub(crate) trait Engine: Send {
    fn cache(&self, capacity: usize) -> Cache;
    fn fork(&mut self, cache: &Cache) -> Result<Cache, Error>;
    fn run(&mut self, chunks: &mut [Chunk<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<Option<Ticket>, Error>;
    fn choose(&mut self, choices: &[LateChoice<'_>]) -> Result<Ticket, Error>;
    fn take(&mut self, ticket: Ticket, tokens: &mut Vec<Option<u32>>) -> Result<(), Error>;
    fn announce_length(&self, cache: &mut Cache, length: usize) -> usize;
    fn batch(&self) -> usize;
    fn reads_alike(&self, left: usize, right: usize) -> bool;
    fn runs_ahead(&self) -> bool;
    fn memory(&self) -> Option<DeviceMemory>;
    fn free_bytes(&self) -> Option<u64>;
    fn sequence_bytes(&self) -> usize;
    fn position_bytes(&self) -> usize;
    fn state_bytes(&self) -> usize;
    fn measure(&mut self, on: bool);
    fn phases(&self) -> Phases;
    fn parts(&self) -> &[Vec<String>];
    fn begin_trials(&mut self, pieces: &[Vec<u32>]) -> Result<(), Error>;
    fn run_trial(
        &mut self,
        parts: &[usize],
        source: &dyn WeightSource,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error>;
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
    length_matters: bool,  // whether any rope's frequencies depend on the length
    period: Option<usize>, // no pass crosses a multiple of it
    workspace: Workspace<O>,
    slots: Arc<Slots>,
    states: Vec<Vec<BlockState<O>>>, // (steps, branches), each of all sequences
    state_steps: Vec<usize>,         // of each step, whose states it uses
    room: usize,                     // slots that the states have room for
    sequences: O::Sequences,
    lists: Lists,
    finals: Finals<O>,
    memory: Option<DeviceMemory>,
    measuring: bool,
    head_share: Phases, // of what the device measured
    sets: TensorSets,
    parts: Vec<Vec<String>>, // entries that the embedding, each step and the head read
    trials: Option<Trials<O>>,
}

/// Lists that every call reuses.
#[derive(Default)]
struct Lists {
    order: Vec<usize>, // chunks in the order in which they are computed
    spans: Vec<Span>,
    tokens: Vec<u32>,
    known: Vec<Option<u32>>,
    lengths: Vec<usize>, // that each span's positions are rotated for
    before: Vec<usize>,  // lengths of the chunks' caches before the call
}

impl<O: Ops> Decoder<O> {
    pub(crate) fn load(ops: O, architecture: &Architecture, source: &dyn WeightSource) -> Result<Decoder<O>, Error> {
        let loader = Loader::new(&ops, source);
        let embedding = Embedding::load(&loader, architecture)?;
        let mut sets = TensorSets::default();
        let specs = architecture.layers.iter().flat_map(|layer| &layer.steps);
        let mut parts = vec![source.take_names()];
        let load = |spec| {
            source.release();
            let step = Step::load(&loader, spec, &mut sets);
            parts.push(source.take_names());
            step
        };
        let steps: Vec<Step<O>> = specs.map(load).collect::<Result<_, _>>()?;
        // What multiplies the logits may as well multiply what they are made of.
        let final_norm = NormSpec {
            scale: architecture.final_norm.scale * architecture.logits.scale,
            ..architecture.final_norm.clone()
        };
        let final_norm = loader.norm(&final_norm)?;
        let head = match &architecture.head {
            HeadSpec::Tied(spec) if !source.has(&format!("{}.weight", spec.name)) => None,
            HeadSpec::Tied(spec) | HeadSpec::Separate(spec) => Some(loader.merged_linear(spec)?),
        };
        parts.push(source.take_names());
        source.release();
        let weights = ops.used_bytes();
        let adapters = loader.adapters.into_inner();
        let workspace = Workspace::new(&ops, architecture, &sets, &adapters)?;
        let finals = Finals::new(&ops, architecture)?;
        let memory = weights.zip(ops.used_bytes()).map(|(weights, used)| DeviceMemory {
            weights,
            workspace: used.saturating_sub(weights),
            sequences: 0,
        });
        let room = 1;
        let states = steps.iter().map(|step| step.states(&ops, room));
        Ok(Decoder {
            states: states.collect::<Result<_, _>>()?,
            room,
            state_steps: architecture.state_steps(),
            slots: Arc::default(),
            sequences: ops.sequences().map_err(device_error)?,
            embedding,
            steps,
            final_norm,
            head,
            frequencies: architecture.ropes.iter().map(|rope| rope.frequencies(0)).collect(),
            frequencies_length: 0,
            length_matters: architecture.ropes.iter().any(|rope| rope.depends_on_length()),
            period: architecture.period(),
            workspace,
            lists: Lists::default(),
            finals,
            memory,
            measuring: false,
            head_share: Phases::default(),
            sets,
            parts,
            trials: None,
            architecture: architecture.clone(),
            ops,
        })
    }

    fn can_truncate(&self) -> bool {
        self.states.iter().flatten().all(BlockState::can_truncate)
    }

    /// Checks what the caller gives; nothing has changed when this fails.
    fn check(&self, chunks: &[Chunk<'_>]) -> Result<(), Error> {
        let vocabulary = self.architecture.vocabulary;
        for (index, chunk) in chunks.iter().enumerate() {
            let slot = chunk.cache.slot_of(&self.slots);
            let earlier = chunks[..index]
                .iter()
                .any(|other| other.cache.slot_of(&self.slots) == slot);
            assert!(!earlier, "a cache stands in one chunk");
            if let Some(tokens) = chunk.input.tokens() {
                if tokens.is_empty() {
                    return Err(Error::NoTokens);
                }
                if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
                    return Err(Error::Token { token, vocabulary });
                }
            }
            self.check_positions(chunk.input.count(), chunk.cache)?;
        }
        Ok(())
    }

    /// Checks that there is room for `count` more positions.
    fn check_positions(&self, count: usize, cache: &Cache) -> Result<(), Error> {
        self.architecture.check_positions(cache.len() + count)?;
        cache.check_room(count)
    }

    /// Clears the slots of sequences that are gone, and makes room for new ones.
    fn update_slots(&mut self) -> Result<(), Error> {
        while let Some(slot) = self.slots.take_dropped() {
            self.sequences.clear(slot);
            self.states.iter_mut().flatten().for_each(|state| state.clear(slot));
        }
        let count = self.slots.count();
        if count > self.room {
            let room = count.next_power_of_two();
            for (step, states) in self.steps.iter().zip(&mut self.states) {
                for (state, larger) in states.iter_mut().zip(step.states(&self.ops, room)?) {
                    state.grow(&self.ops, larger);
                }
            }
            self.room = room;
        }
        Ok(())
    }
}

impl<O: Ops> Engine for Decoder<O> {
    fn cache(&self, capacity: usize) -> Cache {
        Cache::new(
            &self.slots,
            capacity,
            self.can_truncate(),
            self.architecture.has_windows(),
        )
    }

    fn fork(&mut self, cache: &Cache) -> Result<Cache, Error> {
        let twin = cache.twin();
        self.update_slots()?;
        let (from, to) = (cache.slot_of(&self.slots), twin.slot_of(&self.slots));
        self.sequences.fork(from, to);
        let states = self.states.iter_mut().flatten();
        states.for_each(|state| state.fork(&self.ops, self.room, (from, to)));
        Ok(twin)
    }

    fn run(&mut self, chunks: &mut [Chunk<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<Option<Ticket>, Error> {
        self.check(chunks)?;
        self.update_slots()?;
        self.finals.begin();
        let mut lists = std::mem::take(&mut self.lists);
        lists.before.clear();
        lists.before.extend(chunks.iter().map(|chunk| chunk.cache.len()));
        let result = or_out_of_memory(|| self.run_groups(&mut lists, chunks, each));
        let result = result.unwrap_or_else(|error| Err(error.into()));
        if result.is_err() {
            for (chunk, &length) in chunks.iter_mut().zip(&lists.before) {
                chunk.cache.truncate(length);
            }
        }
        self.lists = lists;
        result
    }

    fn choose(&mut self, choices: &[LateChoice<'_>]) -> Result<Ticket, Error> {
        or_out_of_memory(|| self.choose_late(choices)).unwrap_or_else(|error| Err(error.into()))
    }

    fn take(&mut self, ticket: Ticket, tokens: &mut Vec<Option<u32>>) -> Result<(), Error> {
        self.finals.take(&self.ops, &ticket, tokens)
    }

    fn announce_length(&self, cache: &mut Cache, length: usize) -> usize {
        let ropes = self.architecture.ropes.iter().filter(|rope| rope.depends_on_length());
        let differ = |stored: usize| {
            ropes
                .clone()
                .any(|rope| rope.frequencies(stored) != rope.frequencies(length))
        };
        if cache.rope_length().is_some_and(differ) {
            cache.truncate(0);
        }
        cache.announce_length(length);
        cache.len()
    }

    fn batch(&self) -> usize {
        O::PASS.batch
    }

    fn reads_alike(&self, left: usize, right: usize) -> bool {
        self.ops.reads_alike(left, right)
    }

    fn runs_ahead(&self) -> bool {
        !O::SYNCHRONOUS
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let (memory, used) = (self.memory?, self.ops.used_bytes()?);
        Some(DeviceMemory {
            sequences: used.saturating_sub(memory.weights + memory.workspace),
            ..memory
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        self.ops.free_bytes()
    }

    fn sequence_bytes(&self) -> usize {
        self.states.iter().flatten().map(BlockState::bytes).sum()
    }

    fn position_bytes(&self) -> usize {
        self.states.iter().flatten().map(BlockState::position_bytes).sum()
    }

    fn state_bytes(&self) -> usize {
        let fixed = self.states.iter().flatten().filter(|state| !state.can_truncate());
        fixed.map(BlockState::bytes).sum::<usize>() / self.room
    }

    fn measure(&mut self, on: bool) {
        self.ops.measure(on);
        (self.measuring, self.head_share) = (on, Phases::default());
    }

    fn phases(&self) -> Phases {
        self.ops.phases().with_head(self.head_share)
    }

    fn parts(&self) -> &[Vec<String>] {
        &self.parts
    }

    fn begin_trials(&mut self, pieces: &[Vec<u32>]) -> Result<(), Error> {
        for tokens in pieces {
            let chunk = Chunk {
                cache: &mut self.cache(tokens.len()),
                input: Input::Tokens(tokens),
                want: Want::Nothing,
            };
            self.check(&[chunk])?;
        }
        self.begin_pieces(pieces)
    }

    fn run_trial(
        &mut self,
        parts: &[usize],
        source: &dyn WeightSource,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        Decoder::run_trial(self, parts, source, each)
    }
}
