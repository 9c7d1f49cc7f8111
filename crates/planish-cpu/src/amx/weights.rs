//! Weights as the tile unit wants its first factor, unpacked row by row: (steps of 32 columns, 2, 16 rows, 32) in bf16.
//!
//! A group has few different weights: up to 6 bits they are computed once for each row, `scale * code + bias` rounded to bf16,
//! and looked up by code, 32 at a time. 8-bit codes are computed one by one.

use std::arch::x86_64::*;

use planish_format::PackedMatrix;

use crate::avx512::lanes::load_floats;
use crate::avx512::tile::{Part, ROWS};
use crate::avx512::unpack::byte_mask;

use super::unit::{TILE_COLS, TILE_ROWS};

/// Unpacks 32 rows of some groups (whole steps of columns) into `into`; rows beyond the last are copies of it.
///
/// # Safety
/// The part must be in the matrix, whose lengths were checked; the machine must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
pub(super) unsafe fn unpack<const BITS: u32>(matrix: &PackedMatrix, part: &Part, into: &mut [u16]) {
    let (group, groups) = (matrix.packing.group(), matrix.cols / matrix.packing.group());
    let row_bytes = matrix.cols / 8 * BITS as usize;
    let group_bytes = group / 8 * BITS as usize;
    assert!(into.len() >= part.groups.len() * group * ROWS && group.is_multiple_of(TILE_COLS));
    for row in 0..ROWS {
        let at = part.row(row);
        for first in part.groups.clone().step_by(16) {
            let here = (part.groups.end - first).min(16);
            let (mut scales, mut biases) = ([0.0f32; 16], [0.0f32; 16]);
            for (data, values) in [(&matrix.scales, &mut scales), (&matrix.biases, &mut biases)] {
                let index = at * groups + first;
                // SAFETY: row and groups are in the matrix; 16 floats. Those of the next tile are only fetched.
                unsafe {
                    let next = (index + ROWS * groups) * matrix.scale_type.size_bytes();
                    _mm_prefetch::<_MM_HINT_T1>(data.as_ptr().wrapping_add(next).cast());
                    _mm512_storeu_ps(values.as_mut_ptr(), load_floats(data, matrix.scale_type, index, here));
                }
            }
            for (index, (&scale, &bias)) in scales.iter().zip(&biases).enumerate().take(here) {
                let weights = Weights::new::<BITS>(scale, bias);
                let codes = at * row_bytes + (first + index) * group_bytes;
                let column = (first - part.groups.start + index) * group;
                for step in 0..group / TILE_COLS {
                    // SAFETY: the group's codes are in the matrix, its columns in `into` by the assertion.
                    unsafe {
                        let codes = matrix.codes.as_ptr().add(codes + step * 4 * BITS as usize);
                        // The same place of the next tile.
                        _mm_prefetch::<_MM_HINT_T1>(codes.wrapping_add(ROWS * row_bytes).cast());
                        let place = (column / TILE_COLS + step) * ROWS + row / TILE_ROWS * TILE_ROWS + row % TILE_ROWS;
                        let into = into.as_mut_ptr().add(place * TILE_COLS);
                        _mm512_storeu_si512(into.cast(), weights.thirty_two::<BITS>(codes));
                    }
                }
            }
        }
    }
}

/// The weights of one row in one group.
struct Weights {
    scale: __m512,
    bias: __m512,
    /// By the lowest 5 bits of the code, in bf16. Codes of fewer bits repeat: what stands above them does not matter.
    low: __m512i,
    /// For 6 bits: where bit 5 is set.
    high: __m512i,
}

impl Weights {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn new<const BITS: u32>(scale: f32, bias: f32) -> Weights {
        let (scale, bias) = (_mm512_set1_ps(scale), _mm512_set1_ps(bias));
        let mask = _mm512_set1_epi32(((1u32 << BITS) - 1) as i32);
        let sixteen = |first: i32| {
            let count = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let codes = _mm512_and_si512(_mm512_add_epi32(count, _mm512_set1_epi32(first)), mask);
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), scale, bias)
        };
        let zero = _mm512_setzero_si512();
        let (low, high) = match BITS {
            8 => (zero, zero),
            // All codes are among 16.
            2..=4 => {
                // SAFETY: the registers are 32 bytes of plain numbers.
                let half: __m256i = unsafe { std::mem::transmute(_mm512_cvtneps_pbh(sixteen(0))) };
                (_mm512_broadcast_i64x4(half), zero)
            }
            5 => (rounded(sixteen(0), sixteen(16)), zero),
            _ => (rounded(sixteen(0), sixteen(16)), rounded(sixteen(32), sixteen(48))),
        };
        Weights { scale, bias, low, high }
    }

    /// The weights of 32 codes.
    ///
    /// # Safety
    /// `codes` must have 4 * BITS bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512bf16")]
    unsafe fn thirty_two<const BITS: u32>(&self, codes: *const u8) -> __m512i {
        // SAFETY: as many bytes are read as the caller vouches for.
        unsafe {
            match BITS {
                2 => {
                    let fours = _mm512_cvtepu8_epi64(_mm_loadl_epi64(codes.cast()));
                    // Bytes 0, 2, 4 and 6 of a quarter begin with bits 0, 2, 4 and 6.
                    let starts = _mm512_set1_epi64(0x0006_0004_0002_0000);
                    _mm512_permutexvar_epi16(_mm512_multishift_epi64_epi8(starts, fours), self.low)
                }
                4 => {
                    let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
                    let codes = _mm512_or_si512(pairs, _mm512_slli_epi32::<12>(pairs));
                    _mm512_permutexvar_epi16(codes, self.low)
                }
                8 => {
                    let sixteen = |at: usize| {
                        let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.add(at).cast()));
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), self.scale, self.bias)
                    };
                    rounded(sixteen(0), sixteen(16))
                }
                _ => {
                    let (bytes, shifts) = windows::<BITS>();
                    let packed = _mm512_maskz_loadu_epi8(byte_mask(4 * BITS as usize), codes.cast());
                    let codes = _mm512_srlv_epi16(_mm512_permutexvar_epi8(bytes, packed), shifts);
                    match BITS {
                        6 => _mm512_permutex2var_epi16(self.low, codes, self.high),
                        _ => _mm512_permutexvar_epi16(codes, self.low),
                    }
                }
            }
        }
    }
}

/// 32 values in bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(first: __m512, second: __m512) -> __m512i {
    // SAFETY: the registers are 64 bytes of plain numbers.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(second, first)) }
}

/// For 32 codes of 3, 5 or 6 bits: the two bytes that hold each, and how far to shift them down.
struct Windows {
    bytes: [u8; 64],
    shifts: [u16; 32],
}

impl Windows {
    const fn new(bits: usize) -> Windows {
        let mut windows = Windows {
            bytes: [0; 64],
            shifts: [0; 32],
        };
        let mut code = 0;
        while code < 32 {
            let bit = code * bits;
            windows.bytes[2 * code] = (bit / 8) as u8;
            windows.bytes[2 * code + 1] = (bit / 8 + 1) as u8;
            windows.shifts[code] = (bit % 8) as u16;
            code += 1;
        }
        windows
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn windows<const BITS: u32>() -> (__m512i, __m512i) {
    let windows = const { &Windows::new(BITS as usize) };
    // SAFETY: both are 64 bytes.
    unsafe {
        (
            _mm512_loadu_si512(windows.bytes.as_ptr().cast()),
            _mm512_loadu_si512(windows.shifts.as_ptr().cast()),
        )
    }
}
