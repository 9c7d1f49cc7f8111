//! Products of packed weights in the order of tensor cores with a few inputs.

use planish_format::FloatType;

use super::tensor_narrow::{MOST_SIDE, narrow_launch};
use super::tensor_wide::{WIDE_FROM, wide_launch};
use super::tiles::{TILE_ROWS, TensorProblem, TensorWeight};
use super::{File, Launch, Program, value_number};

const FILE: File = File {
    name: "tensor",
    texts: &[
        include_str!("../../kernels/values.metal"),
        include_str!("../../kernels/tiles.metal"),
        include_str!("../../kernels/tensor.metal"),
    ],
};
/// Inputs of one product.
const BLOCK: u32 = 8;
const MOST_BLOCKS: u32 = 4;

/// How few inputs are shared out: the fastest found on an H100, 2026-11.
#[derive(Clone, Copy)]
struct Sharing {
    threads: u32,
    /// Row tiles of a warp.
    tiles: u32,
    /// Steps that a warp reads at once.
    ahead: u32,
    /// Threadgroups that a multiprocessor holds at once, which bounds the registers.
    threadgroups: u32,
}

impl Sharing {
    fn of(rows: u32, blocks: u32) -> Sharing {
        let [threads, tiles, ahead, threadgroups] = match (blocks, rows) {
            (1, 20_000..) => [128, 2, 1, 8],
            (1, 8192..) => [256, 2, 1, 4],
            // Few rows: more warps for each.
            (1, _) => [512, 1, 2, 2],
            (2, ..8192) => [512, 2, 1, 1],
            _ => [256, 2, 2, 1],
        };
        Sharing {
            threads,
            tiles,
            ahead,
            threadgroups,
        }
    }
}

/// `output = input x weight^T + added`. Buffers: tiles and tile scales of the weight, input (inputs, cols) of `value`, added (rows)
/// of f32, output (inputs, rows) of `output`.
#[derive(Clone, Copy, Debug)]
pub struct TensorMatmul {
    /// The weight.
    pub weight: TensorWeight,
    /// Type of the input.
    pub value: FloatType,
    /// Type of the output.
    pub output: FloatType,
    /// Rows of input and output.
    pub inputs: u32,
    /// Whether the layer has a bias vector.
    pub added: bool,
}

impl TensorMatmul {
    /// The launch.
    pub fn launch(&self) -> Launch {
        self.launch_after(false)
    }

    /// The launch right after one of the same input, which this one need not wait for.
    pub fn launch_beside(&self) -> Launch {
        self.launch_after(true)
    }

    fn launch_after(&self, beside: bool) -> Launch {
        let is_exact = self.value == FloatType::F32 || self.weight.float_type == FloatType::F32;
        if self.inputs <= MOST_SIDE || is_exact {
            return narrow_launch(self, beside);
        }
        if self.inputs >= WIDE_FROM {
            return wide_launch(self);
        }
        let blocks = self.inputs.div_ceil(BLOCK).min(MOST_BLOCKS);
        let sharing = Sharing::of(self.weight.rows, blocks);
        Launch {
            program: self.program(sharing, blocks),
            kernel: "tensor_matmul",
            threadgroups: [
                self.weight.rows.div_ceil(TILE_ROWS * sharing.tiles),
                self.inputs.div_ceil(BLOCK * blocks),
                1,
            ],
            threads: sharing.threads,
            buffers: 5,
            constants: self.constants(),
            shared_bytes: 0,
        }
    }

    pub(super) fn constants(&self) -> Vec<u8> {
        let problem = TensorProblem {
            rows: self.weight.rows,
            cols: self.weight.cols,
            inputs: self.inputs,
        };
        bytemuck::bytes_of(&problem).to_vec()
    }

    fn program(&self, sharing: Sharing, blocks: u32) -> Program {
        let mut defines = self.weight.defines(self.value);
        defines.extend([
            ("THREADS", sharing.threads),
            ("TILES", sharing.tiles),
            ("AHEAD", sharing.ahead),
            ("THREADGROUPS", sharing.threadgroups),
            ("OUTPUT", value_number(self.output)),
            ("BLOCKS", blocks),
            ("ADDED", u32::from(self.added)),
        ]);
        Program { file: FILE, defines }
    }
}
