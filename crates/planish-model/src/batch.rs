//! What goes through the layers together: chunks of several sequences, and what is wanted of each.

use planish_ops::{Adjustment, Choice, Ops};
use smallvec::SmallVec;

use crate::Cache;

/// Rows for which no memory is taken.
pub(crate) const FEW_ROWS: usize = 64;

/// The next tokens of one sequence.
pub struct Chunk<'a> {
    /// What is remembered of the sequence; it grows by the tokens.
    pub cache: &'a mut Cache,
    /// The tokens.
    pub input: Input<'a>,
    /// What comes of them.
    pub want: Want<'a>,
}

/// The tokens of a chunk.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// These, at least one.
    Tokens(&'a [u32]),
    /// Some tokens of a prompt, at least one. On the CPU a prompt gives the same bits however it is cut into pieces.
    Piece {
        /// The piece.
        tokens: &'a [u32],
        /// Tokens of the whole prompt; 1 for tokens of an answer that are computed once more.
        whole: usize,
    },
    /// The token that was chosen last for this sequence, whether it is known yet or not.
    Chosen,
}

impl<'a> Input<'a> {
    /// Those that are known here.
    pub(crate) fn tokens(&self) -> Option<&'a [u32]> {
        match *self {
            Input::Tokens(tokens) | Input::Piece { tokens, .. } => Some(tokens),
            Input::Chosen => None,
        }
    }

    /// Tokens.
    pub(crate) fn count(&self) -> usize {
        self.tokens().map_or(1, <[u32]>::len)
    }

    /// Tokens of the whole that these are a piece of.
    pub(crate) fn whole(&self) -> usize {
        match *self {
            Input::Piece { whole, .. } => whole,
            _ => self.count(),
        }
    }

    /// Whether they go through the layers without those of others.
    pub(crate) fn is_alone<O: Ops>(&self) -> bool {
        self.count() > 1 || O::PASS.few.is_some_and(|few| self.whole() > few)
    }
}

/// What is wanted of a chunk.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// Nothing yet.
    Nothing,
    /// The logits after the last token.
    Logits,
    /// The logits after every token.
    AllLogits,
    /// A token chosen by the logits after the last one.
    Choice {
        /// How, by the logits that adjustments and mask leave.
        choice: Choice,
        /// Penalties and biases, at most one for a token.
        adjustments: &'a [Adjustment],
        /// Tokens that may be chosen: bit `token % 32` of word `token / 32`. // (vocabulary / 32, rounded up)
        mask: Option<&'a [u32]>,
        /// The logits are wanted too, as they are before that.
        report: bool,
    },
    /// A token chosen by the logits after the last one as [`crate::Model::choose`] will say, which follows this call. All chunks that
    /// want a choice want it later then.
    Later,
}

/// How a token is chosen that was wanted for later.
#[derive(Clone, Copy)]
pub struct LateChoice<'a> {
    /// Of the chunk.
    pub cache: &'a Cache,
    /// As in [`Want::Choice`].
    pub choice: Choice,
    /// As in [`Want::Choice`].
    pub adjustments: &'a [Adjustment],
    /// As in [`Want::Choice`].
    pub mask: Option<&'a [u32]>,
}

impl Want<'_> {
    /// A choice by the logits as they are.
    pub fn choice(choice: Choice) -> Want<'static> {
        Want::Choice {
            choice,
            adjustments: &[],
            mask: None,
            report: false,
        }
    }

    /// Whether a token is to be chosen, now or later.
    pub fn is_choice(&self) -> bool {
        matches!(self, Want::Choice { .. } | Want::Later)
    }
}

/// Logits of a chunk, as [`crate::Model::run`] reports them.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Index of the chunk.
    pub chunk: usize,
    /// Index of the token in the chunk.
    pub token: usize,
    /// // (vocabulary)
    pub logits: &'a [f32],
}

/// Tokens that [`crate::Model::run`] chose and [`crate::Model::take`] waits for.
#[derive(Debug)]
#[must_use = "tokens are taken by their ticket"]
pub struct Ticket {
    /// How many calls chose tokens until then.
    pub(crate) number: u64,
    /// The place among the tokens of each chunk that wanted a choice, in the order of chunks.
    pub(crate) places: SmallVec<[u16; FEW_ROWS]>,
}
