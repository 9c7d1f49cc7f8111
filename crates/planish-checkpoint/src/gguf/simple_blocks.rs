//! Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0. Numbers in [] are byte offsets.
//!
//! The low four bits of weight i are in nibble byte i (low half) for i < 16 and i - 16 (high half) otherwise; the fifth bit
//! is bit i of a 32-bit word. Signed types store code - middle, which is the bias `-middle * scale`: with half-precision
//! scales the sum `scale * code + bias` is exact in f32.

use half::f16;

use super::tensor_type::Unpacked;

/// [0] scale, [2] nibbles; middle 8.
pub(super) fn q4_0(block: &[u8], out: &mut Unpacked) {
    nibbles(&block[2..18], out.codes);
    centred(half(block, 0), 8.0, out);
}

/// [0] scale, [2] bias, [4] nibbles.
pub(super) fn q4_1(block: &[u8], out: &mut Unpacked) {
    nibbles(&block[4..20], out.codes);
    out.scales[0] = half(block, 0);
    out.biases[0] = half(block, 2);
}

/// [0] scale, [2] fifth bits, [6] nibbles; middle 16.
pub(super) fn q5_0(block: &[u8], out: &mut Unpacked) {
    nibbles(&block[6..22], out.codes);
    fifth_bits(&block[2..6], out.codes);
    centred(half(block, 0), 16.0, out);
}

/// [0] scale, [2] bias, [4] fifth bits, [8] nibbles.
pub(super) fn q5_1(block: &[u8], out: &mut Unpacked) {
    nibbles(&block[8..24], out.codes);
    fifth_bits(&block[4..8], out.codes);
    out.scales[0] = half(block, 0);
    out.biases[0] = half(block, 2);
}

/// [0] scale, [2] signed bytes; middle 128.
pub(super) fn q8_0(block: &[u8], out: &mut Unpacked) {
    for (code, byte) in out.codes.iter_mut().zip(&block[2..34]) {
        *code = byte ^ 0x80;
    }
    centred(half(block, 0), 128.0, out);
}

/// The half-precision number at a byte offset.
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn centred(scale: f32, middle: f32, out: &mut Unpacked) {
    out.scales[0] = scale;
    out.biases[0] = -middle * scale;
}

fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(bytes) {
        for (position, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> position & 1) << 4;
        }
    }
}
