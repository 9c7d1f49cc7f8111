//! Codes to bytes with AVX2: a chunk of 32 x VECTORS codes becomes VECTORS registers of 32 bytes.
//!
//! | bits | vectors | bytes | byte p of vector j is code | lane (4 bytes) of all vectors holds codes of one run of |
//! |---|---|---|---|---|
//! | 2 | 4 | 32 | 4 p + j | 16 |
//! | 4 | 2 | 32 | 2 p + j | 8 |
//! | 3, 5, 6 | 1 | 12, 20, 24 | 8 u + p % 8 where u = 0, 2, 1, 3 for p / 8 = 0, 1, 2, 3 | 4 |
//! | 8 | 1 | 32 | p | 4 |

use std::arch::x86_64::*;

/// Registers that a chunk fills.
pub(super) const fn vectors(bits: u32) -> usize {
    match bits {
        2 => 4,
        4 => 2,
        _ => 1,
    }
}

/// Codes in a chunk.
pub(super) const fn chunk_codes(bits: u32) -> usize {
    32 * vectors(bits)
}

/// Bytes in a chunk.
pub(super) const fn chunk_bytes(bits: u32) -> usize {
    chunk_codes(bits) / 8 * bits as usize
}

/// Neighbouring codes that the same lane of all vectors holds: groups must be a multiple of it.
pub(super) const fn lane_run(bits: u32) -> usize {
    4 * vectors(bits)
}

/// Which code of the chunk is byte `byte` of vector `vector`.
pub(super) const fn code_of(bits: u32, vector: usize, byte: usize) -> usize {
    match bits {
        2 | 4 => vectors(bits) * byte + vector,
        8 => byte,
        _ => [0, 2, 1, 3][byte / 8] * 8 + byte % 8,
    }
}

/// For 16 codes of 3, 5 or 6 bits: the two bytes that hold each, and the power of two that moves it to the top of them.
const fn windows(bits: usize) -> ([u8; 32], [u16; 16]) {
    let (mut bytes, mut factors) = ([0; 32], [0; 16]);
    let mut code = 0;
    while code < 16 {
        let (byte, shift) = (code * bits / 8, code * bits % 8);
        bytes[2 * code] = byte as u8;
        bytes[2 * code + 1] = byte as u8 + 1;
        factors[code] = 1 << (16 - bits - shift);
        code += 1;
    }
    (bytes, factors)
}

static WINDOWS_3: ([u8; 32], [u16; 16]) = windows(3);
static WINDOWS_5: ([u8; 32], [u16; 16]) = windows(5);
static WINDOWS_6: ([u8; 32], [u16; 16]) = windows(6);

/// 16 codes of 3, 5 or 6 bits, as 16-bit numbers.
///
/// # Safety
/// `codes` must have 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sixteen<const BITS: u32>(codes: *const u8) -> __m256i {
    let (bytes, factors) = match BITS {
        3 => &WINDOWS_3,
        5 => &WINDOWS_5,
        _ => &WINDOWS_6,
    };
    // SAFETY: the tables are 32 bytes, and `codes` has 16 by the contract.
    unsafe {
        let bytes = _mm256_loadu_si256(bytes.as_ptr().cast());
        let factors = _mm256_loadu_si256(factors.as_ptr().cast());
        let packed = _mm256_broadcastsi128_si256(_mm_loadu_si128(codes.cast()));
        let windows = _mm256_mullo_epi16(_mm256_shuffle_epi8(packed, bytes), factors);
        match BITS {
            3 => _mm256_srli_epi16::<13>(windows),
            5 => _mm256_srli_epi16::<11>(windows),
            _ => _mm256_srli_epi16::<10>(windows),
        }
    }
}

/// Unpacks a chunk; vectors beyond `vectors(BITS)` are zero.
///
/// # Safety
/// `codes` must have 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn unpack<const BITS: u32>(codes: *const u8) -> [__m256i; 4] {
    let zero = _mm256_setzero_si256();
    // SAFETY: all reads are within the 32 bytes: the second sixteen codes start at byte 12 at most.
    unsafe {
        if matches!(BITS, 3 | 5 | 6) {
            let (first, second) = (sixteen::<BITS>(codes), sixteen::<BITS>(codes.add(2 * BITS as usize)));
            return [_mm256_packus_epi16(first, second), zero, zero, zero];
        }
        let packed = _mm256_loadu_si256(codes.cast());
        match BITS {
            2 => {
                let mask = _mm256_set1_epi8(3);
                [
                    _mm256_and_si256(packed, mask),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(packed), mask),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask),
                    _mm256_and_si256(_mm256_srli_epi16::<6>(packed), mask),
                ]
            }
            4 => {
                let mask = _mm256_set1_epi8(15);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
                [_mm256_and_si256(packed, mask), high, zero, zero]
            }
            _ => [packed, zero, zero, zero],
        }
    }
}
