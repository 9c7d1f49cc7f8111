//! Few rows through a matrix for each head, and copies of parts of heads.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, WeightKind, constants_of, kernel_file, value_number};
use planish_ops::HeadPart;

const FILE: File = kernel_file!("portable/heads", "shared/values", "shared/codes");
const THREADS: u32 = 128;
const ROWS_EACH: u32 = 2;
/// Rows of a threadgroup whose lanes take 8 each.
const TRANSPOSED_ROWS: u32 = 256;
const COPY_THREADS: u32 = 256;

/// `output[head] = matrix[head] x input[head]`. Buffers: codes, scales, biases of the stack, input (inputs, heads, from.stride) and
/// output (inputs, heads, to.stride) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct HeadMatvec {
    /// The stack.
    pub weight: WeightKind,
    /// Type of input and output.
    pub value: FloatType,
    /// Output features.
    pub rows: u32,
    /// Input features.
    pub cols: u32,
    /// How many matrices.
    pub heads: u32,
    /// Matrices are stored as (cols, rows).
    pub transposed: bool,
    /// Rows of input and output.
    pub inputs: u32,
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// Where the features go.
    pub to: HeadPart,
}

/// Turned matrices as plain upright ones. Buffers: codes, scales, biases of the stack, output (heads, rows, cols) of the product's `value`.
#[derive(Clone, Copy, Debug)]
pub struct TransposeHeads(pub HeadMatvec);

/// `output[head] = input[head]` for parts of heads. Buffers: input (inputs, heads, from.stride) and output (inputs, heads, to.stride)
/// of `value`.
#[derive(Clone, Copy, Debug)]
pub struct CopyHeads {
    /// Type of input and output.
    pub value: FloatType,
    /// Heads of all inputs.
    pub parts: u32,
    /// Columns of a part.
    pub width: u32,
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// Where they go.
    pub to: HeadPart,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct HeadsProblem {
    rows: u32,
    cols: u32,
    heads: u32,
    from: [u32; 2],
    to: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CopyProblem {
    parts: u32,
    width: u32,
    from: [u32; 2],
    to: [u32; 2],
}

fn part(part: HeadPart) -> [u32; 2] {
    [part.stride as u32, part.start as u32]
}

impl HeadMatvec {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = HeadsProblem {
            rows: self.rows,
            cols: self.cols,
            heads: self.heads,
            from: part(self.from),
            to: part(self.to),
        };
        let aligned = [self.cols as usize, self.from.stride, self.from.start];
        let mut defines = smallvec![
            ("THREADS", THREADS),
            ("ROWS_EACH", ROWS_EACH),
            ("VALUE", value_number(self.value)),
            (
                "ALIGNED",
                u32::from(aligned.iter().all(|count| count.is_multiple_of(8))),
            ),
        ];
        defines.extend(self.weight.defines());
        let (kernel, rows) = match self.transposed {
            true => ("head_matvec_transposed", TRANSPOSED_ROWS),
            false => ("head_matvec", ROWS_EACH * THREADS / 32),
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [self.rows.div_ceil(rows), self.inputs, self.heads],
            threads: THREADS,
            buffers: 5,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl TransposeHeads {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let HeadMatvec { rows, cols, heads, .. } = self.0;
        Launch {
            kernel: "transpose_heads",
            threadgroups: [rows.div_ceil(8), cols.div_ceil(THREADS), heads],
            buffers: 4,
            ..self.0.launch()
        }
    }
}

impl CopyHeads {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = CopyProblem {
            parts: self.parts,
            width: self.width,
            from: part(self.from),
            to: part(self.to),
        };
        let mut defines = smallvec![
            ("THREADS", COPY_THREADS),
            ("ROWS_EACH", ROWS_EACH),
            ("VALUE", value_number(self.value)),
            ("ALIGNED", 0),
        ];
        // The kernels of a file are compiled together.
        let packing = None;
        let float_type = self.value;
        defines.extend(WeightKind { packing, float_type }.defines());
        Launch {
            program: Program { file: FILE, defines },
            kernel: "copy_heads",
            threadgroups: [(self.parts * self.width).div_ceil(COPY_THREADS), 1, 1],
            threads: COPY_THREADS,
            buffers: 2,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
