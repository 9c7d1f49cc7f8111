//! What can stop a quantization or conversion, in words a user can act on.

use planish_format::FormatError;
use planish_format::memory::OutOfMemory;

use crate::Target;

/// Names the tensor or key, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
    /// What is worked on does not fit in memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// A pattern of an exclusion or override that is not a regular expression.
    #[error("{pattern:?} is not a regular expression: {what}")]
    Pattern {
        /// As the user gave it.
        pattern: String,
        /// What the expression engine says.
        what: String,
    },
    /// An override that is not `REGEX=BITS[,GROUP]` or `REGEX=none`.
    #[error("the override {text:?} is not REGEX=BITS[,GROUP] or REGEX=none: {what}")]
    Override {
        /// As the user gave it.
        text: String,
        /// Which part is wrong.
        what: String,
    },
    /// An allocation of bits to layers that cannot be read, or that is not one of the model.
    #[error("the allocation of bits: {what}")]
    Allocation {
        /// The key, what was expected and what was found.
        what: String,
    },
    /// A budget of bits that cannot be kept, or need not be.
    #[error("a budget of {budget} bits per weight: {what}")]
    Budget {
        /// As the user gave it.
        budget: f64,
        /// Which budgets can be kept.
        what: String,
    },
    /// Bits or a group that no dialect has.
    #[error(transparent)]
    Packing(#[from] FormatError),
    /// A dialect with one packing for all layers was asked for exceptions.
    #[error(
        "the metal format has one bit-width for all layers, so it cannot hold other widths for some of them: it can only \
         leave layers plain"
    )]
    MetalOverrides,
    /// Something else that the target dialect has no words for.
    #[error("{what}")]
    Inexpressible {
        /// What it is.
        what: String,
        /// What would do instead.
        remedy: Option<Remedy>,
    },
    /// A weight with a value that no code can stand for.
    #[error("{tensor} holds {value} at row {row}, column {col}: mend the source")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// NaN or an infinity.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
    },
    /// A finite value that the type asked for cannot hold.
    #[error("{tensor} holds {value} at row {row}, column {col}, which {float_type} cannot hold: choose another type")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The name of the type.
        float_type: &'static str,
    },
    /// A finite value beyond the largest scale of a mode of small floats.
    #[error("{tensor} holds {value} at row {row}, column {col}, and {mode} holds up to {largest}: choose another mode")]
    BeyondMode {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The name of the mode.
        mode: &'static str,
        /// The largest value that it holds.
        largest: f32,
    },
    /// Finite weights of which a group spans more than its scale or bias can hold.
    #[error(
        "{tensor} holds {value} at row {row}, column {col}: the scale or bias of its group is more than {float_type} can \
         hold: choose another type"
    )]
    Scale {
        /// The tensor.
        tensor: String,
        /// The largest value of the group.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The name of the scales' type.
        float_type: &'static str,
    },
    /// An output folder that is the source, or holds it: the only copy of the weights would go.
    #[error("{}: holds the source itself, so it is not written to: give another folder", folder.display())]
    OutputIsSource {
        /// The output.
        folder: std::path::PathBuf,
    },
    /// The caller asked for an end: nothing was published.
    #[error("stopped: {} was not written", folder.display())]
    Stopped {
        /// The output.
        folder: std::path::PathBuf,
    },
    /// A weight that is not what its plan says.
    #[error("{tensor}: {what}")]
    Weight {
        /// The tensor.
        tensor: String,
        /// What was expected and what was found.
        what: String,
    },
    /// The source is not the kind of checkpoint that this operation starts from.
    #[error("{what}")]
    Source {
        /// What it is instead.
        what: String,
        /// What would do instead.
        remedy: Option<Remedy>,
    },
    /// The device that searches for codes.
    #[error(transparent)]
    Device(Box<dyn std::error::Error + Send + Sync>),
    /// The variable that names the instruction set names none of this machine.
    #[error(transparent)]
    InstructionSet(#[from] planish_format::IsaError),
}

/// What helps where a conversion was refused. A program says it in the words of its own commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Write this dialect instead, which can hold it.
    Dialect(Target),
    /// Write this dialect instead, which packs output head and embeddings.
    PackBoth(Target),
    /// Dequantize the checkpoint.
    Dequantize,
    /// Dequantize the checkpoint, then quantize it for this dialect.
    Requantize(Target),
    /// Dequantize the checkpoint, then quantize it for the same dialect.
    QuantizeAnew,
    /// Quantize the plain checkpoint for this dialect.
    QuantizePlain(Target),
    /// Quantize this checkpoint, which is plain, for this dialect.
    Quantize(Target),
    /// Quantize the plain checkpoint, dequantize this one first, or convert it.
    StartFromPlain,
    /// Ask for another float type.
    ChangeType,
    /// Give the same exception to all of them, or none.
    SameException,
    /// Choose another recipe, or exceptions by name.
    OtherRecipe,
}

impl Error {
    pub(crate) fn inexpressible(what: impl Into<String>, remedy: impl Into<Option<Remedy>>) -> Error {
        Error::Inexpressible {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    pub(crate) fn source(what: impl Into<String>, remedy: impl Into<Option<Remedy>>) -> Error {
        Error::Source {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
