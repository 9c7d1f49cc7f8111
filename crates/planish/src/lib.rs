//! Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use planish::{AutoModelForCausalLM, AutoTokenizer, Device, GenerationConfig, MetalConfig, TextStep};
//!
//! # fn main() -> Result<(), planish::Error> {
//! let config = MetalConfig { bits: 4, group_size: 64, ..MetalConfig::default() };
//! let model = AutoModelForCausalLM::from_pretrained("meta-llama/Llama-3.2-1B")
//!     .device(Device::auto())
//!     .quantization(config)
//!     .load()?;
//! let tokenizer = AutoTokenizer::from_pretrained("meta-llama/Llama-3.2-1B")?;
//! let options = GenerationConfig { max_new_tokens: 50, ..Default::default() };
//! let output = model.generate(&tokenizer.encode("Metal is")?, &options)?;
//! println!("{}", tokenizer.decode(&output)?);
//!
//! let mut chat = model.chat()?;
//! chat.generate("Why is the sky blue?", &options, &mut |step| {
//!     if let TextStep::Text(text) = step {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! | for | open |
//! |---|---|
//! | text that comes word by word, a prefix that is computed once | [`Session`] |
//! | conversations | [`ChatSession`] |
//! | many prompts side by side | [`CausalLM::generate_many`] |
//! | many clients, who come and go | [`Engine`] |
//! | logits, perplexity, divergence from another model | [`CausalLM::logits_from`], [`CausalLM::evaluate`] |
//! | whole checkpoints, with progress | [`Source`], [`quantize`], [`dequantize`], [`convert`], [`convert_to_gguf`], [`inspect`] |
//! | rates | [`CausalLM::bench`], [`CausalLM::bench_batch`] |
//!
//! Without a network, [`AutoModelForCausalLM::demo`] and [`AutoTokenizer::demo`] open a small story model that the library
//! carries inside (feature `demo-model`, on by default).

#![forbid(unsafe_code)]

mod auto_tokenizer;
mod bench;
mod bench_batch;
mod budget;
mod builder;
mod calibrate;
mod calibrated;
mod causal_lm;
mod chart;
mod conversation;
mod convert;
#[cfg(feature = "demo-model")]
mod demo_model;
mod engine;
mod error;
mod error_kind;
mod evaluate;
mod imatrix;
mod likelihood;
mod many;
mod metal_config;
mod own_writing;
mod quantizing;
mod scores;
mod session;
mod source;
mod sweep;
mod sweep_chart;
mod tasks;
mod told;
mod turns;

pub use auto_tokenizer::AutoTokenizer;
pub use bench::{BenchOptions, Limits, Profile, Rates};
pub use bench_batch::{BatchBenchOptions, BatchRates};
pub use budget::{BudgetOptions, BudgetProgress, Sensitivities, allocate};
pub use builder::{AutoModelForCausalLM, ModelBuilder, Quantization};
pub use calibrate::{CalibrationProgress, CalibrationText, calibrate};
pub use calibrated::{CalibratedOptions, CalibratedProgress, quantize_calibrated};
pub use causal_lm::CausalLM;
pub use chart::{Chart, ChartCurve, ChartPoint};
pub use conversation::{Conversation, Prepared};
pub use convert::{
    convert, convert_to_gguf, dequantize, inspect, is_unfinished, quantize, relative_error, relative_errors,
};
#[cfg(feature = "demo-model")]
pub use demo_model::{DEMO_HELD_OUT, demo_checkpoint};
pub use engine::{Client, Engine, EngineEvent, EngineOptions, EngineRequest, EngineStatus, Refusal, Weigh};
pub use error::Error;
pub use error_kind::ErrorKind;
pub use evaluate::{EvaluationOptions, EvaluationProgress, evaluate_all};
pub use imatrix::read_imatrix;
pub use likelihood::Likelihood;
pub use many::{ManyStep, Request};
pub use metal_config::MetalConfig;
pub use quantizing::{CodeChoice, Quantizing, QuantizingStep, Widths};
pub use scores::{Comparison, Evaluation, Interval};
pub use session::{ChatSession, Session, TextAnswer, TextStep};
pub use source::Source;
pub use sweep::{Point, PointMethod, PointWidths, Sweep, SweepRow};
pub use sweep_chart::sweep_chart;
pub use tasks::{Answered, Share, Task, TaskScores};

pub use planish_checkpoint::hub::{Download, HubError};
pub use planish_checkpoint::{Checkpoint, Error as CheckpointError, watch_mappings};
pub use planish_format::{Encoder, FloatMode, FloatType, FormatError, Isa, IsaError, Packing};
pub use planish_generate::{
    Answer, Call, Constraint, Error as GenerateError, Family, Finish, GenerationConfig, GenerationPlan, Message,
    Reading, Reasoning, Step, StopStrings, TemplateInput, TokenLogprobs, Tokenizer, Tool, ToolChoice, Window,
    in_foreign_code,
};
pub use planish_gpu::Error as DeviceError;
pub use planish_model::{
    Architecture, CacheType, Device, DeviceMemory, Error as ModelError, FamilyInfo, LoadOptions, Phases,
    QuantizingDevice, SHAPES, Spent, Tested,
};
pub use planish_quantize::{
    Allocation, Calibrator, Cost, Error as QuantizeError, InputSquares, Inspection, Method, Mix, OnProgress, Output,
    Override, Progress, Recipe, Remedy, Report, Target, TensorRow, WIDTHS,
};
