//! Blocks whose codes stand for numbers of a table, or for three: IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4. Numbers in [] are byte
//! offsets. The numbers of a table are whole, so codes are they plus a middle, in as many bits as that takes.

use planish_format::FLOAT4_HALF_UNITS;

use super::simple_blocks::half;
use super::tensor_type::Unpacked;

/// What the codes of IQ4 stand for.
const LEVELS: [i16; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// [0] scale, [2] nibbles.
pub(super) fn iq4_nl(block: &[u8], out: &mut Unpacked) {
    levels(&block[2..18], out.codes);
    (out.scales[0], out.biases[0]) = centred(half(block, 0), 128.0);
}

/// [0] scale, [2] upper pairs of the scales of eight groups, [4] their nibbles, [8] nibbles; scales less 32.
pub(super) fn iq4_xs(block: &[u8], out: &mut Unpacked) {
    let scale = half(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for group in 0..8 {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let high = (upper >> (2 * group) & 3) as u8;
        let scale = scale * (f32::from(low | high << 4) - 32.0);
        (out.scales[group], out.biases[group]) = centred(scale, 128.0);
    }
    for (bytes, codes) in block[8..136].chunks_exact(16).zip(out.codes.chunks_exact_mut(32)) {
        levels(bytes, codes);
    }
}

/// [0] 32 bytes, then 16, of five digits to base three, [48] four of four, [52] scale. A byte is a fraction of 256, whose first
/// digit is the weight of the first run.
pub(super) fn tq1_0(block: &[u8], out: &mut Unpacked) {
    let (first, rest) = out.codes.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    digits(&block[..32], first);
    digits(&block[32..48], second);
    digits(&block[48..52], third);
    ternary(half(block, 52), out);
}

/// [0] two halves of 32 bytes, four runs of two bits each, [64] scale.
pub(super) fn tq2_0(block: &[u8], out: &mut Unpacked) {
    for (bytes, codes) in block[..64].chunks_exact(32).zip(out.codes.chunks_exact_mut(128)) {
        for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * run) & 3;
            }
        }
    }
    ternary(half(block, 64), out);
}

/// [0] exponent, [1] nibbles.
pub(super) fn mxfp4(block: &[u8], out: &mut Unpacked) {
    let scale = 2f64.powi(i32::from(block[0]) - 128) as f32;
    (out.scales[0], out.biases[0]) = centred(scale, 12.0);
    float4(&block[1..17], out.codes);
}

/// [0] 8-bit floats without sign, one for each 16 weights, [4] nibbles of each 16.
pub(super) fn nvfp4(block: &[u8], out: &mut Unpacked) {
    for (group, &byte) in block[..4].iter().enumerate() {
        let scale = match byte {
            // NaN in e4m3.
            0x7f => 0.0,
            _ => {
                let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
                match exponent {
                    0 => mantissa * 2f32.powi(-7),
                    _ => (1.0 + mantissa) * 2f32.powi(exponent - 8),
                }
            }
        };
        (out.scales[group], out.biases[group]) = centred(scale, 12.0);
    }
    for (bytes, codes) in block[4..36].chunks_exact(8).zip(out.codes.chunks_exact_mut(16)) {
        float4(bytes, codes);
    }
}

fn centred(scale: f32, middle: f32) -> (f32, f32) {
    (scale, -middle * scale)
}

/// Codes of 0, 1 and 2 for -1, 0 and 1.
fn ternary(scale: f32, out: &mut Unpacked) {
    out.scales.fill(scale);
    out.biases.fill(-scale);
}

/// The first half of the weights in the low nibbles.
fn nibbles(bytes: &[u8], codes: &mut [u8], code_of: impl Fn(u8) -> u8) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = code_of(byte & 15);
        *high = code_of(byte >> 4);
    }
}

fn levels(bytes: &[u8], codes: &mut [u8]) {
    nibbles(bytes, codes, |nibble| (LEVELS[usize::from(nibble)] + 128) as u8);
}

/// 4-bit floats in half-units, plus 12.
fn float4(bytes: &[u8], codes: &mut [u8]) {
    nibbles(bytes, codes, |nibble| FLOAT4_HALF_UNITS[usize::from(nibble)]);
}

fn digits(bytes: &[u8], codes: &mut [u8]) {
    let mut shift = 1u8;
    for codes in codes.chunks_exact_mut(bytes.len()) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = ((u16::from(byte.wrapping_mul(shift)) * 3) >> 8) as u8;
        }
        shift = shift.wrapping_mul(3);
    }
}
