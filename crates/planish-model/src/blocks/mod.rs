//! The blocks that layers are made of: code written once, told by the specs of the architecture what to do.
//!
//! To add one: an arm of `BlockSpec`, a file here that implements [`Block`], its line in [`load_block`], and an arm of
//! [`BlockState`] if it remembers anything.

mod attention;
mod channel_scan;
mod convolution;
mod experts;
mod feed_forward;
mod latent_attention;
mod laurel;
mod layer_input;
mod linear;
mod loader;
mod norm;
mod recurrence;

pub(crate) use linear::LinearLayer;
pub(crate) use loader::Loader;
pub(crate) use norm::NormLayer;

use planish_ops::{CopyRows, Ops, Places, ResidentKeyValues, RopePairs, SequenceStore, Shape};

use crate::workspace::{AdapterTensors, TensorSize};
use crate::{BlockSpec, Error};

/// A block with its weights.
pub(crate) trait Block<O: Ops>: Send {
    /// The tensors that it needs while it runs: [`Pass::tensors`] has them in this order.
    fn tensors(&self) -> Vec<TensorSize>;

    /// What it remembers of sequences in so many slots, of which it has seen nothing.
    fn state(&self, _ops: &O, _slots: usize) -> Result<BlockState<O>, Error> {
        Ok(BlockState::Nothing)
    }

    /// From [`Pass::input`] to [`Pass::output`], for `state` the one that [`Block::state`] made.
    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error>;
}

/// What a block remembers of all sequences.
pub(crate) enum BlockState<O: Ops> {
    /// Positions do not mix.
    Nothing,
    /// Keys and values of attention.
    KeyValues(O::KeyValues),
    /// The last inputs of a convolution.
    Convolution {
        /// (slots * (taps - 1), channels)
        history: O::Tensor,
    },
    /// The last inputs of a convolution, and the state of every head.
    Recurrence {
        /// (slots * (taps - 1), channels)
        history: O::Tensor,
        /// In the device's own order, slot by slot.
        state: O::Tensor,
    },
}

impl<O: Ops> BlockState<O> {
    /// Whether later positions can be forgotten by writing over them. What a recurrence remembers has no positions.
    pub(crate) fn can_truncate(&self) -> bool {
        match self {
            BlockState::Nothing | BlockState::KeyValues(_) => true,
            BlockState::Convolution { .. } | BlockState::Recurrence { .. } => false,
        }
    }

    /// Memory that all sequences take; states of fixed size are counted as f32, for all slots that there is room for.
    pub(crate) fn bytes(&self) -> usize {
        let of = |tensor: &O::Tensor| tensor.rows() * tensor.cols() * size_of::<f32>();
        match self {
            BlockState::Nothing => 0,
            BlockState::KeyValues(key_values) => key_values.held_bytes(),
            BlockState::Convolution { history } => of(history),
            BlockState::Recurrence { history, state } => of(history) + of(state),
        }
    }

    /// Memory of a position. States of fixed size take none.
    pub(crate) fn position_bytes(&self) -> usize {
        match self {
            BlockState::KeyValues(key_values) => key_values.position_bytes(),
            _ => 0,
        }
    }

    /// Drops what a sequence has. States of fixed size keep their memory.
    pub(crate) fn clear(&mut self, slot: usize) {
        if let BlockState::KeyValues(key_values) = self {
            key_values.clear(slot);
        }
    }

    /// What sequence `from` has becomes that of `to` as well; the states have room for so many `slots`.
    pub(crate) fn fork(&mut self, ops: &O, slots: usize, (from, to): (usize, usize)) {
        let copy = |tensor: &mut O::Tensor| {
            let rows = tensor.rows() / slots;
            ops.copy_rows(CopyRows {
                source: None,
                from: from * rows,
                target: tensor,
                to: to * rows,
                rows,
            });
        };
        match self {
            BlockState::Nothing => {}
            BlockState::KeyValues(key_values) => key_values.fork(from, to),
            BlockState::Convolution { history } => copy(history),
            BlockState::Recurrence { history, state } => [history, state].into_iter().for_each(copy),
        }
    }

    /// Moves to a state with room for more sequences. Keys and values have room by themselves.
    pub(crate) fn grow(&mut self, ops: &O, larger: BlockState<O>) {
        let copy = |source: &mut O::Tensor, mut larger: O::Tensor| {
            ops.copy_rows(CopyRows {
                source: Some(source),
                from: 0,
                target: &mut larger,
                to: 0,
                rows: source.rows(),
            });
            *source = larger;
        };
        match (self, larger) {
            (BlockState::Convolution { history }, BlockState::Convolution { history: larger }) => copy(history, larger),
            (
                BlockState::Recurrence { history, state },
                BlockState::Recurrence {
                    history: larger_history,
                    state: larger_state,
                },
            ) => {
                copy(history, larger_history);
                copy(state, larger_state);
            }
            _ => {}
        }
    }
}

/// What a block computes with and on.
pub(crate) struct Pass<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// Rows of this pass.
    pub(crate) rows: usize,
    /// Where they stand.
    pub(crate) places: Places<'a, O>,
    /// Those of each of the architecture's ropes.
    pub(crate) angles: &'a [Angles<O>],
    /// The hidden state itself. // (rows, hidden)
    pub(crate) hidden: &'a O::Tensor,
    /// What all layers are given beside it. // (rows, layers * width)
    pub(crate) layer_inputs: Option<&'a O::Tensor>,
    /// What the block reads. // (rows, hidden)
    pub(crate) input: &'a O::Tensor,
    /// What it leaves. // (rows, hidden)
    pub(crate) output: &'a mut O::Tensor,
    /// What it asked for.
    pub(crate) tensors: &'a mut [O::Tensor],
    /// What adapters of its layers need.
    pub(crate) adapters: &'a mut AdapterTensors<O>,
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
        BlockSpec::ChannelScan(spec) => Box::new(channel_scan::ChannelScanBlock::load(loader, spec)?),
        BlockSpec::Laurel(spec) => Box::new(laurel::LaurelBlock::load(loader, spec)?),
        BlockSpec::LayerInput(spec) => Box::new(layer_input::LayerInputBlock::load(loader, spec)?),
    })
}

/// A failure of the device in words that do not depend on it.
pub(crate) fn device_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Device(Box::new(error))
}
