//! The operations of models on GPUs: kernels in one text for Metal and CUDA, their launches, and [`GpuOps`], which makes launches
//! of the operations of planish-ops over any [`planish_gpu::Queue`].

#![forbid(unsafe_code)]

pub mod launch;
mod ops;

pub use ops::{
    BasisPlan, CodeValues, FoundRows, GpuBasis, GpuChosen, GpuKeyValues, GpuMoments, GpuOps, GpuStack, GpuTensor,
    GpuWeight, RowPlan,
};
