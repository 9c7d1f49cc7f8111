//! Hand-written SIMD kernels for packed weights, chosen at run time from one table.
