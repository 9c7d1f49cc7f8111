//! Tokens in, tokens out: tokenizer, chat templates, sampling, stop rules.

mod answer;
mod batch;
mod config;
mod detokenizer;
mod error;
mod files;
mod message;
mod random;
mod sampler;
mod session;
mod special;
mod template;
mod tokenizer;

pub use answer::{Answer, Finish, Step};
pub use batch::{Batch, Member};
pub use config::{GenerationConfig, GenerationDefaults, GenerationPlan};
pub use detokenizer::Detokenizer;
pub use error::Error;
pub use files::Files;
pub use message::Message;
pub use sampler::{Sampler, Sampling};
pub use session::{Next, Session, check_prompt};
pub use template::{ChatTemplate, TemplateInput};
pub use tokenizer::Tokenizer;
