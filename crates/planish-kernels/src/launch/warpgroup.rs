//! Products of packed weights with many inputs by the warpgroups of Hopper GPUs. Where rows are too few for all multiprocessors, the
//! columns are shared out too: each part leaves its sums, and a second kernel adds them up.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::arrange::Arrange;
use super::tensor::TensorMatmul;
use super::tiles::TensorWeight;
use super::{File, Launch, ProductBuffer, ProductPlan, ProductStep, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("hopper/warpgroup", "shared/values", "cuda/tiles", "hopper/stages");
const SUM_PARTS: File = kernel_file!("hopper/sum_parts", "shared/values");
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

/// What parts cost beside [`TensorMatmul::column_cost`]: arranging, adding up (4096 x 4096 and 4096 x 14336 on an H100, 2026-11).
const PARTS_COST: u32 = 44_000;

/// Parts of the columns, at most: more sums cost more than they save, even where multiprocessors are left over (H100, 2026-11).
const MOST_PARTS: u32 = 4;
/// With fewer columns there is too little to share out.
const FEWEST_PARTED_COLS: u32 = 4096;
/// Beyond so many inputs there are threadgroups enough.
const MOST_PARTED_INPUTS: u32 = 128;
const SUM_THREADS: u32 = 128;
/// Outputs that a thread sums up.
const SUMS_EACH: u32 = 8;

/// As [`TensorMatmul`], on inputs that [`Arrange`] put in order.
#[derive(Clone, Copy, Debug)]
pub struct WarpgroupMatmul {
    matmul: TensorMatmul,
    /// Of the columns. The order of sums depends on it, so it follows from the weight, and from the number of inputs only where those
    /// are so many that there are no parts.
    parts: u32,
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
    parts: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumPartsProblem {
    rows: u32,
    inputs: u32,
    parts: u32,
}

impl WarpgroupMatmul {
    /// Buffers of [`WarpgroupMatmul::launch`] in order, without parts.
    pub const BUFFERS: [ProductBuffer; 5] = {
        use ProductBuffer::{Added, Arranged, Codes, Output, Scales};
        [Codes, Scales, Arranged, Added, Output]
    };
    /// The same with parts, whose sums go into the last: f32 (parts, inputs, rows).
    pub const PART_BUFFERS: [ProductBuffer; 5] = {
        use ProductBuffer::{Added, Arranged, Codes, Partial, Scales};
        [Codes, Scales, Arranged, Added, Partial]
    };
    /// Buffers of [`WarpgroupMatmul::sum`] in order.
    pub const SUM_BUFFERS: [ProductBuffer; 3] = [ProductBuffer::Partial, ProductBuffer::Added, ProductBuffer::Output];

    /// `None` but for inputs of bf16 (weights are rounded to f16, which shows in outputs of f16) and scales of 16 bits.
    pub fn new(matmul: TensorMatmul) -> Option<WarpgroupMatmul> {
        let fits = matmul.value == FloatType::BF16 && matmul.weight.float_type != FloatType::F32;
        fits.then_some(WarpgroupMatmul {
            parts: parts_for(&matmul.weight, matmul.inputs),
            matmul,
        })
    }

    /// The same with so many parts.
    ///
    /// # Panics
    /// If the columns have not so many stages.
    #[must_use]
    pub fn with_parts(self, parts: u32) -> WarpgroupMatmul {
        assert!(parts > 0 && parts <= self.matmul.weight.cols / COLS);
        WarpgroupMatmul { parts, ..self }
    }

    /// Whether this takes less time than [`TensorMatmul`].
    pub fn is_faster(&self) -> bool {
        let parts_pay = self.parts > 1 && self.matmul.column_cost() > PARTS_COST;
        self.matmul.inputs >= WARPGROUPS_FROM && (parts_pay || !self.matmul.runs_at_once())
    }

    /// What brings the inputs in order.
    pub fn arrange(&self) -> Arrange {
        Arrange {
            span: self.matmul.weight.packing.group().min(COLS as usize) as u32,
            cols: self.matmul.weight.cols,
            inputs: self.matmul.inputs,
        }
    }

    /// All of it.
    pub fn plan(&self) -> ProductPlan {
        let weight = self.matmul.weight;
        let mut steps = vec![
            ProductStep {
                launch: self.arrange().launch(),
                buffers: Arrange::BUFFERS.to_vec(),
            },
            ProductStep {
                launch: self.launch(),
                buffers: self.buffers().to_vec(),
            },
        ];
        steps.extend(self.sum().map(|launch| ProductStep {
            launch,
            buffers: WarpgroupMatmul::SUM_BUFFERS.to_vec(),
        }));
        ProductPlan {
            repack: Some(weight.repack()),
            weight_bytes: vec![weight.tile_bytes(), weight.scale_bytes()],
            arranged_bytes: self.arrange().bytes(),
            partial_bytes: self.partial_bytes(),
            steps,
        }
    }

    /// The launch. Its buffers are [`WarpgroupMatmul::buffers`].
    pub fn launch(&self) -> Launch {
        let TensorMatmul { weight, inputs, .. } = self.matmul;
        let sharing = self.sharing();
        let stages = self.stages(sharing);
        // The units multiply f16, whatever the inputs were.
        let mut defines = weight.defines(FloatType::F16);
        defines.extend([
            ("OUTPUT", value_number(self.left())),
            ("ADDED", u32::from(self.matmul.added && self.parts == 1)),
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
            parts: self.parts,
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "warpgroup_matmul",
            threadgroups: [sharing.tiles(self).min(weight.processors), 1, 1],
            threads: THREADS,
            buffers: self.buffers().len() as u32,
            constants: constants_of(&problem),
            shared_bytes: stages * self.stage_bytes(sharing) + self.result_bytes(sharing),
        }
    }

    /// Buffers of the launch in order.
    pub fn buffers(&self) -> [ProductBuffer; 5] {
        match self.parts {
            1 => WarpgroupMatmul::BUFFERS,
            _ => WarpgroupMatmul::PART_BUFFERS,
        }
    }

    /// Bytes of the parts' sums.
    pub fn partial_bytes(&self) -> usize {
        match self.parts {
            1 => 0,
            parts => parts as usize * self.matmul.inputs as usize * self.matmul.weight.rows as usize * 4,
        }
    }

    /// Adds up the parts' sums, where there are several. Buffers: [`WarpgroupMatmul::SUM_BUFFERS`].
    pub fn sum(&self) -> Option<Launch> {
        let TensorMatmul { weight, inputs, .. } = self.matmul;
        let problem = SumPartsProblem {
            rows: weight.rows,
            inputs,
            parts: self.parts,
        };
        let defines = smallvec![
            ("THREADS", SUM_THREADS),
            ("VALUE", value_number(FloatType::F32)),
            ("OUTPUT", value_number(self.matmul.output)),
            ("ADDED", u32::from(self.matmul.added)),
        ];
        (self.parts > 1).then(|| Launch {
            program: Program {
                file: SUM_PARTS,
                defines,
            },
            kernel: "sum_parts",
            threadgroups: [weight.rows.div_ceil(SUM_THREADS * SUMS_EACH), inputs, 1],
            threads: SUM_THREADS,
            buffers: WarpgroupMatmul::SUM_BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        })
    }

    /// Type of what the launch leaves.
    fn left(&self) -> FloatType {
        if self.parts > 1 {
            FloatType::F32
        } else {
            self.matmul.output
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
        let outputs = match self.left() {
            FloatType::F32 => 0,
            FloatType::F16 | FloatType::BF16 => (ROWS + 8) * 2,
        };
        let partial = (sharing.splits() - 1) * ROWS * 4;
        (outputs + partial) * sharing.inputs * sharing.rowgroups
    }
}

/// As many as give every multiprocessor something to do.
fn parts_for(weight: &TensorWeight, inputs: u32) -> u32 {
    if inputs > MOST_PARTED_INPUTS || weight.cols < FEWEST_PARTED_COLS {
        return 1;
    }
    let row_tiles = weight.rows.div_ceil(2 * ROWS);
    (weight.processors / row_tiles).clamp(1, MOST_PARTS)
}

impl Sharing {
    fn splits(self) -> u32 {
        3 - self.rowgroups
    }

    /// Rows, inputs and part of the columns that a threadgroup computes at once: how many of these.
    fn tiles(self, problem: &WarpgroupMatmul) -> u32 {
        let TensorMatmul { weight, inputs, .. } = problem.matmul;
        weight.rows.div_ceil(ROWS * self.rowgroups) * inputs.div_ceil(self.inputs) * problem.parts
    }

    /// Time, up to a factor: tiles that follow each other, each with its inputs and what does not depend on them (H100, 2026-11).
    fn cost(self, problem: &WarpgroupMatmul) -> u32 {
        let turns = self.tiles(problem).div_ceil(problem.matmul.weight.processors);
        turns * (140 + self.inputs) * (2 + self.rowgroups)
    }
}
