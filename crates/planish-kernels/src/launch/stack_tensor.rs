//! Many rows through a stack of matrices on CUDA's tensor cores: the products of [`StackMatmul`], and those of gate and up at once.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::Activation;

use super::activation::activation_number;
use super::stack::StackProblem;
use super::{File, Launch, Program, StackInputs, StackMatmul, WeightKind, kernel_file, value_number};

const FILE: File = kernel_file!(
    "cuda/stack_tensor",
    "shared/values",
    "shared/codes",
    "shared/activation",
    "shared/meeting"
);
const THREADS: u32 = 128;
/// That a multiprocessor holds at once, which bounds the registers.
const THREADGROUPS: u32 = 3;
const TILE: u32 = 64;
const STEP: u32 = 64;
const ROWS: u32 = 128;

/// `output = matrix x input + added`; with a second stack `activation(gate) * up`. Buffers: codes, scales, biases of the stack, those
/// of the second one, input of `value`, bias vectors (count, rows) of f32, those of the second stack, the order (entries) of u32, the
/// tiles (tiles, 3) of u32, output of `value`.
#[derive(Clone, Copy, Debug)]
pub struct StackTensor {
    /// The product of the first stack.
    pub product: StackMatmul,
    /// The non-linearity of the first stack's results, which multiplies those of the second; `None` without a second one.
    pub paired: Option<Activation>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct StackTensorProblem {
    stack: StackProblem,
    factors: [f32; 4],
}

impl StackTensor {
    /// Entries of a tile.
    pub const TILE: u32 = TILE;

    /// Whether tensor cores can multiply by such a stack, of so many stored columns, with activations of type `value`.
    pub fn fits(weight: WeightKind, cols: u32, value: FloatType) -> bool {
        let group = |group: usize| group == 32 || group.is_multiple_of(64);
        let kind = match weight.packing {
            Some(packing) => group(packing.group()) && weight.float_type != FloatType::F32,
            None => weight.float_type == value,
        };
        kind && value != FloatType::F32 && cols.is_multiple_of(STEP)
    }

    /// The launch; `None` where the stack does not fit, is turned, or inputs do not lie at multiples of 16 bytes.
    pub fn launch(&self) -> Option<Launch> {
        let StackMatmul {
            weight,
            value,
            rows,
            cols,
            ..
        } = self.product;
        let stack = self.product.problem();
        if self.product.turned || !stack.input_aligned() || !StackTensor::fits(weight, cols, value) {
            return None;
        }
        let (routed, tiles, matrices) = match self.product.meeting {
            StackInputs::Heads { heads, .. } => (0, self.product.inputs.div_ceil(TILE), heads),
            StackInputs::Rows { tiles, .. } => (1, tiles, 1),
            StackInputs::Places { tiles } => (2, tiles, 1),
        };
        let (activation, factors) = activation_number(self.paired.unwrap_or(Activation::Silu));
        let mut defines = vec![
            ("THREADS", THREADS),
            ("THREADGROUPS", THREADGROUPS),
            ("TILE", TILE),
            ("VALUE", value_number(value)),
            ("ADDED", u32::from(self.product.added)),
            ("ROUTED", routed),
            ("PAIRED", u32::from(self.paired.is_some())),
            ("ACTIVATION", activation),
            ("ALIGNED", u32::from(stack.output_aligned() && rows.is_multiple_of(8))),
        ];
        defines.extend(weight.defines());
        let problem = StackTensorProblem { stack, factors };
        let rows_each = if self.paired.is_some() { ROWS / 2 } else { ROWS };
        Some(Launch {
            program: Program { file: FILE, defines },
            kernel: "stack_tensor",
            threadgroups: [rows.div_ceil(rows_each), tiles, matrices],
            threads: THREADS,
            buffers: 12,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: 0,
        })
    }
}
