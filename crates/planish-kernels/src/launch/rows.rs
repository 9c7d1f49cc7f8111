//! Rows of a weight as values: embedding, dequantizing.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, WeightKind, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/rows", "shared/values", "shared/codes");
const THREADS: u32 = 64;
const COLS_EACH: u32 = 8;

/// Rows of a weight.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The weight.
    pub weight: WeightKind,
    /// Type of the output.
    pub value: FloatType,
    /// Rows of the weight.
    pub rows: u32,
    /// Its columns.
    pub cols: u32,
    /// Multiplies the values.
    pub factor: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RowsProblem {
    rows: u32,
    cols: u32,
    factor: f32,
    offset: u32,
}

impl Rows {
    /// `output[i] = factor * weight[tokens[i]]`. Buffers: codes, scales, biases, tokens (count) of u32, output (count, cols) of
    /// `value`.
    pub fn embed(&self, count: u32) -> Launch {
        self.launch("embed", count, 5, 0)
    }

    /// As [`Rows::embed`], of tokens of which [`super::NO_TOKEN`] is the one that was chosen for the row's sequence. Buffers: codes,
    /// scales, biases, tokens (count) of u32, places (count, 4) of u32, chosen (slots) of u32, output (count, cols) of `value`.
    pub fn embed_chosen(&self, count: u32) -> Launch {
        self.launch("embed_chosen", count, 7, 0)
    }

    /// As [`Rows::embed`], of the rows' positions, the first at row `offset`. Buffers: codes, scales, biases, places (count, 4) of u32,
    /// output (count, cols) of `value`.
    pub fn embed_positions(&self, count: u32, offset: u32) -> Launch {
        self.launch("embed_positions", count, 5, offset)
    }

    /// All rows in order. Buffers: codes, scales, biases, output (rows, cols) of `value`.
    pub fn dequantize(&self) -> Launch {
        self.launch("dequantize", self.rows, 4, 0)
    }

    fn launch(&self, kernel: &'static str, count: u32, buffers: u32, offset: u32) -> Launch {
        let mut defines = smallvec![("THREADS", THREADS), ("VALUE", value_number(self.value))];
        defines.extend(self.weight.defines());
        let problem = RowsProblem {
            rows: self.rows,
            cols: self.cols,
            factor: self.factor,
            offset,
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [count, self.cols.div_ceil(COLS_EACH * THREADS), 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
