//! Packed weights in the order that CUDA's tensor cores read, made once at load. Narrow and wide products share it.

use bytemuck::{Pod, Zeroable};
use planish_format::{FloatType, Packing};
use smallvec::smallvec;

use super::{Defines, File, Launch, Program, constants_of, kernel_file, value_number};

const REPACK: File = kernel_file!("cuda/repack", "shared/values", "cuda/tiles");
pub(super) const TILE_ROWS: u32 = 16;
pub(super) const TILE_COLS: u32 = 64;
const PROCESSORS: u32 = 132;

/// A packed weight that tensor cores can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorWeight {
    pub(super) packing: Packing,
    pub(super) float_type: FloatType,
    pub(super) rows: u32,
    pub(super) cols: u32,
    /// Multiprocessors that share its rows.
    pub(super) processors: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct TensorProblem {
    pub(super) rows: u32,
    pub(super) cols: u32,
    pub(super) inputs: u32,
}

impl TensorWeight {
    /// `None` where the other kernels must do: groups that are neither 32 nor a multiple of 64, columns that are not a multiple of 64.
    /// Weights with scales of 32 bits are fast with few inputs only.
    pub fn new(packing: Packing, float_type: FloatType, rows: u32, cols: u32) -> Option<TensorWeight> {
        let group = packing.group();
        let fits = (group == 32 || group.is_multiple_of(64)) && cols.is_multiple_of(TILE_COLS);
        fits.then_some(TensorWeight {
            packing,
            float_type,
            rows,
            cols,
            processors: PROCESSORS,
        })
    }

    /// The same for a device of so many multiprocessors (an H100's, unless said).
    #[must_use]
    pub fn shared_by(self, processors: u32) -> TensorWeight {
        TensorWeight { processors, ..self }
    }

    /// Bytes of the tiles.
    pub fn tile_bytes(&self) -> usize {
        self.padded_rows() * self.cols as usize / 8 * self.packing.bits() as usize
    }

    /// Bytes of the tiles' scales and biases, and of a power of two for each row.
    pub fn scale_bytes(&self) -> usize {
        let groups = self.cols as usize / self.packing.group();
        self.padded_rows() * (groups * self.scale_words() as usize + 1) * 4
    }

    /// Words of the scale and bias of a row's group.
    pub(super) fn scale_words(&self) -> u32 {
        if self.float_type == FloatType::F32 { 2 } else { 1 }
    }

    /// Makes the order. Buffers: codes, scales, biases, then tiles ([`TensorWeight::tile_bytes`]) and tile scales
    /// ([`TensorWeight::scale_bytes`]) to fill.
    pub fn repack(&self) -> Launch {
        self.reorder("tensor_repack")
    }

    /// The other way round. Buffers: tiles, tile scales, then codes, scales and biases to fill.
    pub fn restore(&self) -> Launch {
        self.reorder("tensor_restore")
    }

    fn reorder(&self, kernel: &'static str) -> Launch {
        let problem = TensorProblem {
            rows: self.rows,
            cols: self.cols,
            inputs: 0,
        };
        Launch {
            // The type of the inputs changes nothing here.
            program: Program {
                file: REPACK,
                defines: self.defines(FloatType::BF16),
            },
            kernel,
            threadgroups: [self.rows.div_ceil(TILE_ROWS), self.cols / TILE_COLS, 1],
            threads: 32,
            buffers: 5,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }

    fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(TILE_ROWS) as usize
    }

    /// What tiles.metal must know, for inputs of type `value`.
    pub(super) fn defines(&self, value: FloatType) -> Defines {
        smallvec![
            ("VALUE", value_number(value)),
            ("WEIGHT", value_number(self.float_type)),
            ("BITS", self.packing.bits()),
            ("GROUP", self.packing.group() as u32),
        ]
    }
}
