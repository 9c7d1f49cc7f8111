//! The bit layout, defined here and nowhere else, and its fast path.
//!
//! A row of `cols` codes of `bits` bits (2, 3, 4, 5, 6 or 8) is one little-endian bit stream: code `i` is bits
//! `[i * bits, (i + 1) * bits)`, so 8 codes fill exactly `bits` bytes, for every width. [`code_at`] is the definition;
//! [`pack_codes`] and [`unpack_codes`] work on 8 codes at a time and are tested against it.

use crate::instructions;

/// The code at `index` of a bit stream: the definition of the layout, one bit at a time.
///
/// # Panics
/// If the stream is too short.
pub fn code_at(stream: &[u8], bits: u32, index: usize) -> u8 {
    let first = index * bits as usize;
    (0..bits as usize).fold(0, |code, offset| {
        let position = first + offset;
        let bit = (stream[position / 8] >> (position % 8)) & 1;
        code | (bit << offset)
    })
}

/// Packs codes below `2^bits` into `stream`.
///
/// # Panics
/// If the number of codes is not a multiple of 8, or `stream` is not `codes.len() * bits / 8` bytes.
pub fn pack_codes(codes: &[u8], bits: u32, stream: &mut [u8]) {
    instructions::pack(codes, bits, stream);
}

/// Unpacks a bit stream into codes.
///
/// # Panics
/// If the number of codes is not a multiple of 8, or `stream` is not `codes.len() * bits / 8` bytes.
pub fn unpack_codes(stream: &[u8], bits: u32, codes: &mut [u8]) {
    instructions::unpack(stream, bits, codes);
}

/// The loop of [`pack_codes`], for the instruction table.
#[inline(always)]
pub(crate) fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
    check_lengths(stream.len(), codes.len(), bits);
    match bits {
        2 => pack_all::<2>(codes, stream),
        3 => pack_all::<3>(codes, stream),
        4 => pack_all::<4>(codes, stream),
        5 => pack_all::<5>(codes, stream),
        6 => pack_all::<6>(codes, stream),
        8 => stream.copy_from_slice(codes),
        _ => panic!("no codes of {bits} bits"),
    }
}

/// The loop of [`unpack_codes`], for the instruction table.
#[inline(always)]
pub(crate) fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
    check_lengths(stream.len(), codes.len(), bits);
    match bits {
        2 => unpack_all::<2>(stream, codes),
        3 => unpack_all::<3>(stream, codes),
        4 => unpack_all::<4>(stream, codes),
        5 => unpack_all::<5>(stream, codes),
        6 => unpack_all::<6>(stream, codes),
        8 => codes.copy_from_slice(stream),
        _ => panic!("no codes of {bits} bits"),
    }
}

fn check_lengths(stream_bytes: usize, codes: usize, bits: u32) {
    assert!(codes.is_multiple_of(8), "{codes} codes are not a multiple of 8");
    assert_eq!(
        stream_bytes,
        codes / 8 * bits as usize,
        "bytes of {codes} codes of {bits} bits"
    );
}

#[inline(always)]
fn pack_all<const BITS: usize>(codes: &[u8], stream: &mut [u8]) {
    for (eight, packed) in codes.as_chunks::<8>().0.iter().zip(stream.as_chunks_mut::<BITS>().0) {
        *packed = pack8::<BITS>(*eight);
    }
}

#[inline(always)]
fn unpack_all<const BITS: usize>(stream: &[u8], codes: &mut [u8]) {
    for (packed, eight) in stream.as_chunks::<BITS>().0.iter().zip(codes.as_chunks_mut::<8>().0) {
        *eight = unpack8::<BITS>(*packed);
    }
}

/// 8 codes below `2^BITS` as `BITS` bytes: closes the gaps between neighbours, then pairs, then fours.
#[inline(always)]
fn pack8<const BITS: usize>(codes: [u8; 8]) -> [u8; BITS] {
    let gap = 8 - BITS;
    let mut lanes = u64::from_le_bytes(codes);
    for (half, low) in [
        (8, low_lanes(8, BITS)),
        (16, low_lanes(16, 2 * BITS)),
        (32, low_lanes(32, 4 * BITS)),
    ] {
        lanes = (lanes & low) | ((lanes & (low << half)) >> (gap * half / 8));
    }
    let bytes = lanes.to_le_bytes();
    std::array::from_fn(|byte| bytes[byte])
}

/// The opposite of [`pack8`].
#[inline(always)]
fn unpack8<const BITS: usize>(packed: [u8; BITS]) -> [u8; 8] {
    let gap = 8 - BITS;
    let mut bytes = [0; 8];
    bytes[..BITS].copy_from_slice(&packed);
    let mut lanes = u64::from_le_bytes(bytes);
    for (half, low) in [
        (32, low_lanes(32, 4 * BITS)),
        (16, low_lanes(16, 2 * BITS)),
        (8, low_lanes(8, BITS)),
    ] {
        lanes = (lanes & low) | ((lanes << (gap * half / 8)) & (low << half));
    }
    lanes.to_le_bytes()
}

/// The lowest `used` bits of every second lane of `half` bits.
const fn low_lanes(half: usize, used: usize) -> u64 {
    let lowest = u64::MAX >> (64 - used);
    let mut mask = 0;
    let mut lane = 0;
    while lane < 64 {
        mask |= lowest << lane;
        lane += 2 * half;
    }
    mask
}
