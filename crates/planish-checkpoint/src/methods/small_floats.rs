//! Floats of 8 and 4 bits by their bits: OCP's formats, of which `e4m3` has no infinity and `e8m0` no sign.

use crate::Dtype;

/// The values of all 256 bytes of an 8-bit type; `None` for other types.
pub(super) fn table(dtype: Dtype) -> Option<[f32; 256]> {
    let value: fn(u8) -> f32 = match dtype {
        Dtype::F8E4M3 => e4m3,
        Dtype::F8E5M2 => e5m2,
        Dtype::F8E8M0 | Dtype::U8 => e8m0,
        Dtype::I8 => |byte| f32::from(byte as i8),
        _ => return None,
    };
    Some(std::array::from_fn(|byte| value(byte as u8)))
}

/// A float of this many bits of exponent and mantissa, without regard to infinity and NaN.
fn float(byte: u8, exponent_bits: u32, mantissa_bits: u32) -> f32 {
    let mantissa = f32::from(byte & ((1 << mantissa_bits) - 1)) / (1u32 << mantissa_bits) as f32;
    let exponent = i32::from(byte >> mantissa_bits & ((1 << exponent_bits) - 1));
    let bias = (1 << (exponent_bits - 1)) - 1;
    let magnitude = match exponent {
        0 => mantissa * 2f32.powi(1 - bias),
        _ => (1.0 + mantissa) * 2f32.powi(exponent - bias),
    };
    match byte >> (exponent_bits + mantissa_bits) & 1 {
        0 => magnitude,
        _ => -magnitude,
    }
}

/// The largest bits are NaN, the others finite.
pub(super) fn e4m3(byte: u8) -> f32 {
    match byte & 0x7f {
        0x7f => f32::NAN,
        _ => float(byte, 4, 3),
    }
}

fn e5m2(byte: u8) -> f32 {
    match byte & 0x7f {
        0x7c => f32::INFINITY.copysign(float(byte, 5, 2)),
        0x7d..=0x7f => f32::NAN,
        _ => float(byte, 5, 2),
    }
}

/// A power of two.
pub(super) fn e8m0(byte: u8) -> f32 {
    match byte {
        255 => f32::NAN,
        _ => 2f64.powi(i32::from(byte) - 127) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the formats: largest, least normal and least values.
    #[test]
    fn values_at_the_ends() {
        assert_eq!(
            [0x7e, 0x08, 0x01, 0x81, 0x38].map(e4m3),
            [448.0, 2f32.powi(-6), 2f32.powi(-9), -2f32.powi(-9), 1.0]
        );
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!(
            [0x7b, 0x04, 0x01, 0xfc].map(e5m2),
            [57344.0, 2f32.powi(-14), 2f32.powi(-16), f32::NEG_INFINITY]
        );
        assert_eq!([127, 0, 254].map(e8m0), [1.0, 2f32.powi(-127), 2f32.powi(127)]);
    }
}
