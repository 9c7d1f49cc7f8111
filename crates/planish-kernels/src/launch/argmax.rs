//! The token with the largest logit.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/sample", "shared/values");
const THREADS: u32 = 256;
pub(super) const PARTS: u32 = 64;
/// What stands for a token where no logit is a number.
pub const NO_TOKEN: u32 = u32::MAX;

/// `tokens[row]` = index of the largest of `logits[row]`, the lowest among equals; [`NO_TOKEN`] where that is not finite. Two
/// launches, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Argmax {
    /// Type of the logits.
    pub value: FloatType,
    /// Rows.
    pub rows: u32,
    /// Logits of a row.
    pub cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ArgmaxProblem {
    cols: u32,
}

impl Argmax {
    /// Buffers: logits (rows, cols) of `value`, then two of [`Argmax::part_bytes`] each.
    pub fn parts(&self) -> Launch {
        self.launch("argmax_parts", PARTS, 3)
    }

    /// Buffers: the two of the parts, settings ([`super::settings_of`]), tokens (rows) and tokens (slots) of u32.
    pub fn tokens(&self) -> Launch {
        self.launch("argmax", 1, 5)
    }

    /// Bytes of the values, or the indices, of the parts.
    pub fn part_bytes(&self) -> usize {
        self.rows as usize * PARTS as usize * 4
    }

    fn launch(&self, kernel: &'static str, parts: u32, buffers: u32) -> Launch {
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("PARTS", PARTS),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [self.rows, parts, 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&ArgmaxProblem { cols: self.cols }),
            shared_bytes: 0,
        }
    }
}
