//! One file per command.

pub mod answer;
pub mod bench;
pub mod budget_flags;
pub mod chat;
pub mod chat_input;
pub mod convert;
#[cfg(feature = "demo-model")]
pub mod demo;
#[cfg(feature = "demo-model")]
pub mod demo_chart;
pub mod dequantize;
pub mod evaluate;
pub mod generate;
pub mod inspect;
pub mod interrupt;
pub mod models;
pub mod output_flags;
pub mod packing_flags;
pub mod progress;
pub mod prompts;
pub mod quantize;
pub mod run_flags;
pub mod sampling_flags;
pub mod serve;
pub mod source;
pub mod template_flags;
