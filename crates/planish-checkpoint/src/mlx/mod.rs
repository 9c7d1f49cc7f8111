//! Checkpoints of mlx-lm against those of Hugging Face: which tensors of the one are which of the other.
//!
//! mlx-lm rearranges float checkpoints as it loads them, but not packed ones: what is packed for it must lie as its models have
//! it. [`arrange`] says how; `translate` is the way back. Both read the same table of rules.

mod arrange;
mod rule;
mod table;
mod translate;

pub use arrange::{Arranged, arrange};
pub(crate) use table::{GRANITE_DOWN, GRANITE_EXPERTS, How, Model, rule};
pub(crate) use translate::{translate, translate_by};
