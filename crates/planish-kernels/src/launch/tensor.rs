//! Products of packed weights in the order of tensor cores with a few inputs.

use planish_format::FloatType;

use super::tensor_narrow::narrow_launch;
use super::tensor_wide::{WIDE_FROM, wide_launch};
use super::tiles::{TILE_ROWS, TensorProblem, TensorWeight};
use super::{Constants, File, Launch, ProductBuffer, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/tensor", "shared/values", "cuda/tiles");
/// Inputs of one product.
const BLOCK: u32 = 8;
const MOST_BLOCKS: u32 = 4;

/// How few inputs are shared out.
#[derive(Clone, Copy)]
struct Sharing {
    /// Of inputs, for a threadgroup.
    blocks: u32,
    /// Pairs of a row tile and such inputs, for each multiprocessor.
    turns: u32,
}

/// The threadgroups of few inputs.
struct Groups {
    threads: u32,
    /// Row tiles of a warp.
    tiles: u32,
    /// Threadgroups that a multiprocessor holds at once, which bounds the registers.
    at_once: u32,
}

impl Sharing {
    fn of(weight: &TensorWeight, inputs: u32) -> Sharing {
        let sharers = inputs.div_ceil(BLOCK * MOST_BLOCKS);
        Sharing {
            blocks: inputs.div_ceil(BLOCK).div_ceil(sharers),
            turns: (weight.rows.div_ceil(TILE_ROWS) * sharers).div_ceil(weight.processors),
        }
    }

    /// The fastest found on an H100, 2026-11: as many warps for each row tile as can run at once.
    fn groups(self, bits: u32) -> Groups {
        let [threads, tiles, at_once] = match (self.blocks, self.turns) {
            (_, ..=1) => [512, 1, 1],
            (1, 2) => [512, 1, 2],
            (1, 3..=4) => [256, 1, 4],
            (1, 5..=8) => [256, 2, 4],
            (1, _) if bits > 4 => [128, 2, 8],
            (2 | 3, 2) => [512, 2, 1],
            (4, 2) => [256, 1, 2],
            (_, 3..=4) => [256, 2, 2],
            _ => [128, 2, 4],
        };
        Groups {
            threads,
            tiles,
            at_once,
        }
    }
}

/// `output = input x weight^T + added`. Buffers: [`TensorMatmul::BUFFERS`].
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
    /// Its buffers in order; codes and scales are the weight's tiles.
    pub const BUFFERS: [ProductBuffer; 5] = {
        use ProductBuffer::{Added, Codes, Input, Output, Scales};
        [Codes, Scales, Input, Added, Output]
    };

    /// The launch.
    pub fn launch(&self) -> Launch {
        self.launch_after(false)
    }

    /// The launch right after one of the same input, which this one need not wait for.
    pub fn launch_beside(&self) -> Launch {
        self.launch_after(true)
    }

    fn launch_after(&self, overlaps: bool) -> Launch {
        if self.is_narrow() {
            return narrow_launch(self, overlaps);
        }
        if self.inputs >= WIDE_FROM && !self.runs_at_once() {
            return wide_launch(self);
        }
        let sharing = Sharing::of(&self.weight, self.inputs);
        let groups = sharing.groups(self.weight.packing.bits());
        Launch {
            program: self.program(sharing.blocks, &groups),
            kernel: "tensor_matmul",
            threadgroups: [
                self.weight.rows.div_ceil(TILE_ROWS * groups.tiles),
                self.inputs.div_ceil(BLOCK * sharing.blocks),
                1,
            ],
            threads: groups.threads,
            buffers: TensorMatmul::BUFFERS.len() as u32,
            constants: self.constants(),
            shared_bytes: 0,
        }
    }

    /// One input, or two, but where most multiprocessors get one row tile each, none two (H100, 2026-11); and all that must be exact.
    fn is_narrow(&self) -> bool {
        let (tiles, processors) = (self.weight.rows.div_ceil(TILE_ROWS), self.weight.processors);
        let fills_once = tiles > processors / 2 && tiles <= processors;
        let is_exact = self.value == FloatType::F32 || self.weight.float_type == FloatType::F32;
        is_exact || self.inputs == 1 || self.inputs == 2 && !fills_once
    }

    /// Whether there are so few rows and inputs that all threadgroups run at once. That makes the kernel for few inputs the fastest one,
    /// also for many (several shapes on an H100, 2026-11; 8 bits and many inputs leave too few registers).
    pub(super) fn runs_at_once(&self) -> bool {
        let Sharing { blocks, turns } = Sharing::of(&self.weight, self.inputs);
        turns <= 2 || turns <= 4 && (blocks < MOST_BLOCKS || self.weight.packing.bits() < 8)
    }

    /// How much longer this takes than parts of the columns by warpgroups, which need something beside: time, up to a factor, that
    /// grows with the columns.
    pub(super) fn column_cost(&self) -> u32 {
        let Sharing { blocks, turns } = Sharing::of(&self.weight, self.inputs);
        (turns * (blocks + 2)).saturating_sub(10) * self.weight.cols
    }

    pub(super) fn constants(&self) -> Constants {
        let problem = TensorProblem {
            rows: self.weight.rows,
            cols: self.weight.cols,
            inputs: self.inputs,
        };
        constants_of(&problem)
    }

    fn program(&self, blocks: u32, groups: &Groups) -> Program {
        let mut defines = self.weight.defines(self.value);
        defines.extend([
            ("THREADS", groups.threads),
            ("TILES", groups.tiles),
            ("THREADGROUPS", groups.at_once),
            ("OUTPUT", value_number(self.output)),
            ("BLOCKS", blocks),
            ("ADDED", u32::from(self.added)),
        ]);
        Program { file: FILE, defines }
    }
}
