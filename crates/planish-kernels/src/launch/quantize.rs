//! Packing plain weights on the device.

use bytemuck::{Pod, Zeroable};
use planish_format::{Encoder, FloatType, Packing};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/quantize", "shared/values", "shared/reduce", "shared/affine");
const THREADS: u32 = 128;

/// Codes, scales and biases of plain weights, as `planish_format::quantize` makes them. Buffers: plain (rows, cols) of `value`,
/// codes (rows, cols / 8 * bits) bytes, scales and biases (rows, cols / group) of `scale`.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    /// Bits and group.
    pub packing: Packing,
    /// How codes are chosen.
    pub encoder: Encoder,
    /// Type of the plain weights.
    pub value: FloatType,
    /// Type of scales and biases.
    pub scale: FloatType,
    /// Rows.
    pub rows: u32,
    /// Columns, a multiple of the group.
    pub cols: u32,
}

/// Whether some value is NaN or infinite once it is rounded to the type of the scales. Buffers: plain (rows, cols) of `value`, results
/// ([`NonFinite::PARTS`]) of u32: not 0 where a part has found one.
#[derive(Clone, Copy, Debug)]
pub struct NonFinite(pub Quantize);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct QuantizeProblem {
    rows: u32,
    cols: u32,
}

impl NonFinite {
    /// Threadgroups that share the values.
    pub const PARTS: u32 = 256;

    /// The launch.
    pub fn launch(&self) -> Launch {
        let whole = self.0.launch();
        Launch {
            kernel: "find_non_finite",
            threadgroups: [NonFinite::PARTS, 1, 1],
            buffers: 2,
            ..whole
        }
    }
}

impl Quantize {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let encoder = match self.encoder {
            Encoder::Transformers => 0,
            Encoder::MlxCpu => 1,
            Encoder::MlxMetal => 2,
        };
        let group = self.packing.group() as u32;
        let problem = QuantizeProblem {
            rows: self.rows,
            cols: self.cols,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("WEIGHT", value_number(self.scale)),
            ("BITS", self.packing.bits()),
            ("GROUP", group),
            ("ENCODER", encoder),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel: "quantize",
            threadgroups: [self.rows, (self.cols / group).div_ceil(THREADS / 32), 1],
            threads: THREADS,
            buffers: 4,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
