//! Products of packed weights in the order of tensor cores with many inputs, by mma.sync.

use super::tensor::TensorMatmul;
use super::{File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/tensor_wide", "shared/values", "cuda/tiles");
/// Inputs and rows of a threadgroup.
const WIDE: u32 = 128;
const THREADS: u32 = 128;
/// From so many inputs on this kernel is faster than the one for few, where that does not run at once (14336 x 4096 on an H100, 2026-11).
pub(super) const WIDE_FROM: u32 = 97;

pub(super) fn wide_launch(matmul: &TensorMatmul) -> Launch {
    let mut defines = matmul.weight.defines(matmul.value);
    defines.extend([
        ("OUTPUT", value_number(matmul.output)),
        ("ADDED", u32::from(matmul.added)),
    ]);
    Launch {
        program: Program { file: FILE, defines },
        kernel: "tensor_matmul_wide",
        threadgroups: [matmul.inputs.div_ceil(WIDE), matmul.weight.rows.div_ceil(WIDE), 1],
        threads: THREADS,
        buffers: TensorMatmul::BUFFERS.len() as u32,
        constants: matmul.constants(),
        shared_bytes: 0,
    }
}
