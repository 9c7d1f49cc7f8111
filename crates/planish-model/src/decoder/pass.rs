//! Rows of one or of several sequences through all layers.

use planish_ops::{Ops, Places, RopeAngles, Tokens};

use super::{Decoder, Lists};
use crate::Error;
use crate::blocks::device_error;
use crate::step::{Pending, Stream};

/// The tokens of a pass.
pub(super) enum RowTokens<'a> {
    Known(&'a [u32]),
    /// `None` is the one chosen last for the row's sequence.
    Mixed(&'a [Option<u32>]),
}

impl<O: Ops> Decoder<O> {
    /// Angles of the rows, each for its sequence's length where that matters.
    pub(super) fn run_angles(&mut self, lists: &Lists) {
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
    pub(super) fn run_layers(&mut self, lists: &Lists, tokens: RowTokens<'_>) -> Result<Option<Pending>, Error> {
        self.ops
            .begin_pass(&lists.spans, &mut self.sequences)
            .map_err(device_error)?;
        let result = self.run_steps(lists, tokens);
        if result.is_err() {
            self.ops.abandon_pass(&mut self.sequences);
        }
        result
    }

    /// What follows when the rows have their places.
    fn run_steps(&mut self, lists: &Lists, tokens: RowTokens<'_>) -> Result<Option<Pending>, Error> {
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
        for (step, &of) in self.steps.iter().zip(&self.state_steps) {
            step.run(&mut stream, &mut self.states[of])?;
        }
        self.embedding.end(&mut stream);
        Ok(stream.pending)
    }
}
