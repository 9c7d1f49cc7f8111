//! Which layers are packed, how their codes are chosen, and whole-checkpoint conversion in bounded memory.
//!
//! A [`Recipe`] says what is wanted, [`Recipe::plan`] decides it for every entry of a checkpoint without reading weights, and
//! [`pack_weight`] does one entry. [`quantize`], [`dequantize`], [`convert`] and [`inspect`] are built from these.

#![forbid(unsafe_code)]

mod allocation;
mod blocks;
mod calibrated;
mod card;
mod choosable;
mod compare;
mod convert;
mod convert_gguf;
mod dequantize;
mod error;
mod importance;
mod inputs;
mod inspect;
mod layers;
mod loaders;
mod mixes;
mod mlx_models;
mod mlx_rules;
mod pack;
mod patterns;
mod plan;
mod quantize;
mod recipe;
mod report;
mod source;
mod spend;
mod tied;
mod transfer;
mod unseen;

pub use allocation::Allocation;
pub use calibrated::{
    Basis, BasisNumbers, Calibrated, Calibrator, ChosenCodes, InputBasis, InputMoments, Moments, OnProcessor,
    PartCodes, RIDGE as REFIT_RIDGE, ROUNDS as REFIT_ROUNDS, calibrate_part, calibrate_rows,
};
pub use choosable::{Choices, Choosable, choices};
pub use compare::{relative_error, relative_errors};
pub use convert::convert;
pub use convert_gguf::convert_to_gguf;
pub use dequantize::dequantize;
pub use error::{Error, Remedy};
pub use inputs::InputSquares;
pub use inspect::{Cost, Inspection, TensorRow, WIDTHS, inspect};
pub use mixes::Mix;
pub use pack::pack_weight;
pub use patterns::Patterns;
pub use plan::{Fate, OutputTensor, Plan, Reason};
pub use quantize::{packed_entries, quantize};
pub use recipe::{Method, Override, Recipe, Target};
pub use report::Report;
pub use spend::{Unit, spend};
pub use transfer::{OnProgress, Output, Progress};
pub use unseen::UnseenParts;
