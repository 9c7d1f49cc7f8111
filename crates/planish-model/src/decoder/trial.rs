//! Parts of a decoder in other forms, one trial after the other: hidden states before a part are kept, so that a trial computes only
//! what comes after. Part 0 is the embedding, then come the steps, then the head.

use std::ops::Range;

use planish_format::memory::or_out_of_memory;
use planish_ops::{CopyRows, Ops, Places, Span, Tokens};

use super::groups::passes;
use super::{Decoder, Engine, Lists};
use crate::batch::Row;
use crate::blocks::{LinearLayer, Loader, device_error};
use crate::embedding::Embedding;
use crate::source::WeightSource;
use crate::step::{Pending, Step, Stream};
use crate::{Error, HeadSpec};

/// Pieces of text before one of the parts.
pub(super) struct Trials<O: Ops> {
    pieces: Vec<Piece<O>>,
    part: usize,
}

struct Piece<O: Ops> {
    tokens: Vec<u32>,
    hidden: Vec<O::Tensor>, // of each pass, (rows, hidden), before the part
}

/// The weights of a part.
enum Weights<O: Ops> {
    Embedding(Box<Embedding<O>>),
    Step(Step<O>),
    Head(Option<LinearLayer<O>>),
}

/// Takes the logits after a token.
type Each<'a> = dyn FnMut(Row<'_>) + 'a;

impl<O: Ops> Decoder<O> {
    /// Takes pieces in.
    pub(super) fn begin_pieces(&mut self, pieces: &[Vec<u32>]) -> Result<(), Error> {
        let mut trials = Trials {
            pieces: Vec::new(),
            part: 0,
        };
        for tokens in pieces {
            let rows = passes(tokens, 0, self.workspace.rows, self.period).map(<[u32]>::len);
            let hidden = rows.map(|rows| self.ops.tensor(rows, self.architecture.hidden).map_err(device_error));
            trials.pieces.push(Piece {
                hidden: hidden.collect::<Result<_, _>>()?,
                tokens: tokens.clone(),
            });
        }
        self.trials = Some(trials);
        Ok(())
    }

    /// Brings the pieces to a part that is not before the one they are at.
    fn bring_to(&mut self, trials: &mut Trials<O>, part: usize) -> Result<(), Error> {
        if trials.part < part {
            self.run_pieces(trials, part - 1, None)?;
            trials.part = part;
        }
        Ok(())
    }

    /// Runs the pieces with some parts loaded from `source`, in rising order, and hands out the logits after every token. What comes
    /// before the first of them is computed once, as long as trials do not go back.
    pub(super) fn run_trial(
        &mut self,
        parts: &[usize],
        source: &dyn WeightSource,
        each: &mut Each<'_>,
    ) -> Result<(), Error> {
        let Some(mut trials) = self.trials.take() else {
            unreachable!("trials have begun")
        };
        let result = or_out_of_memory(|| self.run_with(&mut trials, parts, source, each));
        let result = result.unwrap_or_else(|error| Err(error.into()));
        self.trials = Some(trials);
        result
    }

    fn run_with(
        &mut self,
        trials: &mut Trials<O>,
        parts: &[usize],
        source: &dyn WeightSource,
        each: &mut Each<'_>,
    ) -> Result<(), Error> {
        // Layers that read what others left begin where these do.
        let first = match self.architecture.is_entangled() {
            true => 0,
            false => parts.first().copied().unwrap_or(0),
        };
        if first < trials.part {
            trials.part = 0;
        }
        self.bring_to(trials, first)?;
        // All of them before the first takes its place: what fails leaves the model as it was.
        let load = |&part: &usize| Ok((part, self.load_part(part, source)?));
        let loaded = parts.iter().map(load).collect::<Result<Vec<_>, Error>>()?;
        let exchange = |(part, weights)| (part, self.exchange(part, weights));
        let kept: Vec<_> = loaded.into_iter().map(exchange).collect();
        let end = self.steps.len();
        let result = or_out_of_memory(|| self.run_pieces(trials, end, Some(each)));
        let result = result.unwrap_or_else(|error| Err(error.into()));
        for (part, weights) in kept {
            self.exchange(part, weights);
        }
        result
    }

    fn load_part(&self, part: usize, source: &dyn WeightSource) -> Result<Weights<O>, Error> {
        let loader = Loader::new(&self.ops, source);
        if part == 0 {
            let embedding = Embedding::load(&loader, &self.architecture)?;
            return Ok(Weights::Embedding(Box::new(embedding)));
        }
        let mut specs = self.architecture.layers.iter().flat_map(|layer| &layer.steps);
        if let Some(spec) = specs.nth(part - 1) {
            // The same step in another form asks for the same tensors.
            let mut sets = self.sets.clone();
            let step = Step::load(&loader, spec, &mut sets)?;
            assert_eq!(sets, self.sets, "a step asks for other tensors than before");
            return Ok(Weights::Step(step));
        }
        let head = match &self.architecture.head {
            HeadSpec::Tied(spec) if !source.has(&format!("{}.weight", spec.name)) => None,
            HeadSpec::Tied(spec) | HeadSpec::Separate(spec) => Some(loader.merged_linear(spec)?),
        };
        Ok(Weights::Head(head))
    }

    /// Puts weights in the place of those of a part, which are returned.
    fn exchange(&mut self, part: usize, weights: Weights<O>) -> Weights<O> {
        match weights {
            Weights::Embedding(embedding) => {
                Weights::Embedding(Box::new(std::mem::replace(&mut self.embedding, *embedding)))
            }
            Weights::Step(step) => Weights::Step(std::mem::replace(&mut self.steps[part - 1], step)),
            Weights::Head(head) => Weights::Head(std::mem::replace(&mut self.head, head)),
        }
    }

    /// Takes every piece from its part through the steps before `end`, and hands out logits or keeps the hidden states.
    fn run_pieces(&mut self, trials: &mut Trials<O>, end: usize, mut each: Option<&mut Each<'_>>) -> Result<(), Error> {
        let mut lists = Lists::default();
        for (index, piece) in trials.pieces.iter_mut().enumerate() {
            let mut cache = self.cache(piece.tokens.len());
            self.update_slots()?;
            lists.lengths = vec![cache.fix_rope_length(piece.tokens.len())];
            let mut done = 0;
            let runs = passes(&piece.tokens, 0, self.workspace.rows, self.period);
            let runs: Vec<&[u32]> = runs.collect();
            for (tokens, hidden) in runs.into_iter().zip(&mut piece.hidden) {
                self.ops.read_as(piece.tokens.len());
                lists.spans = vec![Span {
                    slot: cache.slot_of(&self.slots),
                    first_row: 0,
                    rows: tokens.len(),
                    first_position: cache.len(),
                }];
                let steps = trials.part.saturating_sub(1)..end;
                let from = if trials.part == 0 {
                    From::Tokens(tokens)
                } else {
                    From::Hidden(hidden)
                };
                let keeps = each.is_none();
                let pending = self.run_range(&lists, from, steps, keeps);
                let pending = pending.inspect_err(|_| self.ops.abandon_pass(&mut self.sequences))?;
                cache.advance(tokens.len());
                match &mut each {
                    None => self.ops.copy_rows(CopyRows {
                        source: Some(&self.workspace.hidden),
                        from: 0,
                        target: hidden,
                        to: 0,
                        rows: tokens.len(),
                    }),
                    Some(each) => self.report_all((index, done), tokens.len(), pending, each)?,
                }
                done += tokens.len();
            }
        }
        Ok(())
    }

    /// One pass through some steps. With `whole` nothing is left pending.
    fn run_range(
        &mut self,
        lists: &Lists,
        from: From<'_, O>,
        steps: Range<usize>,
        whole: bool,
    ) -> Result<Option<Pending>, Error> {
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
        match from {
            From::Tokens(tokens) => self.embedding.run(&mut stream, Tokens::Known(tokens)),
            From::Hidden(hidden) => self.ops.copy_rows(CopyRows {
                source: Some(hidden),
                from: 0,
                target: &mut stream.workspace.hidden,
                to: 0,
                rows: stream.rows,
            }),
        }
        let ends = steps.end == self.steps.len() && !whole;
        for (step, &of) in self.steps[steps.clone()].iter().zip(&self.state_steps[steps]) {
            step.run(&mut stream, &mut self.states[of])?;
        }
        if whole {
            stream.add_pending();
        }
        if ends {
            self.embedding.end(&mut stream);
        }
        Ok(stream.pending)
    }
}

/// What a pass begins with.
enum From<'a, O: Ops> {
    Tokens(&'a [u32]),
    Hidden(&'a O::Tensor),
}
