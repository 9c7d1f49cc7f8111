//! Registers of AVX2 (8 values) and AVX-512 (16 values).

use std::arch::x86_64::*;

use half::f16;

use super::lanes::Lanes;

/// AVX2, FMA and F16C.
pub(crate) struct Avx2;

impl Lanes for Avx2 {
    type Register = __m256;
    const COUNT: usize = 8;
    const TILE: usize = 2;
    const FUSED: bool = true;

    #[inline(always)]
    fn prefetch<T>(address: *const T) {
        // SAFETY: a prefetch of any address is harmless, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn load_half(values: *const f16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(values.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bytes(values: *const i8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(values.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(values: *mut f32, register: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(values, register) }
    }

    #[inline(always)]
    unsafe fn store_half(values: *mut f16, register: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(values.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(register)) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
}

/// AVX-512F.
pub(crate) struct Avx512;

impl Lanes for Avx512 {
    type Register = __m512;
    const COUNT: usize = 16;
    const TILE: usize = 4;
    const FUSED: bool = true;

    #[inline(always)]
    fn prefetch<T>(address: *const T) {
        // SAFETY: a prefetch of any address is harmless, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn load_half(values: *const f16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bytes(values: *const i8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(values.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(values: *mut f32, register: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(values, register) }
    }

    #[inline(always)]
    unsafe fn store_half(values: *mut f16, register: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(values.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(register)) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}
