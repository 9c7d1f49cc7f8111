//! Many rows through a stack of matrices on CUDA's tensor cores: the products of [`StackMatmul`], and those of gate and up at once.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::Activation;
use smallvec::smallvec;

use super::activation::activation_number;
use super::stack::StackProblem;
use super::{
    File, Launch, Program, StackBuffer, StackMatmul, StackRouting, WeightKind, constants_of, kernel_file, value_number,
};

const FILE: File = kernel_file!(
    "cuda/stack_tensor",
    "shared/values",
    "shared/codes",
    "shared/activation",
    "shared/routing"
);
const THREADS: u32 = 128;
/// That a multiprocessor holds at once, which bounds the registers.
const THREADGROUPS: u32 = 3;
const TILE: u32 = 64;
const STEP: u32 = 64;
const ROWS: u32 = 128;

/// `output = matrix x input + added`; with a second stack `activation(gate) * up`. Buffers: [`StackTensor::BUFFERS`].
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

    /// Its buffers in order.
    pub const BUFFERS: [StackBuffer; 12] = {
        use StackBuffer::{
            Added, Biases, Codes, Input, Order, Output, PairedAdded, PairedBiases, PairedCodes, PairedScales, Scales,
            Tiles,
        };
        [
            Codes,
            Scales,
            Biases,
            PairedCodes,
            PairedScales,
            PairedBiases,
            Input,
            Added,
            PairedAdded,
            Order,
            Tiles,
            Output,
        ]
    };

    /// Whether tensor cores can multiply by such a stack, of so many stored columns, with activations of type `value`.
    fn fits(weight: WeightKind, cols: u32, value: FloatType) -> bool {
        let group = |group: usize| group == 32 || group.is_multiple_of(64);
        let kind = match weight.packing {
            Some(packing) => group(packing.group()) && weight.float_type != FloatType::F32,
            None => weight.float_type == value,
        };
        kind && value != FloatType::F32 && cols.is_multiple_of(STEP)
    }

    /// Whether the stack fits, is not transposed, and inputs lie at multiples of 16 bytes.
    pub fn fits_all(&self) -> bool {
        let StackMatmul {
            weight, value, cols, ..
        } = self.product;
        let aligned = !self.product.transposed && self.product.problem().input_aligned();
        aligned && StackTensor::fits(weight, cols, value)
    }

    /// The launch of what fits.
    pub fn launch(&self) -> Launch {
        let StackMatmul {
            weight, value, rows, ..
        } = self.product;
        let stack = self.product.problem();
        let (routed, tiles, matrices) = match self.product.routing {
            StackRouting::Heads { heads, .. } => (0, self.product.inputs.div_ceil(TILE), heads),
            StackRouting::Rows { tiles, .. } => (1, tiles, 1),
            StackRouting::Sorted { tiles } => (2, tiles, 1),
        };
        let (activation, factors) = activation_number(self.paired.unwrap_or(Activation::Silu));
        let mut defines = smallvec![
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
        Launch {
            program: Program { file: FILE, defines },
            kernel: "stack_tensor",
            threadgroups: [rows.div_ceil(rows_each), tiles, matrices],
            threads: THREADS,
            buffers: StackTensor::BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
