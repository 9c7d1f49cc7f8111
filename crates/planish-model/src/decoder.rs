//! The decoder: an architecture with its weights on one device, and what its layers remember of all sequences.
//!
//! A chunk of several tokens goes through the layers alone, in passes of some hundred rows. Chunks of one token go together: a row
//! equals itself alone where [`planish_ops::PassSize::batch`] says so.

mod head;

use std::sync::Arc;

use planish_ops::{Ops, Places, RopeAngles, SequenceStore, Span, Tokens};

use crate::batch::{Chunk, Input, Row, Ticket, Want};
use crate::blocks::{BlockState, LinearLayer, Loader, NormLayer, device_error};
use crate::cache::Slots;
use crate::embedding::Embedding;
use crate::source::WeightSource;
use crate::step::{Pending, Step, Stream};
use crate::workspace::{TensorSets, Workspace};
use crate::{Architecture, Cache, Error, HeadSpec, NormSpec, Phases};
use head::Finals;

/// What [`crate::Model`] needs of a decoder, whatever its device.
pub(crate) trait Engine: Send {
    fn cache(&self, capacity: usize) -> Cache;
    fn fork(&mut self, cache: &Cache) -> Result<Cache, Error>;
    fn run(&mut self, chunks: &mut [Chunk<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<Option<Ticket>, Error>;
    fn take(&mut self, ticket: Ticket, tokens: &mut Vec<Option<u32>>) -> Result<(), Error>;
    fn announce_length(&self, cache: &mut Cache, length: usize) -> usize;
    fn batch(&self) -> usize;
    fn runs_ahead(&self) -> bool;
    fn memory(&self) -> Option<DeviceMemory>;
    fn measure(&mut self, on: bool);
    fn phases(&self) -> Phases;
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
    room: usize,                     // slots that the states have room for
    sequences: O::Sequences,
    lists: Lists,
    finals: Finals<O>,
    memory: Option<DeviceMemory>,
    measuring: bool,
    head_share: Phases, // of what the device measured
}

/// Lists that every call reuses.
#[derive(Default)]
struct Lists {
    order: Vec<usize>, // chunks in the order in which they are computed
    spans: Vec<Span>,
    tokens: Vec<u32>,
    known: Vec<Option<u32>>,
    lengths: Vec<usize>, // that each span's positions are rotated for
}

/// The tokens of a pass.
enum RowTokens<'a> {
    Known(&'a [u32]),
    /// `None` is the one chosen last for the row's sequence.
    Mixed(&'a [Option<u32>]),
}

/// Chunks that go through the layers together: a part of [`Lists::order`].
struct Group {
    first: usize,
    count: usize,
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
        let steps: Vec<Step<O>> = specs.map(load).collect::<Result<_, _>>()?;
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
            if let Input::Tokens(tokens) = chunk.input {
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
        let needed = cache.len() + count;
        if let Some(positions) = &self.architecture.embedding.positions {
            let known = positions.rows.saturating_sub(positions.offset);
            if needed > known {
                return Err(Error::UnknownPosition { needed, known });
            }
        }
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

    /// Chunks that want a choice first, then those that want logits; in each, several tokens before one. Few chunks: no sort that
    /// takes memory.
    fn order(chunks: &[Chunk<'_>], order: &mut Vec<usize>) {
        let rank = |chunk: &Chunk<'_>| match (chunk.want, chunk.input.count()) {
            (Want::Choice { .. }, 2..) => 0,
            (Want::Choice { .. }, _) => 1,
            (Want::Logits | Want::AllLogits, 0..=1) => 2,
            (Want::Nothing, 0..=1) => 3,
            (Want::Logits, _) => 4,
            (Want::AllLogits | Want::Nothing, _) => 5,
        };
        order.clear();
        for wanted in 0..=5 {
            let of_rank = chunks.iter().enumerate().filter(|(_, chunk)| rank(chunk) == wanted);
            order.extend(of_rank.map(|(index, _)| index));
        }
    }

    /// All groups of chunks, then the head for those that want something.
    fn run_groups(
        &mut self,
        lists: &mut Lists,
        chunks: &mut [Chunk<'_>],
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<Option<Ticket>, Error> {
        Self::order(chunks, &mut lists.order);
        let mut done = 0;
        while done < chunks.len() {
            let single = |&index: &usize| chunks[index].input.count() == 1;
            let run = lists.order[done..]
                .iter()
                .take(O::PASS.batch)
                .take_while(|index| single(index));
            let group = Group {
                first: done,
                count: run.count().max(1),
            };
            let whole = group.count == chunks.len();
            done += group.count;
            match &chunks[lists.order[group.first]] {
                chunk if chunk.input.count() > 1 => self.run_alone(lists, &group, chunks, whole, each)?,
                _ => self.run_together(lists, &group, chunks, whole)?,
            }
        }
        self.run_finals(lists, chunks, each)
    }

    /// One chunk of several tokens, in passes.
    fn run_alone(
        &mut self,
        lists: &mut Lists,
        group: &Group,
        chunks: &mut [Chunk<'_>],
        whole: bool,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        let index = lists.order[group.first];
        let Chunk { cache, input, want } = &mut chunks[index];
        let Input::Tokens(tokens) = *input else {
            unreachable!("several tokens are known")
        };
        lists.lengths.clear();
        lists.lengths.push(cache.fix_rope_length(tokens.len()));
        let mut done = 0;
        for pass in passes(tokens, cache.len(), self.workspace.rows, self.period) {
            lists.spans.clear();
            lists.spans.push(Span {
                slot: cache.slot_of(&self.slots),
                first_row: 0,
                rows: pass.len(),
                first_position: cache.len(),
            });
            let pending = self
                .run_layers(lists, RowTokens::Known(pass))
                .inspect_err(|_| cache.fail())?;
            cache.advance(pass.len());
            if matches!(want, Want::AllLogits) {
                let first = (index, done);
                self.report_all(first, pass.len(), pending, each)?;
            }
            done += pass.len();
            if done == tokens.len() && matches!(want, Want::Logits | Want::Choice { .. }) {
                self.finish_rows(pass.len() - 1..pass.len(), pending, whole)?;
            }
        }
        Ok(())
    }

    /// Chunks of one token each, in one pass.
    fn run_together(
        &mut self,
        lists: &mut Lists,
        group: &Group,
        chunks: &mut [Chunk<'_>],
        whole: bool,
    ) -> Result<(), Error> {
        let mut known = std::mem::take(&mut lists.known);
        let mut tokens = std::mem::take(&mut lists.tokens);
        known.clear();
        tokens.clear();
        lists.spans.clear();
        lists.lengths.clear();
        let members = group.first..group.first + group.count;
        let mut wanted = 0;
        for (row, &index) in lists.order[members.clone()].iter().enumerate() {
            let Chunk { cache, input, want } = &mut chunks[index];
            match *input {
                Input::Tokens(token) => {
                    known.push(Some(token[0]));
                    tokens.push(token[0]);
                }
                Input::Chosen => known.push(None),
            }
            lists.lengths.push(cache.fix_rope_length(1));
            lists.spans.push(Span {
                slot: cache.slot_of(&self.slots),
                first_row: row,
                rows: 1,
                first_position: cache.len(),
            });
            wanted += usize::from(!matches!(want, Want::Nothing));
        }
        let of_rows = match tokens.len() == known.len() {
            true => RowTokens::Known(&tokens),
            false => RowTokens::Mixed(&known),
        };
        let result = self.run_layers(lists, of_rows);
        (lists.known, lists.tokens) = (known, tokens);
        let caches = lists.order[members].iter();
        match &result {
            Ok(_) => caches.for_each(|&index| chunks[index].cache.advance(1)),
            Err(_) => caches.for_each(|&index| chunks[index].cache.fail()),
        }
        let pending = result?;
        match wanted {
            0 => Ok(()),
            _ => self.finish_rows(0..wanted, pending, whole),
        }
    }

    /// Angles of the rows, each for its sequence's length where that matters.
    fn run_angles(&mut self, lists: &Lists) {
        let all = lists.spans.len();
        let together = if self.length_matters { 1 } else { all };
        for first in (0..all).step_by(together.max(1)) {
            self.update_frequencies(lists.lengths[first]);
            let places = Places {
                spans: &lists.spans[first..first + together],
                sequences: &self.sequences,
            };
            let ropes = self.architecture.ropes.iter().zip(&self.frequencies);
            for ((rope, frequencies), output) in ropes.zip(&mut self.workspace.angles) {
                self.ops.rope_angles(RopeAngles {
                    frequencies,
                    factor: rope.attention_factor(),
                    places,
                    output: &mut output.tensor,
                });
            }
        }
    }

    /// Frequencies for a sequence of `length`; only some scalings depend on it.
    fn update_frequencies(&mut self, length: usize) {
        if self.frequencies_length != length && self.length_matters {
            let ropes = &self.architecture.ropes;
            self.frequencies = ropes.iter().map(|rope| rope.frequencies(length)).collect();
            self.frequencies_length = length;
        }
    }

    /// All layers for one pass. Returns what `hidden` still lacks: the final norm adds it.
    fn run_layers(&mut self, lists: &Lists, tokens: RowTokens<'_>) -> Result<Option<Pending>, Error> {
        self.ops
            .begin_pass(&lists.spans, &mut self.sequences)
            .map_err(device_error)?;
        self.run_angles(lists);
        let places = Places {
            spans: &lists.spans,
            sequences: &self.sequences,
        };
        let mut stream = Stream {
            ops: &self.ops,
            rows: places.rows(),
            places,
            workspace: &mut self.workspace,
            pending: None,
        };
        let tokens = match tokens {
            RowTokens::Known(tokens) => Tokens::Known(tokens),
            RowTokens::Mixed(known) => Tokens::Chosen {
                places,
                known,
                chosen: self.finals.chosen(),
            },
        };
        self.embedding.run(&mut stream, tokens);
        for (step, states) in self.steps.iter().zip(&mut self.states) {
            step.run(&mut stream, states)?;
        }
        Ok(stream.pending)
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
        let result = self.run_groups(&mut lists, chunks, each);
        self.lists = lists;
        result
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

    fn measure(&mut self, on: bool) {
        self.ops.measure(on);
        (self.measuring, self.head_share) = (on, Phases::default());
    }

    fn phases(&self) -> Phases {
        self.ops.phases().with_head(self.head_share)
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
