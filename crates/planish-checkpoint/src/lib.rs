//! A Hugging Face folder, Hub id or GGUF file as named tensors, and back.
//!
//! Names are always Hugging Face names (`model.layers.0.self_attn.q_proj.weight`); packed modules are one [`Entry`], whatever
//! their dialect calls the parts. [`Checkpoint`] reads, [`Writer`] writes.

mod adapter;
mod assemble;
mod checkpoint;
mod checksum;
mod dialect;
mod dtype;
mod error;
mod folder;
mod gguf;
pub mod hub;
mod memory;
mod merges;
mod methods;
pub mod mlx;
mod modules;
mod order;
mod source;
mod tensor;
mod view;
mod writer;

pub use adapter::{Beside, LowRank};
pub use assemble::Part;
pub use checkpoint::{Checkpoint, FilesRead};
pub use checksum::Checksum;
pub use dialect::{Dialect, Mode, Override, Scheme};
pub use dtype::Dtype;
pub use error::Error;
pub use folder::watch::watch_mappings;
pub use gguf::{EntryInputs, GgufWritten, Imatrix, classes as gguf_classes, write_gguf};
pub use hub::resolve;
pub use merges::{check_cuts, merges_by_score};
pub use methods::Method;
pub use tensor::{Entry, Layout, Tensor, Weight, cast, rows_cols};
pub use view::{View, transpose_columns};
pub use writer::{Planned, Run, Writer, WriterOptions};
