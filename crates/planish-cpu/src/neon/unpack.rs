//! Codes to bytes, 16 at a time in their natural order, without reading beyond them.
//!
//! | bits | bytes of 16 codes | method |
//! |---|---|---|
//! | 2 | 4 | each byte four times, shifted |
//! | 3, 5, 6 | 6, 10, 12 | the byte where a code starts and the next one, shifted towards each other |
//! | 4 | 8 | each byte into 16 bits, its upper half shifted to the upper byte |
//! | 8 | 16 | as they are |

use std::arch::aarch64::*;

use planish_format::PackedMatrix;

/// Rows that a source of codes gives access to.
pub(super) const ROWS: usize = 4;

/// Four rows of codes. Columns count from the first one of the source.
///
/// # Safety
/// Of all methods: `row` is below 4, and the source has the columns.
pub(super) trait Codes: Copy {
    /// Codes of 16 columns.
    unsafe fn sixteen(self, row: usize, col: usize) -> uint8x16_t;
    /// Codes of 8 columns, then zeros.
    unsafe fn eight(self, row: usize, col: usize) -> uint8x16_t;
}

/// What is taken from codes of 8 bits so that they are signed bytes.
pub(super) const fn signed_offset(bits: u32) -> u8 {
    if bits == 8 { 128 } else { 0 }
}

/// Codes in a packed matrix. SIGNED: as signed bytes, less `signed_offset`.
#[derive(Clone, Copy)]
pub(super) struct Packed<const BITS: u32, const SIGNED: bool> {
    rows: [*const u8; ROWS],
}

impl<const BITS: u32, const SIGNED: bool> Packed<BITS, SIGNED> {
    /// Rows from `row` on, from column `col` (a multiple of 8) on; rows after `last` are copies of it.
    pub fn new(matrix: &PackedMatrix, row: usize, last: usize, col: usize) -> Self {
        let at = |part: usize| ((row + part).min(last) * matrix.cols + col) / 8 * BITS as usize;
        Packed {
            rows: std::array::from_fn(|part| matrix.codes[at(part)..].as_ptr()),
        }
    }
}

impl<const BITS: u32, const SIGNED: bool> Codes for Packed<BITS, SIGNED> {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sixteen(self, row: usize, col: usize) -> uint8x16_t {
        // SAFETY: the matrix has the codes by the contract, and no more than their bytes are read.
        let packed = unsafe { load_sixteen::<BITS>(self.rows[row].add(col / 8 * BITS as usize)) };
        unpack::<BITS, SIGNED>(packed)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn eight(self, row: usize, col: usize) -> uint8x16_t {
        let mut packed = [0; 16];
        // SAFETY: the matrix has the codes by the contract, and no more than their bytes are read.
        let packed = unsafe {
            let codes = self.rows[row].add(col / 8 * BITS as usize);
            codes.copy_to_nonoverlapping(packed.as_mut_ptr(), BITS as usize);
            vld1q_u8(packed.as_ptr())
        };
        vcombine_u8(vget_low_u8(unpack::<BITS, SIGNED>(packed)), vdup_n_u8(0))
    }
}

/// Codes that are bytes already. // (4, stride)
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    pub codes: *const u8,
    pub stride: usize,
}

impl Codes for Unpacked {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sixteen(self, row: usize, col: usize) -> uint8x16_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_u8(self.codes.add(row * self.stride + col)) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn eight(self, row: usize, col: usize) -> uint8x16_t {
        // SAFETY: the caller's promise.
        unsafe { vcombine_u8(vld1_u8(self.codes.add(row * self.stride + col)), vdup_n_u8(0)) }
    }
}

/// Bytes of one of the two loads that cover 16 codes of 3, 5 or 6 bits; the loads overlap.
const fn load_bytes(bits: u32) -> usize {
    if bits == 3 { 4 } else { 8 }
}

/// The bytes of 16 codes; the last 8 codes start at byte `second_half`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_sixteen<const BITS: u32>(codes: *const u8) -> uint8x16_t {
    let second = 2 * BITS as usize - load_bytes(BITS).min(2 * BITS as usize);
    // SAFETY: each load ends within the 2 * BITS bytes that the caller vouches for.
    unsafe {
        match BITS {
            2 => vreinterpretq_u8_u32(vdupq_n_u32(codes.cast::<u32>().read_unaligned())),
            3 => {
                let first = u64::from(codes.cast::<u32>().read_unaligned());
                let second = u64::from(codes.add(second).cast::<u32>().read_unaligned());
                vcombine_u8(vcreate_u8(first | second << 32), vdup_n_u8(0))
            }
            4 => vcombine_u8(vld1_u8(codes), vdup_n_u8(0)),
            5 | 6 => vcombine_u8(vld1_u8(codes), vld1_u8(codes.add(second))),
            _ => vld1q_u8(codes),
        }
    }
}

/// Where `load_sixteen` puts the first byte of the last 8 codes.
const fn second_half(bits: u32) -> usize {
    match bits {
        3 | 5 | 6 => 2 * load_bytes(bits) - bits as usize,
        _ => bits as usize,
    }
}

/// For each code, the byte where it starts and the next one, and how far to shift them (left is positive).
struct Places {
    first: [u8; 16],
    first_shift: [i8; 16],
    /// Beyond the register, which reads as zero, where a code lies in one byte.
    second: [u8; 16],
    second_shift: [i8; 16],
}

impl Places {
    const fn new(bits: u32) -> Places {
        let mut places = Places {
            first: [0; 16],
            first_shift: [0; 16],
            second: [255; 16],
            second_shift: [0; 16],
        };
        let mut code = 0;
        while code < 16 {
            let start = if code < 8 { 0 } else { second_half(bits) };
            let bit = code % 8 * bits as usize;
            places.first[code] = (start + bit / 8) as u8;
            places.first_shift[code] = -((bit % 8) as i8);
            if bit % 8 + bits as usize > 8 {
                places.second[code] = places.first[code] + 1;
                places.second_shift[code] = 8 - (bit % 8) as i8;
            }
            code += 1;
        }
        places
    }
}

/// Unpacks what `load_sixteen` loaded.
#[inline]
#[target_feature(enable = "neon")]
fn unpack<const BITS: u32, const SIGNED: bool>(packed: uint8x16_t) -> uint8x16_t {
    let places = const { &Places::new(BITS) };
    let mask = vdupq_n_u8(((1u32 << BITS) - 1) as u8);
    match BITS {
        4 => {
            let wide = vmovl_u8(vget_low_u8(packed));
            vandq_u8(vreinterpretq_u8_u16(vsliq_n_u16::<4>(wide, wide)), mask)
        }
        8 if SIGNED => veorq_u8(packed, vdupq_n_u8(signed_offset(BITS))),
        8 => packed,
        2 => vandq_u8(shifted(packed, &places.first, &places.first_shift), mask),
        _ => {
            let first = shifted(packed, &places.first, &places.first_shift);
            let second = shifted(packed, &places.second, &places.second_shift);
            vandq_u8(vorrq_u8(first, second), mask)
        }
    }
}

/// The bytes at `places`, each shifted.
#[inline]
#[target_feature(enable = "neon")]
fn shifted(packed: uint8x16_t, places: &[u8; 16], shifts: &[i8; 16]) -> uint8x16_t {
    // SAFETY: both tables have 16 bytes.
    unsafe { vshlq_u8(vqtbl1q_u8(packed, vld1q_u8(places.as_ptr())), vld1q_s8(shifts.as_ptr())) }
}
