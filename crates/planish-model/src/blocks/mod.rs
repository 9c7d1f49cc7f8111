//! The blocks that layers are made of: code written once, told by the specs of the architecture what to do.

mod attention;
mod feed_forward;
mod linear;
mod norm;

pub(crate) use attention::AttentionBlock;
pub(crate) use feed_forward::FeedForwardBlock;
pub(crate) use linear::LinearLayer;
pub(crate) use norm::NormLayer;

use planish_ops::Ops;

use crate::Error;
use crate::clock::Clock;
use crate::workspace::Workspace;

/// What a block computes with and on.
pub(crate) struct Pass<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// Rows of this pass.
    pub(crate) rows: usize,
    /// Position of row 0.
    pub(crate) first_position: usize,
    /// Tensors between the operations.
    pub(crate) workspace: &'a mut Workspace<O>,
    /// Where time goes.
    pub(crate) clock: &'a mut Clock,
}

/// A failure of the device in words that do not depend on it.
pub(crate) fn device_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Device(Box::new(error))
}
