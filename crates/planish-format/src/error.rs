//! What a caller can hand in wrongly, with what was expected and what was found.

use crate::IsaError;

/// A request that the format cannot hold, or data that contradict their shape.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Bits that a code cannot have.
    #[error("a code has 2, 3, 4, 5, 6 or 8 bits, not {bits}")]
    Width {
        /// As they were asked for.
        bits: u32,
    },
    /// A group that does not fill whole bytes at every width.
    #[error("a group is a positive multiple of 8, not {group}")]
    Group {
        /// As it was asked for.
        group: usize,
    },
    /// Groups do not fill a row.
    #[error("{cols} columns are not a multiple of the group size {group}")]
    GroupDoesNotDivide {
        /// Columns of the matrix.
        cols: usize,
        /// Codes per scale.
        group: usize,
    },
    /// A row of codes would end inside a word.
    #[error("a row of {cols} codes of {bits} bits does not fill whole 32-bit words")]
    PartialWord {
        /// Columns of the matrix.
        cols: usize,
        /// Bits per code.
        bits: u32,
    },
    /// The number of bytes does not fit in memory addresses.
    #[error("a matrix of {rows} x {cols} is too large")]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// A buffer is shorter or longer than its shape says.
    #[error("{part} of a {rows} x {cols} matrix: expected {expected} bytes, found {found}")]
    Length {
        /// "weights", "codes", "scales" or "biases".
        part: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A weight is NaN or infinite, and the options do not allow it.
    #[error("the weight at row {row}, column {col} is {value}")]
    NonFinite {
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The variable that names the instruction set names none of this machine.
    #[error(transparent)]
    InstructionSet(#[from] IsaError),
}
