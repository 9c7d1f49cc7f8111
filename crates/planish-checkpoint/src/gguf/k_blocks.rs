//! Blocks of 256 weights with a half-precision scale of scales: Q2_K to Q6_K. Numbers in [] are byte offsets.
//!
//! The scale of a group is (scale of the block) * (integer of the group); products of an 11-bit and an 8-bit significand
//! are exact in f32, and so is `scale * code`, so `scale * code + bias` rounds at most once, as the original does.

use super::simple_blocks::half;
use super::tensor_type::Unpacked;

/// [0] 16 bytes: scale (low half) and minimum (high half) of each 16, [16] two-bit codes, [80] scale, [82] minimum.
pub(super) fn q2_k(block: &[u8], out: &mut Unpacked) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (group, byte) in block[..16].iter().enumerate() {
        out.scales[group] = scale * f32::from(byte & 15);
        out.biases[group] = -(minimum * f32::from(byte >> 4));
    }
    low_pairs(&block[16..80], out.codes);
}

/// [0] third bits (clear means minus 4), [32] two-bit codes, [96] 16 six-bit scales, [108] scale.
pub(super) fn q3_k(block: &[u8], out: &mut Unpacked) {
    let scale = half(block, 108);
    for group in 0..16 {
        let low = block[96 + group % 8] >> (group / 8 * 4) & 15;
        let high = block[104 + group % 4] >> (group / 4 * 2) & 3;
        let scale = scale * (f32::from(low | high << 4) - 32.0);
        out.scales[group] = scale;
        out.biases[group] = -4.0 * scale;
    }
    low_pairs(&block[32..96], out.codes);
    spread_bits(&block[..32], 2, out.codes);
}

/// [0] scale, [2] minimum, [4] eight scales and minimums of six bits, [16] nibbles.
pub(super) fn q4_k(block: &[u8], out: &mut Unpacked) {
    scales_and_minimums(block, out);
    k_nibbles(&block[16..144], out.codes);
}

/// [0] scale, [2] minimum, [4] eight scales and minimums of six bits, [16] fifth bits, [48] nibbles.
pub(super) fn q5_k(block: &[u8], out: &mut Unpacked) {
    scales_and_minimums(block, out);
    k_nibbles(&block[48..176], out.codes);
    spread_bits(&block[16..48], 4, out.codes);
}

/// [0] nibbles, [128] upper pairs, [192] 16 signed scales, [208] scale; middle 32.
pub(super) fn q6_k(block: &[u8], out: &mut Unpacked) {
    let scale = half(block, 208);
    for group in 0..16 {
        let scale = scale * f32::from(block[192 + group] as i8);
        out.scales[group] = scale;
        out.biases[group] = -32.0 * scale;
    }
    // Each half of the block: 64 nibble bytes hold 64 low and 64 high nibbles, 32 bytes hold four runs of 32 pairs.
    for (part, codes) in out.codes.chunks_exact_mut(128).enumerate() {
        let nibbles = &block[part * 64..][..64];
        let pairs = &block[128 + part * 32..][..32];
        for run in 0..4 {
            for position in 0..32 {
                let nibble = nibbles[run % 2 * 32 + position] >> (run / 2 * 4) & 15;
                let pair = pairs[position] >> (run * 2) & 3;
                codes[run * 32 + position] = nibble | pair << 4;
            }
        }
    }
}

/// Each 32 bytes hold four runs of 32 codes, two bits each, the first run lowest.
fn low_pairs(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (run * 2) & 3;
            }
        }
    }
}

/// Each 32 bytes hold two runs of 32 codes, four bits each, the first run lowest.
fn k_nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        let (low, high) = codes.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = byte & 15;
            *high = byte >> 4;
        }
    }
}

/// Adds bit `run` of byte i as bit `to` of code i of that run of 32.
fn spread_bits(bytes: &[u8], to: u32, codes: &mut [u8]) {
    for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code |= (byte >> run & 1) << to;
        }
    }
}

/// Eight scales and eight minimums in 12 bytes: six bits each of the first four, then the low nibbles of the last four, whose
/// upper two bits top the bytes of the first four.
fn scales_and_minimums(block: &[u8], out: &mut Unpacked) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        let (first, second) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let nibbles = packed[group + 4];
            (
                nibbles & 15 | packed[group - 4] >> 6 << 4,
                nibbles >> 4 | packed[group] >> 6 << 4,
            )
        };
        out.scales[group] = scale * f32::from(first);
        out.biases[group] = -(minimum * f32::from(second));
    }
}
