//! Architectures as data, shared blocks, the decoder and its key-value cache.
//!
//! A family file translates config.json into an [`Architecture`]; the decoder follows it with blocks written once, on any
//! device that has the operations of planish-ops. [`Model`] is the way in.

mod architecture;
mod blocks;
mod cache;
mod clock;
mod config;
mod decoder;
mod error;
mod families;
mod model;
mod rope;
mod shapes;
mod source;
mod workspace;

pub use architecture::{
    Architecture, AttentionSpec, FeedForwardSpec, HeadSpec, LayerSpec, LinearSpec, NormKind, NormSpec,
};
pub use cache::Cache;
pub use clock::Phases;
pub use error::Error;
pub use model::{Device, LoadOptions, Model};
pub use planish_ops::Activation;
pub use rope::{RopeScaling, RopeSpec};
pub use shapes::SHAPES;
