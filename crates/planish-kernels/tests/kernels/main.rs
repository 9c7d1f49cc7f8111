//! The text of the GPU kernels, compiled for the CPU and compared with the f64 references: every kernel, width and type at odd
//! shapes, once under the address and undefined-behaviour sanitizers and once under the race detector.

mod adjust;
mod argmax;
mod attention;
mod attention_tiles;
mod calibrated;
mod choose;
mod compilers;
mod data;
mod device;
mod elementwise;
mod emulator;
mod experts;
mod faults;
mod matmul;
mod matvec;
mod mix;
mod multiply;
mod norm;
mod places;
mod products;
mod quantize;
mod rope;
mod route;
mod rows;
mod search;
mod stack;
mod stack_tensor;
mod states;
mod tensor;
mod tensor_attention;
mod warpgroup;
