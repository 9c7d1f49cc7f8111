//! One file per command.

pub mod bench;
pub mod chat;
pub mod convert;
pub mod dequantize;
pub mod evaluate;
pub mod generate;
pub mod inspect;
pub mod output_flags;
pub mod progress;
pub mod quantize;
pub mod run_flags;
pub mod source;
