//! Codes of rows by error feedback, and the sweep over them.

use bytemuck::{Pod, Zeroable};
use planish_format::{FloatType, Packing};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/feedback", "shared/values", "shared/affine", "shared/search");
const THREADS: u32 = 128;

/// A group of columns of rows of weights.
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// Bits and group; the group at most [`super::SearchGroups::MOST_GROUP`].
    pub packing: Packing,
    /// Type of scales and biases.
    pub scale: FloatType,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// The first column of the group, or of the block that is swept.
    pub first: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FeedbackProblem {
    rows: u32,
    cols: u32,
    first: u32,
}

impl Feedback {
    /// Columns of a block that is swept.
    pub const SWEPT: u32 = 64;

    /// Chooses the group's codes. Buffers: left (rows, cols), weights (cols), upper (cols, cols), all f32 in the order of coding, that order
    /// (cols) of u32, codes (rows, cols) of u8, scales and biases (rows, groups) of f32, errors (rows, group) of f32.
    pub fn launch(&self) -> Launch {
        self.launch_of("feedback", 8)
    }

    /// Changes codes of a block. Buffers: codes (rows, cols) of u8, scales and biases (rows, groups), squares (cols, cols), products (rows,
    /// cols), changes (rows, [`Feedback::SWEPT`]), all f32.
    pub fn launch_sweep(&self) -> Launch {
        self.launch_of("sweep", 6)
    }

    fn launch_of(&self, kernel: &'static str, buffers: u32) -> Launch {
        let problem = FeedbackProblem {
            rows: self.rows,
            cols: self.cols,
            first: self.first,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", 0),
            ("WEIGHT", value_number(self.scale)),
            ("BITS", self.packing.bits()),
            ("GROUP", self.packing.group() as u32),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [self.rows.div_ceil(THREADS / 16), 1, 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
