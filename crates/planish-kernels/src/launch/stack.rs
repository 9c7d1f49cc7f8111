//! Many rows through a stack of matrices: sorted by expert, or each through the matrix of every head. With a stack of one matrix
//! that is transposed, `x W` of a packed W.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, StackBuffer, WeightKind, constants_of, kernel_file, value_number};
use planish_ops::HeadPart;

const FILE: File = kernel_file!("portable/stack", "shared/values", "shared/codes", "shared/routing");
const THREADS: u32 = 128;
const TILE: u32 = 32;

/// Which inputs go through which matrix, and where inputs and outputs lie.
#[derive(Clone, Copy, Debug)]
pub enum StackRouting {
    /// All inputs each matrix: head h of an input, and of its output, are such parts of it.
    Heads {
        /// How many matrices.
        heads: u32,
        /// In (inputs, heads, from.stride).
        from: HeadPart,
        /// In (inputs, heads, to.stride).
        to: HeadPart,
    },
    /// Inputs are rows (inputs, cols), each read by `chosen` entries; outputs (entries, rows) lie in the order of experts.
    Rows {
        /// Entries of a row.
        chosen: u32,
        /// Tiles at most.
        tiles: u32,
    },
    /// Inputs (entries, cols) lie in the order of experts; outputs (entries, rows) in that of entries.
    Sorted {
        /// Tiles at most.
        tiles: u32,
    },
}

/// `output = matrix x input + added`. Buffers: [`StackMatmul::BUFFERS`].
#[derive(Clone, Copy, Debug)]
pub struct StackMatmul {
    /// The stack.
    pub weight: WeightKind,
    /// Type of input and output.
    pub value: FloatType,
    /// Output features.
    pub rows: u32,
    /// Input features.
    pub cols: u32,
    /// Rows of the input; it does not matter for entries.
    pub inputs: u32,
    /// Matrices are stored as (cols, rows).
    pub transposed: bool,
    /// Whether there are bias vectors.
    pub added: bool,
    /// Which inputs go through which matrix.
    pub routing: StackRouting,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct StackProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
    chosen: u32,
    input_stride: u32,
    input_step: u32,
    input_start: u32,
    output_stride: u32,
    output_step: u32,
    output_start: u32,
}

impl StackProblem {
    /// Whether inputs begin at multiples of 8 values.
    pub(super) fn input_aligned(&self) -> bool {
        let counts = [self.input_stride, self.input_step, self.input_start];
        counts.iter().all(|count| count.is_multiple_of(8))
    }

    /// Whether outputs do.
    pub(super) fn output_aligned(&self) -> bool {
        let counts = [self.output_stride, self.output_step, self.output_start];
        counts.iter().all(|count| count.is_multiple_of(8))
    }
}

impl StackMatmul {
    /// Entries of a tile.
    pub const TILE: u32 = TILE;

    /// Its buffers in order.
    pub const BUFFERS: [StackBuffer; 8] = {
        use StackBuffer::{Added, Biases, Codes, Input, Order, Output, Scales, Tiles};
        [Codes, Scales, Biases, Input, Added, Order, Tiles, Output]
    };

    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = self.problem();
        let (routed, tiles, matrices) = match self.routing {
            StackRouting::Heads { heads, .. } => (0, self.inputs.div_ceil(TILE), heads),
            StackRouting::Rows { tiles, .. } => (1, tiles, 1),
            StackRouting::Sorted { tiles } => (2, tiles, 1),
        };
        let aligned = self.cols.is_multiple_of(8) && problem.input_aligned();
        let mut defines = smallvec![
            ("THREADS", THREADS),
            ("TILE", TILE),
            ("VALUE", value_number(self.value)),
            ("ALIGNED", u32::from(aligned)),
            ("ADDED", u32::from(self.added)),
            ("TRANSPOSED", u32::from(self.transposed)),
            ("ROUTED", routed),
        ];
        defines.extend(self.weight.defines());
        Launch {
            program: Program { file: FILE, defines },
            kernel: "stack_matmul",
            threadgroups: [self.rows.div_ceil(TILE), tiles, matrices],
            threads: THREADS,
            buffers: StackMatmul::BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }

    pub(super) fn problem(&self) -> StackProblem {
        let whole = StackProblem {
            rows: self.rows,
            cols: self.cols,
            inputs: self.inputs,
            chosen: 1,
            input_stride: self.cols,
            input_step: 0,
            input_start: 0,
            output_stride: self.rows,
            output_step: 0,
            output_start: 0,
        };
        match self.routing {
            StackRouting::Heads { heads, from, to } => StackProblem {
                input_stride: heads * from.stride as u32,
                input_step: from.stride as u32,
                input_start: from.start as u32,
                output_stride: heads * to.stride as u32,
                output_step: to.stride as u32,
                output_start: to.start as u32,
                ..whole
            },
            StackRouting::Rows { chosen, .. } => StackProblem { chosen, ..whole },
            StackRouting::Sorted { .. } => whole,
        }
    }
}
