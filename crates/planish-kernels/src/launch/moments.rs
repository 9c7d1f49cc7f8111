//! From sums of products of inputs to what codes are chosen by.

use bytemuck::{Pod, Zeroable};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file};

const FILE: File = kernel_file!("cuda/moments");
const THREADS: u32 = 256;

/// What is done to a square matrix, or to rows of inputs. All buffers are f32 but where it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SquareStep {
    /// Values less others. Buffers: from, other (`count`).
    Subtract {
        /// Of the values.
        count: u32,
    },
    /// Sums to means. Buffer: sums.
    Mean {
        /// What they are divided by.
        parts: u32,
    },
    /// The same of sums that are known right of the diagonal only; then also left of it. Buffer: sums.
    MeanSymmetric {
        /// What they are divided by.
        parts: u32,
    },
    /// Buffers: square, diagonal (size).
    ReadDiagonal,
    /// Buffer: square.
    ChangeDiagonal {
        /// In place of zeros.
        if_zero: f32,
        /// Then to all.
        added: f32,
    },
    /// The lower triangle in another order. Buffers: square, order (size) of u32, to.
    Arrange {
        /// To the diagonal.
        added: f32,
    },
    /// The last value first. Buffers: from, to.
    Reverse,
    /// Sums over the blocks of two groups. Buffers: square, sums (groups, groups) of f64.
    SumGroups,
}

/// A step on a matrix (size, size).
#[derive(Clone, Copy, Debug)]
pub struct Square {
    /// What is done.
    pub step: SquareStep,
    /// Rows and columns.
    pub size: u32,
    /// Columns of a group.
    pub group: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct SquareProblem {
    size: u32,
    count: u32,
    if_zero: f32,
    added: f32,
    parts: u32,
}

impl Square {
    /// The launch.
    ///
    /// # Panics
    /// If there are more than 2^32 values.
    pub fn launch(&self) -> Launch {
        let (size, values) = (self.size, u64::from(self.size).pow(2));
        let problem = SquareProblem {
            size,
            count: u32::try_from(values).expect("a matrix of less than 2^32 values"),
            ..SquareProblem::default()
        };
        let (kernel, buffers, values, problem) = match self.step {
            SquareStep::Subtract { count } => ("subtract", 2, count.into(), SquareProblem { count, ..problem }),
            SquareStep::Mean { parts } => ("mean", 1, values, SquareProblem { parts, ..problem }),
            SquareStep::MeanSymmetric { parts } => ("mean_symmetric", 1, values, SquareProblem { parts, ..problem }),
            SquareStep::ReadDiagonal => ("read_diagonal", 2, size.into(), problem),
            SquareStep::ChangeDiagonal { if_zero, added } => {
                let problem = SquareProblem {
                    if_zero,
                    added,
                    ..problem
                };
                ("change_diagonal", 1, size.into(), problem)
            }
            SquareStep::Arrange { added } => ("arrange_triangle", 3, values, SquareProblem { added, ..problem }),
            SquareStep::Reverse => ("reverse", 2, values, problem),
            SquareStep::SumGroups => ("sum_groups", 2, u64::from(size / self.group).pow(2), problem),
        };
        Launch {
            program: Program {
                file: FILE,
                defines: smallvec![("THREADS", THREADS), ("GROUP", self.group)],
            },
            kernel,
            threadgroups: [values.div_ceil(THREADS.into()) as u32, 1, 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
