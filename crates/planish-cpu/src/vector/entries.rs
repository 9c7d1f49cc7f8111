//! The entry points: the bodies compiled for each instruction set that they gain by.

use half::f16;

use super::lanes::{Lanes, Portable};
use planish_ops::{Activation, RopePairs};

use super::table::{NormRow, Product, SoftmaxBlock, VectorFunctions};
use super::{ConvolutionRow, ScanRow, StateStep, bodies, states};

/// A module with the bodies compiled for the register of some lanes, and for target features where some are named.
macro_rules! compile_bodies {
    ($module:ident, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            pub(super) const FUNCTIONS: VectorFunctions = VectorFunctions {
                norm_row,
                rotate_head,
                activate,
                softmax_block,
                product_f32,
                product_f16,
                product_i8,
                to_f16,
                to_i8,
                convolve_row,
                step_state,
                scan_row,
            };

            $(#[target_feature(enable = $features)])?
            fn norm_row(row: &mut NormRow<'_>) {
                bodies::norm_row::<{ <$lanes>::FUSED }>(row)
            }

            $(#[target_feature(enable = $features)])?
            fn rotate_head(pairs: RopePairs, head: &mut [f32], angles: &[f32]) {
                bodies::rotate_head(pairs, head, angles)
            }

            $(#[target_feature(enable = $features)])?
            fn activate(activation: Activation, gate: &mut [f32], up: Option<&[f32]>) {
                bodies::activate::<{ <$lanes>::FUSED }>(activation, gate, up)
            }

            $(#[target_feature(enable = $features)])?
            fn softmax_block(block: &mut SoftmaxBlock<'_>) -> f32 {
                bodies::softmax_block::<{ <$lanes>::FUSED }>(block)
            }

            $(#[target_feature(enable = $features)])?
            fn product_f32(product: &mut Product<'_, f32>) {
                // SAFETY: what the lanes need is enabled here.
                unsafe { bodies::product::<$lanes, f32>(product) }
            }

            $(#[target_feature(enable = $features)])?
            fn product_f16(product: &mut Product<'_, f16>) {
                // SAFETY: what the lanes need is enabled here.
                unsafe { bodies::product::<$lanes, f16>(product) }
            }

            $(#[target_feature(enable = $features)])?
            fn product_i8(product: &mut Product<'_, i8>) {
                // SAFETY: what the lanes need is enabled here.
                unsafe { bodies::product::<$lanes, i8>(product) }
            }

            $(#[target_feature(enable = $features)])?
            fn to_f16(values: &[f32], into: &mut [f16]) {
                // SAFETY: what the lanes need is enabled here.
                unsafe { bodies::to_f16::<$lanes>(values, into) }
            }

            $(#[target_feature(enable = $features)])?
            fn to_i8(values: &[f32], inverse: f32, into: &mut [i8]) {
                bodies::to_i8(values, inverse, into)
            }

            $(#[target_feature(enable = $features)])?
            fn convolve_row(row: &mut ConvolutionRow<'_>) {
                states::convolve_row::<{ <$lanes>::FUSED }>(row)
            }

            $(#[target_feature(enable = $features)])?
            fn step_state(step: &mut StateStep<'_>) {
                // SAFETY: what the lanes need is enabled here.
                unsafe { states::step_state::<$lanes>(step) }
            }

            $(#[target_feature(enable = $features)])?
            fn scan_row(row: &mut ScanRow<'_>) {
                states::scan_row::<{ <$lanes>::FUSED }>(row)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compile_bodies!(avx512, crate::vector::x86::Avx512, "avx512f,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
compile_bodies!(avx2, crate::vector::x86::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
compile_bodies!(neon, crate::vector::neon::Neon);
compile_bodies!(portable, Portable);

/// AVX-512F, AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(crate) static AVX512: VectorFunctions = avx512::FUNCTIONS;
/// AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(crate) static AVX2: VectorFunctions = avx2::FUNCTIONS;
/// NEON.
#[cfg(target_arch = "aarch64")]
pub(crate) static NEON: VectorFunctions = neon::FUNCTIONS;
/// What the compiler makes for every processor of the architecture.
pub(crate) static PORTABLE: VectorFunctions = portable::FUNCTIONS;
