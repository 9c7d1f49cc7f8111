//! Codes to bytes: a chunk of 64 x VECTORS codes becomes VECTORS registers, in an order that makes unpacking cheap.
//!
//! | bits | vectors | bytes | byte p of vector j is code | lane (4 bytes) of all vectors holds codes of one run of |
//! |---|---|---|---|---|
//! | 2 | 4 | 64 | 4 p + j | 16 |
//! | 3 | 2 | 48 | 16 (p / 8) + 8 j + p % 8 | 16 |
//! | 4 | 2 | 64 | 2 p + j | 8 |
//! | 5, 6, 8 | 1 | 40, 48, 64 | p | 4 |
//!
//! A group that is a multiple of the run lies in whole lanes, so one scale per lane is enough.

use std::arch::x86_64::*;

/// Registers that a chunk fills.
pub(crate) const fn vectors(bits: u32) -> usize {
    match bits {
        2 => 4,
        3 | 4 => 2,
        _ => 1,
    }
}

/// Codes in a chunk.
pub(crate) const fn chunk_codes(bits: u32) -> usize {
    64 * vectors(bits)
}

/// Bytes in a chunk.
pub(super) const fn chunk_bytes(bits: u32) -> usize {
    chunk_codes(bits) / 8 * bits as usize
}

/// Neighbouring codes that the same lane of all vectors holds: groups must be a multiple of it.
pub(super) const fn lane_run(bits: u32) -> usize {
    match bits {
        2 | 3 => 16,
        4 => 8,
        _ => 4,
    }
}

/// Which code of the chunk is byte `byte` of vector `vector`.
pub(crate) const fn code_of(bits: u32, vector: usize, byte: usize) -> usize {
    match bits {
        2 => 4 * byte + vector,
        3 => 16 * (byte / 8) + 8 * vector + byte % 8,
        4 => 2 * byte + vector,
        _ => byte,
    }
}

/// The mask that loads the first `bytes` of a register.
pub(crate) const fn byte_mask(bytes: usize) -> u64 {
    if bytes >= 64 { u64::MAX } else { (1 << bytes) - 1 }
}

/// Moves the bytes of each 8 codes into 8 bytes of their own, for 3, 5 and 6 bits. // (vector, byte)
const fn spread(bits: usize) -> [[u8; 64]; 2] {
    let mut indices = [[0; 64]; 2];
    let mut at = 0;
    while at < 128 {
        let (vector, unit, byte) = (at / 64, at % 64 / 8, at % 8);
        let unit = if bits == 3 { 2 * unit + vector } else { unit };
        let byte = if byte < bits { byte } else { 0 };
        indices[vector][at % 64] = ((unit * bits + byte) % 64) as u8;
        at += 1;
    }
    indices
}

static SPREAD_3: [[u8; 64]; 2] = spread(3);
static SPREAD_5: [[u8; 64]; 2] = spread(5);
static SPREAD_6: [[u8; 64]; 2] = spread(6);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn spread_indices<const BITS: u32>(vector: usize) -> __m512i {
    let table = match BITS {
        3 => &SPREAD_3,
        5 => &SPREAD_5,
        _ => &SPREAD_6,
    };
    // SAFETY: the table's rows are 64 bytes.
    unsafe { _mm512_loadu_si512(table[vector].as_ptr().cast()) }
}

/// Code k of 8 bytes starts at bit k * bits; keeps its bits only.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn shift_apart<const BITS: u32>(spread: __m512i) -> __m512i {
    let bits = u64::from(BITS);
    // Byte k holds k * bits: one multiplication spreads it, no byte overflows.
    let starts = _mm512_set1_epi64((0x0706_0504_0302_0100 * bits) as i64);
    let mask = _mm512_set1_epi8(((1u32 << BITS) - 1) as i8);
    _mm512_and_si512(_mm512_multishift_epi64_epi8(starts, spread), mask)
}

/// Unpacks a chunk; vectors beyond `vectors(BITS)` are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack<const BITS: u32>(packed: __m512i) -> [__m512i; 4] {
    let zero = _mm512_setzero_si512();
    match BITS {
        2 => {
            let mask = _mm512_set1_epi8(3);
            [
                _mm512_and_si512(packed, mask),
                _mm512_and_si512(_mm512_srli_epi16::<2>(packed), mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask),
                _mm512_and_si512(_mm512_srli_epi16::<6>(packed), mask),
            ]
        }
        4 => {
            let mask = _mm512_set1_epi8(15);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
            [_mm512_and_si512(packed, mask), high, zero, zero]
        }
        8 => [packed, zero, zero, zero],
        _ => {
            let first = _mm512_permutexvar_epi8(spread_indices::<BITS>(0), packed);
            if BITS != 3 {
                return [shift_apart::<BITS>(first), zero, zero, zero];
            }
            let second = _mm512_permutexvar_epi8(spread_indices::<BITS>(1), packed);
            [shift_apart::<BITS>(first), shift_apart::<BITS>(second), zero, zero]
        }
    }
}
