//! Tokens in, tokens out: tokenizer, chat templates, sampling, stop rules.

#![forbid(unsafe_code)]

mod answer;
mod batch;
mod calls;
mod channels;
mod config;
mod constraint;
mod conversation;
mod defaults;
mod detokenizer;
mod error;
mod files;
mod foreign;
mod form;
mod formats;
mod lineage;
mod logprobs;
mod mask;
mod message;
mod random;
mod restrictions;
mod sampler;
mod session;
mod special;
mod spelling;
mod stop;
#[cfg(feature = "structured")]
mod structured;
#[cfg(not(feature = "structured"))]
#[path = "unstructured.rs"]
mod structured;
mod template;
mod tokenizer;
mod warpers;

pub use answer::{Answer, Finish, Step};
pub use batch::{Batch, Member};
pub use calls::{
    Call, FAMILIES, Family, PLAIN, Piece, Reader, Reading, Reasoning, Shape, Tags, Tool, ToolChoice,
    constraint_of_calls, reasoning_marks,
};
pub use channels::AnswerText;
pub use config::{GenerationConfig, GenerationPlan};
pub use constraint::Constraint;
pub use defaults::GenerationDefaults;
pub use detokenizer::{Detokenizer, Window};
pub use error::Error;
pub use files::{Files, OtherTokenizer};
pub use foreign::in_foreign_code;
pub use lineage::Lineage;
pub use logprobs::TokenLogprobs;
pub use message::Message;
pub use restrictions::Restrictions;
pub use sampler::{Sampler, Sampling};
pub use session::{Next, Session, check_prompt};
pub use stop::StopStrings;
pub use structured::{Grammar, Grammars};
pub use template::{ChatTemplate, TemplateInput};
pub use tokenizer::Tokenizer;
pub use warpers::{Cutoffs, Drawer, Growth};
