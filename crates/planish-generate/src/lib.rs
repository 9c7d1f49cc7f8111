//! Tokens in, tokens out: tokenizer, chat templates, sampling, stop rules.

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

pub use config::{GenerationConfig, GenerationDefaults, GenerationPlan};
pub use detokenizer::Detokenizer;
pub use error::Error;
pub use files::Files;
pub use message::Message;
pub use sampler::{Candidate, Sampler, Sampling};
pub use session::{Answer, Finish, Session, Step};
pub use template::{ChatTemplate, TemplateInput};
pub use tokenizer::Tokenizer;
