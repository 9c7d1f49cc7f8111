//! What can stop a quantization or conversion, in words a user can act on.

/// Names the tensor, key or flag, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
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
    /// Something that the target dialect has no words for; the message names the way out.
    #[error("{0}")]
    Inexpressible(String),
    /// A weight with a value that no code can stand for.
    #[error(
        "{tensor} holds {value} at row {row}, column {col}: mend the source, or pass --allow-nan to go on all the same"
    )]
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
    #[error(
        "{tensor} holds {value} at row {row}, column {col}, which {float_type} cannot hold: choose another --dtype"
    )]
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
    /// A weight that is not what its plan says.
    #[error("{tensor}: {what}")]
    Weight {
        /// The tensor.
        tensor: String,
        /// What was expected and what was found.
        what: String,
    },
    /// The source is not the kind of checkpoint that this operation starts from; the message names the way out.
    #[error("{0}")]
    Source(String),
    /// The variable that names the instruction set names none of this machine.
    #[error(transparent)]
    InstructionSet(#[from] planish_format::IsaError),
}
