//! Codes and scales of small floats against MLX's own, bit for bit: scripts/golden/float_modes.py made them.

use planish_format::{FloatMatrix, FloatMode, FloatType, FormatError, quantize_floats};
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("golden/float_modes.safetensors");

#[test]
fn codes_and_scales_equal_mlx() {
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let modes = [
        ("mxfp4", FloatMode::Mxfp4),
        ("mxfp8", FloatMode::Mxfp8),
        ("nvfp4", FloatMode::Nvfp4),
    ];
    for (name, mode) in modes {
        for float_type in [FloatType::F32, FloatType::F16, FloatType::BF16] {
            let input = golden.tensor(&format!("input/{float_type:?}")).unwrap();
            let (rows, cols) = (input.shape()[0], input.shape()[1]);
            let matrix = FloatMatrix::new(rows, cols, float_type, input.data()).unwrap();
            let found = quantize_floats(matrix, mode).unwrap();
            let expected = |part: &str| golden.tensor(&format!("{name}/{float_type:?}/{part}")).unwrap();
            let (codes, scales) = (expected("codes"), expected("scales"));
            let groups = cols / mode.group();
            for row in 0..rows {
                let bytes = cols * mode.bits() as usize / 8;
                let part = |data: &[u8], size: usize| data[row * size..][..size].to_vec();
                let what = format!("{name}, {float_type:?}, row {row}");
                assert_eq!(
                    part(&found.scales, groups),
                    part(scales.data(), groups),
                    "scales of {what}"
                );
                assert_eq!(part(&found.codes, bytes), part(codes.data(), bytes), "codes of {what}");
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let matrix = |cols: usize, data| FloatMatrix::new(1, cols, FloatType::F32, data).unwrap();
    let narrow = quantize_floats(matrix(16, &[0; 64]), FloatMode::Nvfp4);
    assert!(matches!(narrow, Err(FormatError::GroupDoesNotDivide { .. })));
    let mut data = [0; 128];
    data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let found = quantize_floats(matrix(32, &data), FloatMode::Mxfp8);
    assert!(matches!(found, Err(FormatError::NonFinite { col: 1, .. })));
}

#[test]
fn least_and_largest_weights_have_finite_scales() {
    for value in [f32::MIN_POSITIVE / 1e6, f32::MIN_POSITIVE, f32::MAX] {
        let data: Vec<u8> = (0..32).flat_map(|_| value.to_le_bytes()).collect();
        for mode in [FloatMode::Mxfp4, FloatMode::Mxfp8] {
            let found = quantize_floats(FloatMatrix::new(1, 32, FloatType::F32, &data).unwrap(), mode).unwrap();
            assert!(found.scales[0] < 255, "{mode:?}, {value}");
        }
    }
}
