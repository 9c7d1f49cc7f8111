//! Penalties, biases and masks of logits before a token is chosen.

use bytemuck::{Pod, Zeroable};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file};

const FILE: File = kernel_file!("portable/adjust", "shared/values");
const THREADS: u32 = 256;

/// Changes logits (rows, cols) of f32.
#[derive(Clone, Copy, Debug)]
pub struct Adjust {
    /// Logits of a row.
    pub cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AdjustProblem {
    cols: u32,
    count: u32,
}

impl Adjust {
    /// So many adjustments, none of the same token of a row. Buffers: logits, adjustments (count, 4): row, token, penalty and bias,
    /// these two of f32.
    pub fn adjust(&self, count: u32) -> Launch {
        self.launch("adjust", [count.div_ceil(THREADS), 1], count)
    }

    /// So many masks, each of [`Adjust::mask_words`]. Buffers: logits, masks.
    pub fn mask(&self, masks: u32) -> Launch {
        self.launch("mask", [self.cols.div_ceil(THREADS), masks], self.cols.div_ceil(32))
    }

    /// Words of a mask: the row, then bit `token % 32` of word `token / 32` for each token that may be chosen.
    pub fn mask_words(&self) -> usize {
        1 + (self.cols as usize).div_ceil(32)
    }

    fn launch(&self, kernel: &'static str, grid: [u32; 2], count: u32) -> Launch {
        Launch {
            program: Program {
                file: FILE,
                defines: smallvec![("THREADS", THREADS), ("VALUE", 0)],
            },
            kernel,
            threadgroups: [grid[0], grid[1], 1],
            threads: THREADS,
            buffers: 2,
            constants: constants_of(&AdjustProblem { cols: self.cols, count }),
            shared_bytes: 0,
        }
    }
}
