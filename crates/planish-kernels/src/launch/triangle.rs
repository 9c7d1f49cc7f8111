//! Blocks on the diagonal of triangular factors.

use bytemuck::{Pod, Zeroable};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file};

const FILE: File = kernel_file!("cuda/triangle");
const THREADS: u32 = 256;

/// The factor of a block on the diagonal and its inverse. Buffers: values (size, size) of f32, inverses (blocks, 64, 64) of f32, a u32 that
/// becomes 1 where the matrix is not positive definite.
#[derive(Clone, Copy, Debug)]
pub struct FactorBlock {
    /// Rows and columns of the matrix.
    pub size: u32,
    /// Where the block begins.
    pub first: u32,
}

/// Puts the inverses of blocks where that of the whole has them. Buffers: inverses (blocks, 64, 64), to (size, size), all f32.
#[derive(Clone, Copy, Debug)]
pub struct PlaceBlocks {
    /// Rows and columns of the matrix.
    pub size: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BlockProblem {
    size: u32,
    first: u32,
}

impl FactorBlock {
    /// Rows and columns of a block.
    pub const SIZE: u32 = 64;

    /// The launch.
    pub fn launch(&self) -> Launch {
        launch("factor_block", 1, 3, self.size, self.first)
    }
}

impl PlaceBlocks {
    /// The launch.
    pub fn launch(&self) -> Launch {
        launch("place_blocks", self.size.div_ceil(FactorBlock::SIZE), 2, self.size, 0)
    }
}

fn launch(kernel: &'static str, threadgroups: u32, buffers: u32, size: u32, first: u32) -> Launch {
    Launch {
        program: Program {
            file: FILE,
            defines: smallvec![("THREADS", THREADS)],
        },
        kernel,
        threadgroups: [threadgroups, 1, 1],
        threads: THREADS,
        buffers,
        constants: constants_of(&BlockProblem { size, first }),
        shared_bytes: 0,
    }
}
