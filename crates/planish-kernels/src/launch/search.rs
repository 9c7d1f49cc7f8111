//! Packing plain weights by search.

use bytemuck::{Pod, Zeroable};
use planish_format::{FloatType, Packing};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/search", "shared/values", "shared/affine", "shared/search");
const THREADS: u32 = 128;

/// Codes, scales and biases of plain weights, as planish-format's search finds them. Buffers: plain (rows, cols) of `value`, importance
/// (cols) of f32, codes (rows, cols / 8 * bits) bytes, scales and biases (rows, cols / group) of `scale`.
#[derive(Clone, Copy, Debug)]
pub struct SearchGroups {
    /// Bits and group; the group at most [`SearchGroups::MOST_GROUP`].
    pub packing: Packing,
    /// Type of the plain weights.
    pub value: FloatType,
    /// Type of scales and biases.
    pub scale: FloatType,
    /// Rows.
    pub rows: u32,
    /// Columns, a multiple of the group.
    pub cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SearchProblem {
    groups: u32,
    row_groups: u32,
}

impl SearchGroups {
    /// The largest group whose weights lanes hold in registers.
    pub const MOST_GROUP: usize = 256;

    /// The launch.
    pub fn launch(&self) -> Launch {
        let group = self.packing.group() as u32;
        let row_groups = self.cols / group;
        let problem = SearchProblem {
            groups: self.rows * row_groups,
            row_groups,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("WEIGHT", value_number(self.scale)),
            ("BITS", self.packing.bits()),
            ("GROUP", group),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel: "search_groups",
            threadgroups: [problem.groups.div_ceil(THREADS / 16), 1, 1],
            threads: THREADS,
            buffers: 5,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
