//! Weighted sums of parts of rows, and rows that are measured and changed as a whole.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const MIX: File = kernel_file!("portable/mix", "shared/values");
const CUT: File = kernel_file!("portable/cut", "shared/values", "shared/reduce");
const THREADS: u32 = 128;
/// Threads of a row that is measured.
const ROW_THREADS: u32 = 256;

/// `target[b] (+)= sum over a of factors[b, a] * source[a]`. Buffers: factors (rows, parts, inputs) of f32, source (rows, inputs * width)
/// and target (rows, target_cols) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Type of the values.
    pub value: FloatType,
    /// Rows to compute.
    pub rows: u32,
    /// Values of a part.
    pub width: u32,
    /// Parts of a row of the source.
    pub inputs: u32,
    /// Columns of the target.
    pub target_cols: u32,
    /// First part that is written.
    pub first_part: u32,
    /// How many are.
    pub parts: u32,
    /// Whether there are factors; without, all are 1.
    pub weighed: bool,
    /// Whether sums are added to what is there.
    pub adds: bool,
}

/// `max(x - mean - deviations * deviation, 0)` of every row. Buffers: values (rows, cols) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Type of the values.
    pub value: FloatType,
    /// How many rows.
    pub rows: u32,
    /// Values of a row.
    pub cols: u32,
    /// Where values begin to count.
    pub deviations: f32,
}

/// Rows brought to the magnitude of others. Buffers: values and like (rows, cols) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Rescale {
    /// Type of the values.
    pub value: FloatType,
    /// How many rows.
    pub rows: u32,
    /// Values of a row.
    pub cols: u32,
    /// The least mean square that is divided by.
    pub floor: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MixProblem {
    width: u32,
    inputs: u32,
    target_cols: u32,
    first_part: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CutProblem {
    cols: u32,
    number: f32,
}

impl Mix {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = MixProblem {
            width: self.width,
            inputs: self.inputs,
            target_cols: self.target_cols,
            first_part: self.first_part,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("WEIGHED", u32::from(self.weighed)),
            ("ADDS", u32::from(self.adds)),
        ];
        Launch {
            program: Program { file: MIX, defines },
            kernel: "mix",
            threadgroups: [self.width.div_ceil(THREADS), self.parts, self.rows],
            threads: THREADS,
            buffers: 3,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl Cut {
    /// The launch.
    pub fn launch(&self) -> Launch {
        of_rows("cut", self.value, (self.rows, self.cols), (1, self.deviations))
    }
}

impl Rescale {
    /// The launch.
    pub fn launch(&self) -> Launch {
        of_rows("rescale", self.value, (self.rows, self.cols), (2, self.floor))
    }
}

fn of_rows(kernel: &'static str, value: FloatType, (rows, cols): (u32, u32), (buffers, number): (u32, f32)) -> Launch {
    let defines = smallvec![("THREADS", ROW_THREADS), ("VALUE", value_number(value))];
    Launch {
        program: Program { file: CUT, defines },
        kernel,
        threadgroups: [rows, 1, 1],
        threads: ROW_THREADS,
        buffers,
        constants: constants_of(&CutProblem { cols, number }),
        shared_bytes: 0,
    }
}
