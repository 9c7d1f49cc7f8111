//! Codes by the inputs of layers on a GPU: sums of products, factors, rows of codes. What is computed and with which numbers is said by
//! who calls (planish-quantize's `calibrated`). Sums have one order, so that runs are alike.

mod basis;
mod moments;
mod rows;

pub use basis::{BasisPlan, GpuBasis};
pub use moments::GpuMoments;
pub use rows::{CodeValues, FoundRows, RowPlan};
