//! Products of packed weights with many inputs by the warpgroups of Hopper GPUs.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;

use super::arrange::Arrange;
use super::tensor::TensorMatmul;
use super::{File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("hopper/warpgroup", "shared/values", "cuda/tiles", "hopper/stages");
/// Threads of a warpgroup, and rows that it takes.
const WARPGROUP: u32 = 128;
const ROWS: u32 = 64;
/// Columns of a stage.
const COLS: u32 = 64;
/// Two warpgroups multiply, one brings what they need.
const THREADS: u32 = 3 * WARPGROUP;
/// Shared memory that a threadgroup may have.
const SHARED_BYTES: u32 = 227 << 10;
const MOST_STAGES: u32 = 12;
/// Inputs of a threadgroup that kernels are made for.
const INPUTS: [u32; 5] = [32, 64, 128, 192, 256];

/// Fewer inputs are always for [`TensorMatmul`].
const WARPGROUPS_FROM: u32 = 17;

/// As [`TensorMatmul`], on inputs that [`Arrange`] put in order. Buffers: tiles and tile scales of the weight, arranged inputs, added
/// (rows) of f32, output (inputs, rows) of `output`.
#[derive(Clone, Copy, Debug)]
pub struct WarpgroupMatmul {
    matmul: TensorMatmul,
}

/// How the work is shared out: a threadgroup has two warpgroups that multiply.
#[derive(Clone, Copy, Debug)]
struct Sharing {
    /// Of a threadgroup.
    inputs: u32,
    /// Of the warpgroups: 2 take rows of their own, or 1 the rows and each every other column.
    rowgroups: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct WarpgroupProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
    padded: u32,
}

impl WarpgroupMatmul {
    /// `None` but for inputs of bf16 (weights are rounded to f16, which shows in outputs of f16) and scales of 16 bits.
    pub fn new(matmul: TensorMatmul) -> Option<WarpgroupMatmul> {
        let fits = matmul.value == FloatType::BF16 && matmul.weight.float_type != FloatType::F32;
        fits.then_some(WarpgroupMatmul { matmul })
    }

    /// Whether this takes less time than [`TensorMatmul`].
    pub fn is_faster(&self) -> bool {
        self.matmul.inputs >= WARPGROUPS_FROM && !self.matmul.runs_at_once()
    }

    /// What brings the inputs in order.
    pub fn arrange(&self) -> Arrange {
        Arrange {
            span: self.matmul.weight.packing.group().min(COLS as usize) as u32,
            cols: self.matmul.weight.cols,
            inputs: self.matmul.inputs,
        }
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let TensorMatmul { weight, inputs, .. } = self.matmul;
        let sharing = self.sharing();
        let stages = self.stages(sharing);
        // The units multiply f16, whatever the inputs were.
        let mut defines = weight.defines(FloatType::F16);
        defines.extend([
            ("OUTPUT", value_number(self.matmul.output)),
            ("ADDED", u32::from(self.matmul.added)),
            ("INPUTS", sharing.inputs),
            ("ROWGROUPS", sharing.rowgroups),
            ("SPLITS", sharing.splits()),
            ("STAGES", stages),
            ("THREADS", THREADS),
        ]);
        let problem = WarpgroupProblem {
            rows: weight.rows,
            cols: weight.cols,
            inputs,
            padded: self.arrange().padded(),
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "warpgroup_matmul",
            threadgroups: [sharing.tiles(&self.matmul).min(weight.processors), 1, 1],
            threads: THREADS,
            buffers: 5,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: stages * self.stage_bytes(sharing) + self.result_bytes(sharing),
        }
    }

    /// The cheapest.
    fn sharing(&self) -> Sharing {
        let all = INPUTS
            .into_iter()
            .flat_map(|inputs| [1, 2].map(|rowgroups| Sharing { inputs, rowgroups }));
        let cheapest = all.min_by_key(|sharing| sharing.cost(self));
        cheapest.expect("there are some")
    }

    /// As many as there is room for.
    fn stages(&self, sharing: Sharing) -> u32 {
        let room = SHARED_BYTES - self.result_bytes(sharing);
        (room / self.stage_bytes(sharing)).min(MOST_STAGES)
    }

    /// Inputs, codes, scales and two barriers.
    fn stage_bytes(&self, sharing: Sharing) -> u32 {
        let packing = self.matmul.weight.packing;
        let spans = COLS.div_ceil(packing.group() as u32);
        let row_bytes = COLS / 8 * packing.bits() + 4 * spans;
        sharing.inputs * COLS * 2 + ROWS * sharing.rowgroups * row_bytes + 16
    }

    /// Outputs of 16 bits before they are written, and the sums of the splits.
    fn result_bytes(&self, sharing: Sharing) -> u32 {
        let outputs = match self.matmul.output {
            FloatType::F32 => 0,
            FloatType::F16 | FloatType::BF16 => (ROWS + 8) * 2,
        };
        let partial = (sharing.splits() - 1) * ROWS * 4;
        (outputs + partial) * sharing.inputs * sharing.rowgroups
    }
}

impl Sharing {
    fn splits(self) -> u32 {
        3 - self.rowgroups
    }

    fn tiles(self, matmul: &TensorMatmul) -> u32 {
        matmul.weight.rows.div_ceil(ROWS * self.rowgroups) * matmul.inputs.div_ceil(self.inputs)
    }

    /// Time, up to a factor: tiles that follow each other, each with its inputs and what does not depend on them (H100, 2026-11).
    fn cost(self, problem: &WarpgroupMatmul) -> u32 {
        let turns = self.tiles(&problem.matmul).div_ceil(problem.matmul.weight.processors);
        turns * (140 + self.inputs) * (2 + self.rowgroups)
    }
}
