//! What can be wrong with a model, in words a user can act on.

use planish_checkpoint::Dtype;
use planish_format::memory::OutOfMemory;

/// Why a checkpoint cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
    /// The weights cannot be packed as asked.
    #[error(transparent)]
    Quantize(#[from] planish_quantize::Error),
    /// The host's memory ran out.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// No family file knows this architecture.
    #[error("architecture {found:?} is not supported; supported are {}", .known.join(", "))]
    UnknownArchitecture {
        /// `architectures[0]`, or `model_type` where there is none.
        found: String,
        /// Every architecture that can be run.
        known: Vec<&'static str>,
    },
    /// config.json lacks a key or has the wrong kind of value.
    #[error("config.json: {key}: expected {expected}, found {found}")]
    Config {
        /// The key, dotted where nested.
        key: String,
        /// What it should be.
        expected: String,
        /// What is there (`nothing` if it is missing).
        found: String,
    },
    /// More layers than there are tensors of.
    #[error("config.json: {key}: expected {present} layers, of which there are tensors, found {found}")]
    Layers {
        /// The key, dotted where nested.
        key: String,
        /// Layers with tensors.
        present: usize,
        /// What the key says.
        found: usize,
    },
    /// A tensor that the architecture needs is not in the checkpoint.
    #[error("tensor {name} is missing from the checkpoint")]
    MissingTensor {
        /// Its Hugging Face name.
        name: String,
    },
    /// A tensor has another shape than config.json says.
    #[error("tensor {name}: expected shape {expected:?} from config.json, found {found:?}")]
    Shape {
        /// Its Hugging Face name.
        name: String,
        /// From config.json.
        expected: Vec<usize>,
        /// In the checkpoint.
        found: Vec<usize>,
    },
    /// A tensor of a type that cannot be computed with.
    #[error("tensor {name}: expected F32, F16 or BF16 values, found {found:?}")]
    TensorType {
        /// Its Hugging Face name.
        name: String,
        /// In the checkpoint.
        found: Dtype,
    },
    /// Codes of 4-bit floats that cannot be what they should be.
    #[error("tensor {name}: {error}")]
    Codes {
        /// Its Hugging Face name.
        name: String,
        /// What is wrong with them.
        error: planish_format::FormatError,
    },
    /// A packed tensor where only a plain one is understood (a norm or a bias).
    #[error("tensor {name} is packed; only matrices may be")]
    PackedVector {
        /// Its Hugging Face name.
        name: String,
    },
    /// A token id outside of the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocabulary}")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The cache is full.
    #[error("{needed} positions do not fit in a key-value cache of {capacity}")]
    CacheFull {
        /// Positions there would be.
        needed: usize,
        /// Positions there is room for.
        capacity: usize,
    },
    /// The model has learned position embeddings, and none for this position.
    #[error("{needed} positions are more than the {known} that the model has learned")]
    UnknownPosition {
        /// Positions there would be.
        needed: usize,
        /// Rows of the position table.
        known: usize,
    },
    /// Beyond this position the model computes something that is not known here.
    #[error(
        "{needed} positions are more than the {most} of {key} up to which every position sees all before it; beyond them layers choose what they see, which is not computed"
    )]
    BeyondLimit {
        /// Positions there would be.
        needed: usize,
        /// What the key says.
        most: usize,
        /// The key of config.json.
        key: &'static str,
    },
    /// Layers are to run one by one, and some read what others left beside the hidden state.
    #[error("layers of this model read keys or embeddings of others: they do not run one by one, as calibration does")]
    Entangled,
    /// `forward` was called without a token.
    #[error("no token to compute")]
    NoTokens,
    /// The device failed: out of memory, lost.
    #[error(transparent)]
    Device(Box<dyn std::error::Error + Send + Sync>),
    /// More threads than any machine has a use for.
    #[error("{found} threads are more than the {most} that may be asked for")]
    Threads {
        /// Asked for.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// A device that has no tested way to choose codes for files.
    #[error("quantizing computes on cuda or cpu, not on {device}")]
    NoQuantizing {
        /// Its name.
        device: &'static str,
    },
    /// The device was asked for by name and is not there.
    #[error("device {device} is not available in this build on this machine")]
    DeviceAbsent {
        /// Its name.
        device: &'static str,
    },
    /// The cache of a GPU is of the type that it computes in.
    #[error("{device} keeps keys and values in the type that it computes in: no other can be chosen")]
    CacheType {
        /// Its name.
        device: String,
    },
}
