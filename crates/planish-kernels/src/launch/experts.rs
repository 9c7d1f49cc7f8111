//! Routed experts: few rows through the weights of their experts, and sums over experts.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::Activation;
use smallvec::smallvec;

use super::activation::activation_number;
use super::{Constants, File, Launch, Program, WeightKind, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!(
    "portable/experts",
    "shared/values",
    "shared/codes",
    "shared/chunk",
    "shared/activation"
);
const INNER_THREADS: u32 = 64;
const INNER_ROWS: u32 = 2; // of a simdgroup
const OUTER_THREADS: u32 = 128;
const OUTER_ROWS: u32 = 4; // of a threadgroup
const SUM_THREADS: u32 = 128;

/// `inner[entry] = activation(gate(x)) * up(x)` by the entry's expert, or `activation(up(x))`. Buffers: codes, scales, biases of the
/// gate's stack, those of up's, input (rows, cols) of `value`, bias vectors of gate and up (experts, inner) of f32, the chosen
/// (entries) of u32, output (entries, inner) of `value`, weights (entries) of f32.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsInner {
    /// Both stacks.
    pub weight: WeightKind,
    /// Type of input and output.
    pub value: FloatType,
    /// Rows of the matrices.
    pub inner: u32,
    /// Columns of the matrices.
    pub cols: u32,
    /// Choices of all rows.
    pub entries: u32,
    /// Choices of a row.
    pub chosen: u32,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether there are bias vectors.
    pub added: bool,
    /// Whether the gate's products are multiplied by the entries' weights.
    pub weighed: bool,
    /// The non-linearity.
    pub activation: Activation,
}

/// What a sum over experts begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumBase {
    /// Nothing.
    Zero,
    /// What the output holds.
    Output,
    /// That, times the logistic function of a value for each row.
    Gated,
}

/// `output[row] = base + sum over its entries of weight * down(inner[entry])`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsOuter {
    /// The stack; for sums of products that are there already it does not matter.
    pub weight: WeightKind,
    /// Type of input and output.
    pub value: FloatType,
    /// Rows of the matrices.
    pub hidden: u32,
    /// Columns of the matrices.
    pub cols: u32,
    /// Rows of the output.
    pub rows: u32,
    /// Choices of a row.
    pub chosen: u32,
    /// Whether there are bias vectors.
    pub added: bool,
    /// What the sum begins with.
    pub base: SumBase,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InnerProblem {
    rows: u32,
    cols: u32,
    chosen: u32,
    factors: [f32; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct OuterProblem {
    rows: u32,
    cols: u32,
    chosen: u32,
}

/// What all kernels of the file need.
struct Common {
    weight: WeightKind,
    value: FloatType,
    threads: u32,
    rows_each: u32,
    cols: u32,
    added: bool,
}

impl Common {
    fn program(&self, own: [(&'static str, u32); 4]) -> Program {
        let mut defines = smallvec![
            ("THREADS", self.threads),
            ("ROWS_EACH", self.rows_each),
            ("VALUE", value_number(self.value)),
            ("WHOLE", u32::from(self.cols.is_multiple_of(32))),
            ("ADDED", u32::from(self.added)),
        ];
        defines.extend(self.weight.defines());
        defines.extend(own);
        Program { file: FILE, defines }
    }
}

impl ExpertsInner {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let (activation, factors) = activation_number(self.activation);
        let problem = InnerProblem {
            rows: self.inner,
            cols: self.cols,
            chosen: self.chosen,
            factors,
        };
        let common = Common {
            weight: self.weight,
            value: self.value,
            threads: INNER_THREADS,
            rows_each: INNER_ROWS,
            cols: self.cols,
            added: self.added,
        };
        let own = [
            ("GATED", u32::from(self.gated)),
            ("ACTIVATION", activation),
            ("BASE", 0),
            ("WEIGHED", u32::from(self.weighed)),
        ];
        Launch {
            program: common.program(own),
            kernel: "experts_inner",
            threadgroups: [self.inner.div_ceil(INNER_ROWS * INNER_THREADS / 32), self.entries, 1],
            threads: INNER_THREADS,
            buffers: 12,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl ExpertsOuter {
    /// Products and sum. Buffers: codes, scales, biases, input (rows * chosen, cols) of `value`, bias vectors (experts, hidden) of
    /// f32, the chosen (rows, chosen) of u32, their weights (rows, chosen) of f32, the base's gate (rows) of `value`, output (rows,
    /// hidden) of `value`.
    pub fn launch(&self) -> Launch {
        Launch {
            program: self.program(OUTER_THREADS),
            kernel: "experts_outer",
            threadgroups: [self.hidden.div_ceil(OUTER_ROWS), self.rows, 1],
            threads: OUTER_THREADS,
            buffers: 9,
            constants: self.constants(),
            shared_bytes: 0,
        }
    }

    /// The sum of products (rows * chosen, hidden) that are there already. Buffers: these, weights (rows, chosen) of f32, the base's
    /// gate (rows) of `value`, output (rows, hidden) of `value`.
    pub fn sum(&self) -> Launch {
        Launch {
            program: self.program(SUM_THREADS),
            kernel: "experts_sum",
            threadgroups: [self.hidden.div_ceil(SUM_THREADS), self.rows, 1],
            threads: SUM_THREADS,
            buffers: 4,
            constants: self.constants(),
            shared_bytes: 0,
        }
    }

    fn constants(&self) -> Constants {
        let problem = OuterProblem {
            rows: self.hidden,
            cols: self.cols,
            chosen: self.chosen,
        };
        constants_of(&problem)
    }

    fn program(&self, threads: u32) -> Program {
        let common = Common {
            weight: self.weight,
            value: self.value,
            threads,
            rows_each: OUTER_ROWS,
            cols: self.cols,
            added: self.added,
        };
        let base = match self.base {
            SumBase::Zero => 0,
            SumBase::Output => 1,
            SumBase::Gated => 2,
        };
        common.program([("GATED", 0), ("ACTIVATION", 0), ("BASE", base), ("WEIGHED", 0)])
    }
}
