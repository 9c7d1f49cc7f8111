//! Few inputs through a weight, sharing one read of it; or each through the expert it chose.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, ProductBuffer, Program, WeightKind, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/matvec", "shared/values", "shared/codes");
const THREADS: u32 = 64;
const MOST_BATCH: u32 = 8;

/// `output = input x weight^T + added`. Buffers: [`Matvec::BUFFERS`], where that not read is the experts
/// (inputs) of u32.
#[derive(Clone, Copy, Debug)]
pub struct Matvec {
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
    /// Rows of the output. Of the input too, without `experts`.
    pub inputs: u32,
    /// Whether the layer has a bias vector.
    pub added: bool,
    /// The weight is a stack of experts; output row i takes number `experts[i]` and input row `i / repeat`.
    pub experts: Option<Repeat>,
}

/// So many output rows in a row read the same input row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat(pub u32);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MatvecProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
    input_repeat: u32,
}

impl Matvec {
    /// Up to so many inputs reading the weight again for every few of them is faster than [`super::Matmul`].
    pub const MOST_INPUTS: u32 = 8;

    /// Its buffers in order.
    pub const BUFFERS: [ProductBuffer; 7] = {
        use ProductBuffer::{Added, Biases, Codes, Input, Nothing, Output, Scales};
        [Codes, Scales, Biases, Input, Added, Nothing, Output]
    };

    /// The launch.
    pub fn launch(&self) -> Launch {
        let batch = match self.experts {
            Some(_) => 1,
            None => self.inputs.next_power_of_two().min(MOST_BATCH),
        };
        // Fewer rows a simdgroup where there would be too few simdgroups to keep memory busy.
        let rows_each = if self.rows < 8192 { 2 } else { 4 };
        let mut defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("OUTPUT", value_number(self.output)),
            ("ROWS_EACH", rows_each),
            ("BATCH", batch),
            ("WHOLE", u32::from(self.cols.is_multiple_of(32))),
            ("ADDED", u32::from(self.added)),
            ("GATHER", u32::from(self.experts.is_some())),
        ];
        defines.extend(self.weight.defines());
        let problem = MatvecProblem {
            rows: self.rows,
            cols: self.cols,
            inputs: self.inputs,
            input_repeat: self.experts.map_or(1, |Repeat(repeat)| repeat),
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "matvec",
            threadgroups: [
                self.rows.div_ceil(rows_each * (THREADS / 32)),
                self.inputs.div_ceil(batch),
                1,
            ],
            threads: THREADS,
            buffers: Matvec::BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
