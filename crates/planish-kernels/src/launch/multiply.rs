//! Products of large matrices in f32.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, ProductBuffer, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/multiply", "shared/values");
const THREADS: u32 = 256;
const TILE: u32 = 128;
/// Threadgroups that a multiprocessor should hold at once.
const THREADGROUPS: u32 = 2;

/// What is added to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Nothing.
    Nothing,
    /// What is there.
    Itself,
    /// A vector (cols), to each row.
    Vector,
}

/// Tiles that are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// All.
    All,
    /// Those with something on the diagonal or right of it.
    Upper,
    /// Those with something on the diagonal or left of it.
    Lower,
}

/// What of the right matrix need not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// Nothing.
    None,
    /// Terms after the number of the column.
    After,
    /// Terms before it.
    Before,
}

/// `to = factor * left * right + added`. Buffers: left, right, the added vector (not read where there is none), to.
/// Where values are neighbours along a line, its length is a multiple of 4; strides are multiples of 8.
#[derive(Clone, Copy, Debug)]
pub struct Multiply {
    /// Rows of the result.
    pub rows: u32,
    /// Its columns.
    pub cols: u32,
    /// Terms of each sum.
    pub depth: u32,
    /// Values from a row of left to the next.
    pub left_stride: u32,
    /// Left is (depth, rows), not (rows, depth).
    pub left_transposed: bool,
    /// Values from a row of right to the next.
    pub right_stride: u32,
    /// Right is (cols, depth), not (depth, cols).
    pub right_transposed: bool,
    /// Type of right.
    pub right: FloatType,
    /// Values from a row of the result to the next.
    pub to_stride: u32,
    /// What products are multiplied by.
    pub factor: f32,
    /// What is added.
    pub added: Added,
    /// Which tiles are computed.
    pub tiles: Tiles,
    /// What of right is zero.
    pub zeros: Zeros,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MultiplyProblem {
    rows: u32,
    cols: u32,
    depth: u32,
    left_stride: u32,
    right_stride: u32,
    to_stride: u32,
    factor: f32,
}

impl Multiply {
    /// Inputs of a layer up to which other kernels are faster.
    pub(super) const FEW_INPUTS: u32 = 32;
    /// Its buffers as a product with a plain weight.
    pub(super) const BUFFERS: [ProductBuffer; 4] = {
        use ProductBuffer::{Added, Codes, Input, Output};
        [Input, Codes, Added, Output]
    };

    /// Whole matrices (rows, depth) and (depth, cols).
    pub fn new(rows: u32, cols: u32, depth: u32) -> Multiply {
        Multiply {
            rows,
            cols,
            depth,
            left_stride: depth,
            left_transposed: false,
            right_stride: cols,
            right_transposed: false,
            right: FloatType::F32,
            to_stride: cols,
            factor: 1.0,
            added: Added::Nothing,
            tiles: Tiles::All,
            zeros: Zeros::None,
        }
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let added = match self.added {
            Added::Nothing => 0,
            Added::Itself => 1,
            Added::Vector => 2,
        };
        let tiles = match self.tiles {
            Tiles::All => 0,
            Tiles::Upper => 1,
            Tiles::Lower => 2,
        };
        let zeros = match self.zeros {
            Zeros::None => 0,
            Zeros::After => 1,
            Zeros::Before => 2,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("THREADGROUPS", THREADGROUPS),
            ("VALUE", 0),
            ("WEIGHT", value_number(self.right)),
            ("LEFT_FORM", u32::from(self.left_transposed)),
            ("RIGHT_FORM", u32::from(self.right_transposed)),
            ("ADDED", added),
            ("TRIANGLE", tiles),
            ("ZEROS", zeros),
        ];
        let problem = MultiplyProblem {
            rows: self.rows,
            cols: self.cols,
            depth: self.depth,
            left_stride: self.left_stride,
            right_stride: self.right_stride,
            to_stride: self.to_stride,
            factor: self.factor,
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "multiply",
            threadgroups: [self.cols.div_ceil(TILE), self.rows.div_ceil(TILE), 1],
            threads: THREADS,
            buffers: 4,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
