//! Tokens in, tokens out: tokenizer, chat templates, sampling, stop rules.

#![forbid(unsafe_code)]

mod answer;
mod batch;
mod channels;
mod config;
mod conversation;
mod defaults;
mod detokenizer;
mod error;
mod files;
mod foreign;
mod formats;
mod message;
mod random;
mod sampler;
mod session;
mod special;
mod stop;
mod template;
mod tokenizer;
mod warpers;

pub use answer::{Answer, Finish, Step};
pub use batch::{Batch, Member};
pub use channels::{AnswerText, Part};
pub use config::{GenerationConfig, GenerationPlan};
pub use defaults::GenerationDefaults;
pub use detokenizer::Detokenizer;
pub use error::Error;
pub use files::{Files, OtherTokenizer};
pub use foreign::in_foreign_code;
pub use message::Message;
pub use sampler::{Restrictions, Sampler, Sampling};
pub use session::{Next, Session, check_prompt};
pub use stop::StopStrings;
pub use template::{ChatTemplate, TemplateInput};
pub use tokenizer::Tokenizer;
pub use warpers::{Cutoffs, Drawer, Growth};
