//! Architectures as data, shared blocks, the decoder and its key-value cache.
//!
//! A family file translates config.json into an [`Architecture`]; the decoder follows it with blocks written once, on any
//! device that has the operations of planish-ops. [`Model`] is the way in.

#![forbid(unsafe_code)]
#![cfg_attr(fuzzing, allow(dead_code, reason = "GPUs alone ask how large a model is"))]

mod architecture;
mod batch;
mod blocks;
mod cache;
mod config;
mod cut;
mod decoder;
mod device;
mod embedding;
mod error;
mod families;
mod layers;
mod model;
mod rope;
mod shapes;
mod source;
mod stack;
mod step;
mod streams;
mod trials;
mod workspace;

pub use architecture::{
    ActivationSpec, AlibiSpec, Architecture, AttentionSpec, BlockSpec, BranchSpec, ChannelScanSpec, ConvolutionSpec,
    EmbeddingSpec, ExpertsSpec, FactorizedEmbedding, FeedForwardSpec, FusedRows, FusedStack, GateSpec, HeadSizes,
    HeadSpec, LatentAttentionSpec, LatentQuerySpec, LaurelSpec, LayerInputSpec, LayerInputsSpec, LayerSpec, LinearSpec,
    LogitsSpec, MixerSpec, NormSpec, PositionLimit, PositionTable, PrefixAlias, RecurrenceSpec, RuleSpec,
    ScoreCorrectionSpec, SharedExpertsSpec, ShortConvolutionSpec, StackPlace, StackSpec, StepSpec, StepsSpec, Stored,
    StreamUse, StreamsSpec,
};
pub use batch::{Chunk, Input, LateChoice, Row, Ticket, Want};
pub use cache::Cache;
pub use decoder::DeviceMemory;
pub use device::{Candidate, Chooser, Device, QuantizingDevice, drawn};
pub use error::Error;
pub use families::{FamilyInfo, Tested};
pub use layers::{Heard, LayerRunner, LoadedLayer};
pub use model::{LoadOptions, Model};
pub use planish_ops::{
    Activation, Adjustment, AlibiRule, CacheType, Choice, Draw, ExpertGroups, NormKind, Order, Origin, Phases,
    RecurrenceShape, RopePairs, Routing, Scoring, Spent, Tap, TemperatureTuning, Work, adjust,
};
pub use rope::{RopeScaling, RopeSpec};
pub use shapes::SHAPES;
pub use trials::Trials;
