//! Inputs in the type and order that warpgroups read, made anew for every product (or once for products that share them).

use bytemuck::{Pod, Zeroable};
use smallvec::smallvec;

use super::{File, Launch, ProductBuffer, Program, constants_of, kernel_file};

const FILE: File = kernel_file!("hopper/arrange", "shared/values", "cuda/tiles", "shared/reduce");
const THREADS: u32 = 512;
/// Inputs come in multiples of this.
const BLOCK: u32 = 8;

/// Inputs (inputs, cols) of bf16. Buffers: [`Arrange::BUFFERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrange {
    /// Columns of a tile that share a scale: the order depends on it.
    pub(super) span: u32,
    /// A multiple of 64.
    pub(super) cols: u32,
    pub(super) inputs: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ArrangeProblem {
    cols: u32,
    padded: u32,
}

impl Arrange {
    /// Its buffers in order.
    pub const BUFFERS: [ProductBuffer; 2] = [ProductBuffer::Input, ProductBuffer::Arranged];

    /// Bytes of the arranged inputs: f16, and an f32 for each.
    pub fn bytes(&self) -> usize {
        self.padded() as usize * (self.cols as usize * 2 + 4)
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = ArrangeProblem {
            cols: self.cols,
            padded: self.padded(),
        };
        // Of the weight's packing only the order of its columns says something here.
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", 2),
            ("WEIGHT", 2),
            ("BITS", 4),
            ("GROUP", self.span),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel: "arrange_inputs",
            threadgroups: [self.inputs, 1, 1],
            threads: THREADS,
            buffers: Arrange::BUFFERS.len() as u32,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }

    /// Inputs that there is room for.
    pub(super) fn padded(&self) -> u32 {
        self.inputs.next_multiple_of(BLOCK)
    }
}
