//! Packed weights on CUDA's tensor cores, in an order of their own that is made once at load.

use bytemuck::{Pod, Zeroable};
use planish_format::{FloatType, Packing};

use super::{File, Launch, Program, value_number};

const FILE: File = File {
    name: "tensor",
    texts: &[
        include_str!("../../kernels/values.metal"),
        include_str!("../../kernels/tensor.metal"),
    ],
};
const TILE_ROWS: u32 = 16;
const TILE_COLS: u32 = 64;
/// Inputs of one product.
const BLOCK: u32 = 8;
const MOST_BLOCKS: u32 = 4;
/// Inputs and rows of a threadgroup that takes many.
const WIDE: u32 = 128;
const WIDE_THREADS: u32 = 128;
/// From so many inputs on the wide kernel is faster (14336 x 4096 on an H100, 2026-11).
const WIDE_FROM: u32 = 97;

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

/// A packed weight that tensor cores can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorWeight {
    packing: Packing,
    float_type: FloatType,
    rows: u32,
    cols: u32,
}

/// `output = input x weight^T + added`. Buffers: tiles and tile scales of the weight, input (inputs, cols) of `value`, added (rows)
/// of f32, output (inputs, rows) of `output`.
#[derive(Clone, Copy, Debug)]
pub struct TensorMatmul {
    /// The weight.
    pub weight: TensorWeight,
    /// Type of the input: f16 or bf16.
    pub value: FloatType,
    /// Type of the output.
    pub output: FloatType,
    /// Rows of input and output.
    pub inputs: u32,
    /// Whether the layer has a bias vector.
    pub added: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TensorProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
}

impl TensorWeight {
    /// `None` where the other kernels must do: scales of 32 bits, groups that are neither 32 nor a multiple of 64, columns that are
    /// not a multiple of 64.
    pub fn new(packing: Packing, float_type: FloatType, rows: u32, cols: u32) -> Option<TensorWeight> {
        let group = packing.group();
        let fits =
            (group == 32 || group.is_multiple_of(64)) && cols.is_multiple_of(TILE_COLS) && float_type != FloatType::F32;
        fits.then_some(TensorWeight {
            packing,
            float_type,
            rows,
            cols,
        })
    }

    /// Bytes of the tiles.
    pub fn tile_bytes(&self) -> usize {
        self.padded_rows() * self.cols as usize / 8 * self.packing.bits() as usize
    }

    /// Bytes of the tiles' scales and biases.
    pub fn scale_bytes(&self) -> usize {
        self.padded_rows() * (self.cols as usize / self.packing.group()) * 4
    }

    /// Makes the order. Buffers: codes, scales, biases, then tiles ([`TensorWeight::tile_bytes`]) and tile scales
    /// ([`TensorWeight::scale_bytes`]) to fill.
    pub fn repack(&self) -> Launch {
        let problem = TensorProblem {
            rows: self.rows,
            cols: self.cols,
            inputs: 0,
        };
        Launch {
            // Whatever can be said of the inputs changes nothing here.
            program: self.program(FloatType::BF16, FloatType::BF16, 1, false),
            kernel: "tensor_repack",
            threadgroups: [self.rows.div_ceil(TILE_ROWS), self.cols / TILE_COLS, 1],
            threads: 32,
            buffers: 5,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: 0,
        }
    }

    fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(TILE_ROWS) as usize
    }

    fn program(&self, value: FloatType, output: FloatType, blocks: u32, added: bool) -> Program {
        let sharing = Sharing::of(self.rows, blocks);
        let defines = vec![
            ("THREADS", sharing.threads),
            ("TILES", sharing.tiles),
            ("AHEAD", sharing.ahead),
            ("THREADGROUPS", sharing.threadgroups),
            ("VALUE", value_number(value)),
            ("OUTPUT", value_number(output)),
            ("WEIGHT", value_number(self.float_type)),
            ("BITS", self.packing.bits()),
            ("GROUP", self.packing.group() as u32),
            ("BLOCKS", blocks),
            ("ADDED", u32::from(added)),
        ];
        Program { file: FILE, defines }
    }
}

impl TensorMatmul {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let (rows, inputs) = (self.weight.rows, self.inputs);
        let wide = inputs >= WIDE_FROM;
        let blocks = if wide {
            1
        } else {
            inputs.div_ceil(BLOCK).min(MOST_BLOCKS)
        };
        let sharing = Sharing::of(rows, blocks);
        let problem = TensorProblem {
            rows,
            cols: self.weight.cols,
            inputs,
        };
        let (kernel, threadgroups, threads) = match wide {
            true => (
                "tensor_matmul_wide",
                [inputs.div_ceil(WIDE), rows.div_ceil(WIDE), 1],
                WIDE_THREADS,
            ),
            false => (
                "tensor_matmul",
                [
                    rows.div_ceil(TILE_ROWS * sharing.tiles),
                    inputs.div_ceil(BLOCK * blocks),
                    1,
                ],
                sharing.threads,
            ),
        };
        let program = self.weight.program(self.value, self.output, blocks, self.added);
        Launch {
            program,
            kernel,
            threadgroups,
            threads,
            buffers: 5,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: 0,
        }
    }
}
