//! Checkpoints of mlx-lm against those of Hugging Face: which tensors of the one are which of the other.
//!
//! mlx-lm rearranges float checkpoints as it loads them, but not packed ones: what is packed for it must lie as its models have
//! it. [`arrange`] says how; [`translate`] is the way back.

mod arrange;
mod table;
mod translate;
mod view;

pub use arrange::{Arranged, Piece, arrange};
pub(crate) use translate::{Place, translate};
pub use view::View;
