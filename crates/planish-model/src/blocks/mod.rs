//! The blocks that layers are made of: code written once, told by the specs of the architecture what to do.
//!
//! To add one: an arm of `BlockSpec`, a file here that implements [`Block`], its line in [`load_block`], and an arm of
//! [`BlockState`] if it remembers anything.

mod attention;
mod convolution;
mod experts;
mod feed_forward;
mod latent_attention;
mod linear;
mod loader;
mod norm;
mod recurrence;

pub(crate) use linear::LinearLayer;
pub(crate) use loader::Loader;
pub(crate) use norm::NormLayer;

use planish_ops::{Ops, RopePairs};

use crate::clock::Clock;
use crate::workspace::TensorSize;
use crate::{BlockSpec, Error};

/// A block with its weights.
pub(crate) trait Block<O: Ops>: Send {
    /// The tensors that it needs while it runs: [`Pass::tensors`] has them in this order.
    fn tensors(&self) -> Vec<TensorSize>;

    /// What it remembers of a sequence of which it has seen nothing.
    fn state(&self, _ops: &O) -> Result<BlockState<O>, Error> {
        Ok(BlockState::Nothing)
    }

    /// From [`Pass::input`] to [`Pass::output`], for `state` the one that [`Block::state`] made for this sequence.
    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error>;
}

/// What a block remembers of one sequence.
pub(crate) enum BlockState<O: Ops> {
    /// Positions do not mix.
    Nothing,
    /// Keys and values of attention.
    KeyValues(O::KeyValues),
    /// The last inputs of a convolution.
    Convolution {
        /// (taps - 1, channels)
        history: O::Tensor,
    },
    /// The last inputs of a convolution, and the state of every head.
    Recurrence {
        /// (taps - 1, channels)
        history: O::Tensor,
        /// In the device's own order.
        state: O::Tensor,
    },
}

impl<O: Ops> BlockState<O> {
    /// Whether later positions can be forgotten by writing over them. What a recurrence remembers has no positions.
    pub(crate) fn rewinds(&self) -> bool {
        match self {
            BlockState::Nothing | BlockState::KeyValues(_) => true,
            BlockState::Convolution { .. } | BlockState::Recurrence { .. } => false,
        }
    }
}

/// What a block computes with and on.
pub(crate) struct Pass<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// Rows of this pass.
    pub(crate) rows: usize,
    /// Position of row 0.
    pub(crate) first_position: usize,
    /// Those of each of the architecture's ropes.
    pub(crate) angles: &'a [Angles<O>],
    /// What the block reads. // (rows, hidden)
    pub(crate) input: &'a O::Tensor,
    /// What it leaves. // (rows, hidden)
    pub(crate) output: &'a mut O::Tensor,
    /// What it asked for.
    pub(crate) tensors: &'a mut [O::Tensor],
    /// Where time goes.
    pub(crate) clock: &'a mut Clock,
}

/// Cosines and sines of the positions of a pass, and the pairs that they rotate.
pub(crate) struct Angles<O: Ops> {
    pub(crate) tensor: O::Tensor, // (rows, rotated)
    pub(crate) pairs: RopePairs,
}

/// Loads the weights of a block.
pub(crate) fn load_block<O: Ops>(loader: &Loader<'_, O>, spec: &BlockSpec) -> Result<Box<dyn Block<O>>, Error> {
    Ok(match spec {
        BlockSpec::Attention(spec) => Box::new(attention::AttentionBlock::load(loader, spec)?),
        BlockSpec::LatentAttention(spec) => Box::new(latent_attention::LatentAttentionBlock::load(loader, spec)?),
        BlockSpec::FeedForward(spec) => Box::new(feed_forward::FeedForwardBlock::load(loader, spec)?),
        BlockSpec::Experts(spec) => Box::new(experts::ExpertsBlock::load(loader, spec)?),
        BlockSpec::ShortConvolution(spec) => Box::new(convolution::ShortConvolutionBlock::load(loader, spec)?),
        BlockSpec::Recurrence(spec) => Box::new(recurrence::RecurrenceBlock::load(loader, spec)?),
    })
}

/// A failure of the device in words that do not depend on it.
pub(crate) fn device_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Device(Box::new(error))
}
