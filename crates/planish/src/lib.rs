//! Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization.
//!
//! ```no_run
//! use planish::{AutoModelForCausalLM, AutoTokenizer, Device, GenerationConfig, MetalConfig};
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
//! # Ok(())
//! # }
//! ```
//!
//! Without a network, [`AutoModelForCausalLM::demo`] and [`AutoTokenizer::demo`] open a small story model that the library
//! carries inside (feature `demo-model`, on by default).
//!
//! Whole checkpoints are quantized and converted by the functions of planish-quantize, which the `planish` program wraps.

mod auto_tokenizer;
mod causal_lm;
#[cfg(feature = "demo-model")]
mod demo_model;
mod error;
mod metal_config;

pub use auto_tokenizer::AutoTokenizer;
pub use causal_lm::{AutoModelForCausalLM, CausalLM, ModelBuilder};
#[cfg(feature = "demo-model")]
pub use demo_model::{DEMO_HELD_OUT, demo_checkpoint};
pub use error::Error;
pub use metal_config::MetalConfig;
pub use planish_generate::{Answer, Finish, GenerationConfig, Message, Step, Tokenizer};
pub use planish_model::{Architecture, CacheType, Device};
