//! Many inputs through a weight, with matrix units.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, ProductBuffer, Program, WeightKind, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/matmul", "shared/values", "shared/codes");
const THREADS: u32 = 128;
const TILE: u32 = 32;

/// `output = input x weight^T + added`. Buffers: [`Matmul::BUFFERS`].
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    /// The weight.
    pub weight: WeightKind,
    /// Type of the input.
    pub value: FloatType,
    /// Type of the output.
    pub output: FloatType,
    /// Output features.
    pub rows: u32,
    /// Input features.
    pub cols: u32,
    /// Rows of input and output.
    pub inputs: u32,
    /// Whether the layer has a bias vector.
    pub added: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MatmulProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
}

impl Matmul {
    /// Its buffers in order.
    pub const BUFFERS: [ProductBuffer; 6] = {
        use ProductBuffer::{Added, Biases, Codes, Input, Output, Scales};
        [Codes, Scales, Biases, Input, Added, Output]
    };

    /// The launch.
    pub fn launch(&self) -> Launch {
        let mut defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("OUTPUT", value_number(self.output)),
            ("ALIGNED", u32::from(self.cols.is_multiple_of(8))),
            ("ADDED", u32::from(self.added)),
        ];
        defines.extend(self.weight.defines());
        let problem = MatmulProblem {
            rows: self.rows,
            cols: self.cols,
            inputs: self.inputs,
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "matmul",
            threadgroups: [self.rows.div_ceil(TILE), self.inputs.div_ceil(TILE), 1],
            threads: THREADS,
            buffers: Matmul::BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
