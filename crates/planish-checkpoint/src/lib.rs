//! A Hugging Face folder, Hub id or GGUF file as named tensors, and back.
//!
//! Names are always Hugging Face names (`model.layers.0.self_attn.q_proj.weight`); packed modules are one [`Entry`], whatever
//! their dialect calls the parts.

mod error;
pub mod hub;
mod weight;

pub use error::Error;
pub use hub::resolve;
pub use weight::{Dtype, Entry, Layout, Tensor, Weight};
