//! Registers of NEON (4 values).

use std::arch::aarch64::*;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::lanes::Lanes;

/// NEON, which every AArch64 processor has.
pub(crate) struct Neon;

impl Lanes for Neon {
    type Register = float32x4_t;
    const COUNT: usize = 4;
    const TILE: usize = 4;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn load(values: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(values) }
    }

    #[inline(always)]
    unsafe fn load_half(values: *const f16) -> float32x4_t {
        let mut floats = [0.0f32; 4];
        // SAFETY: the caller's promise.
        unsafe {
            values
                .cast::<[f16; 4]>()
                .read_unaligned()
                .convert_to_f32_slice(&mut floats);
            vld1q_f32(floats.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(values: *const i8) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe {
            let codes = vcreate_s8(u64::from(values.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(codes))))
        }
    }

    #[inline(always)]
    unsafe fn store(values: *mut f32, register: float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(values, register) }
    }

    #[inline(always)]
    unsafe fn store_half(values: *mut f16, register: float32x4_t) {
        let (mut floats, mut halves) = ([0.0f32; 4], [f16::ZERO; 4]);
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(floats.as_mut_ptr(), register);
            halves.convert_from_f32_slice(&floats);
            values.cast::<[f16; 4]>().write_unaligned(halves);
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vfmaq_f32(c, a, b) }
    }
}
