//! Codes by the inputs of layers, on a device beside the processor.

use planish_format::{FloatMatrix, FloatType, PackedMatrix, Packing, QuantizeOptions, Rule, quantize_with};
use planish_model::QuantizingDevice;
use planish_quantize::{Calibrated, Calibrator, OnProcessor};

use crate::emulated::EmulatedQueue;

/// Numbers about as a bell curve has them, by a seed.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..4).map(|_| next()).sum()).collect()
}

/// Rows of inputs of which neighbours have to do with each other, some are large, and one is never there.
fn inputs(seed: u64, rows: usize, cols: usize) -> Vec<f32> {
    let mut inputs = values(seed, rows * cols);
    for row in inputs.chunks_exact_mut(cols) {
        for col in 1..cols {
            row[col] = 0.8 * row[col - 1] + 0.6 * row[col];
        }
        row.iter_mut().step_by(7).for_each(|value| *value *= 3.0);
        row[5] = 0.0;
    }
    inputs
}

fn searched(weights: &[f32], cols: usize, packing: Packing, scale_type: FloatType) -> PackedMatrix {
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let matrix = FloatMatrix::new(weights.len() / cols, cols, FloatType::F32, &bytes).unwrap();
    let options = QuantizeOptions {
        packing,
        rule: Rule::Search { importance: None },
        scale_type,
        allow_non_finite: false,
    };
    quantize_with(matrix, options).unwrap()
}

/// A matrix to pack by its inputs.
struct Case {
    rows: usize,
    cols: usize,
    packing: Packing,
    scale_type: FloatType,
}

impl Case {
    fn run(&self, calibrator: &dyn Calibrator) -> Calibrated {
        let (cols, group) = (self.cols, self.packing.group());
        let (now, before) = (inputs(1, 2 * cols, cols), inputs(2, 2 * cols, cols));
        let mut moments = calibrator.moments(cols).unwrap();
        // In two pieces of unlike length.
        for piece in [0..cols * (cols + 3), cols * (cols + 3)..2 * cols * cols] {
            let original: Vec<f32> = now[piece.clone()]
                .iter()
                .zip(&before[piece.clone()])
                .map(|(now, other)| now + 0.1 * other)
                .collect();
            moments.add(&now[piece], Some(&original)).unwrap();
        }
        assert_eq!((moments.rows(), moments.cols()), (2 * cols as u64, cols));
        let basis = moments.copy().unwrap().basis(group).unwrap().unwrap();
        let weights = values(3, self.rows * cols);
        let searched = searched(&weights, cols, self.packing, self.scale_type);
        basis.calibrate(&weights, &searched).unwrap()
    }
}

/// As good as the processor's, nearly all of them the same, and the same again.
#[test]
fn codes_of_the_device_are_as_good_as_those_of_the_processor() {
    let device = QuantizingDevice::on(EmulatedQueue).unwrap();
    let device = device.calibrator.unwrap();
    let case = Case {
        rows: 37,
        cols: 160,
        packing: Packing::new(3, 32).unwrap(),
        scale_type: FloatType::BF16,
    };
    let (expected, found) = (case.run(&OnProcessor), case.run(&*device));
    let near = |found: f64, expected: f64, bound: f64| (found / expected - 1.0).abs() < bound;
    println!(
        "error {:.6e} on the processor, {:.6e} on the device, searched {:.6e}",
        expected.error, found.error, expected.searched_error
    );
    assert!(near(found.searched_error, expected.searched_error, 1e-5));
    assert!(near(found.error, expected.error, 0.02));
    assert!(expected.error < 0.9 * expected.searched_error);
    let alike = found.packed.codes.iter().zip(&expected.packed.codes);
    let alike = alike.filter(|(found, expected)| found == expected).count();
    println!("{alike} of {} bytes of codes are alike", found.packed.codes.len());
    assert!(alike * 10 > found.packed.codes.len() * 8);
    let again = case.run(&*device);
    assert!(again.packed.codes == found.packed.codes && again.packed.scales == found.packed.scales);
}
