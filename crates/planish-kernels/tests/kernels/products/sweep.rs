//! What the sweep of products covers: weights, inputs, types; all of it, or small shapes; this process's share.

use std::env;

use planish_format::{FloatType, PackedShape, Packing};
use planish_kernels::launch::{Product, WeightKind};

use crate::data::{TYPES, WIDTHS};
use crate::device;

/// What is crossed with every width.
pub struct Sweep {
    pub inputs: &'static [u32],
    pub rows: &'static [u32],
    /// (group, cols), crossed with every type.
    pub cols: &'static [(usize, u32)],
    /// (group, cols) for which types take turns.
    pub more_cols: &'static [(usize, u32)],
    /// (group, cols), with outputs of other types than the inputs.
    pub mixed_cols: &'static [(usize, u32)],
    /// Whether all of `MIXED` are crossed with these, or take turns.
    pub all_mixed: bool,
}

/// Types of inputs and outputs that differ.
const MIXED: [(FloatType, FloatType); 3] = [
    (FloatType::BF16, FloatType::F32),
    (FloatType::BF16, FloatType::F16),
    (FloatType::F16, FloatType::F32),
];

const SMALL: Sweep = Sweep {
    inputs: &[1, 2, 3, 8, 9, 17, 33],
    rows: &[1, 7, 8, 33],
    cols: &[],
    // Warpgroups multiply bf16 by groups of 64: one of every three here, so that each width has such a case.
    more_cols: &[(64, 64), (64, 320), (64, 128), (32, 96), (24, 96)],
    mixed_cols: &[(64, 192)],
    all_mixed: false,
};
const WHOLE: Sweep = Sweep {
    inputs: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 64, 257],
    rows: &[1, 7, 8, 129, 32_771],
    cols: &[(64, 64), (32, 96), (64, 320), (64, 4160)],
    more_cols: &[
        (32, 32),
        (32, 320),
        (32, 4128),
        (128, 128),
        (128, 4224),
        (8, 8),
        (8, 96),
        (8, 320),
        (8, 4104),
        (24, 24),
        (24, 96),
    ],
    mixed_cols: &[(64, 192), (64, 4160)],
    all_mixed: true,
};

/// All counts of inputs and rows up to where tiles end, and beside it.
const EVERY: Sweep = Sweep {
    inputs: &[
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
        31, 32, 33, 64, 257,
    ],
    rows: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 129, 32_771],
    ..WHOLE
};

/// One weight, whose products with 1 input row, 2, .. share input and reference.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Of inputs and scales.
    pub float_type: FloatType,
    pub output: FloatType,
    pub packing: Packing,
    pub rows: u32,
    pub cols: u32,
}

pub fn sweep() -> Sweep {
    match env::var("PLANISH_TEST_SWEEP").as_deref() {
        Err(_) if device::chosen().is_none() => SMALL,
        Err(_) | Ok("whole") => WHOLE,
        Ok("every") => EVERY,
        Ok("small") => SMALL,
        Ok(other) => panic!("PLANISH_TEST_SWEEP is {other:?}: neither small, whole nor every"),
    }
}

/// This process's share of the cases: `PLANISH_TEST_PART` is as 3/16, the fourth of 16; all without it.
pub fn part() -> (usize, usize) {
    let Ok(text) = env::var("PLANISH_TEST_PART") else {
        return (0, 1);
    };
    let numbers = text
        .split_once('/')
        .and_then(|(part, parts)| part.parse().ok().zip(parts.parse().ok()));
    numbers.unwrap_or_else(|| panic!("PLANISH_TEST_PART is {text:?}, not as 3/16"))
}

pub fn cases() -> Vec<Case> {
    let sweep = sweep();
    let mut cases = Vec::new();
    for (width, bits) in WIDTHS.into_iter().enumerate() {
        let mut add = |group, cols, float_type, output| {
            let packing = Packing::new(bits, group).expect("a packing");
            // Rows of codes are whole words.
            if PackedShape::new(1, cols as usize, packing, float_type).is_ok() {
                cases.extend(sweep.rows.iter().map(|&rows| Case {
                    float_type,
                    output,
                    packing,
                    rows,
                    cols,
                }));
            }
        };
        for &(group, cols) in sweep.cols {
            TYPES
                .into_iter()
                .for_each(|float_type| add(group, cols, float_type, float_type));
        }
        for (turn, &(group, cols)) in sweep.more_cols.iter().enumerate() {
            let float_type = TYPES[(width + turn) % 3];
            add(group, cols, float_type, float_type);
        }
        for &(group, cols) in sweep.mixed_cols {
            let taken = MIXED.iter().enumerate();
            taken
                .filter(|(turn, _)| sweep.all_mixed || width % 3 == *turn)
                .for_each(|(_, &(float_type, output))| add(group, cols, float_type, output));
        }
    }
    cases
}

impl Case {
    pub fn product(&self, inputs: u32) -> Product {
        Product {
            weight: WeightKind {
                packing: Some(self.packing),
                float_type: self.float_type,
            },
            value: self.float_type,
            output: self.output,
            rows: self.rows,
            cols: self.cols,
            inputs,
            added: self.packing.bits() % 2 == 1,
            stored: false,
            overlaps: false,
        }
    }

    /// Relative to f64, as a norm over all outputs: what the type of the inputs is allowed, whatever the outputs are.
    pub fn bound(&self) -> f64 {
        match self.float_type {
            FloatType::F32 => 1e-5,
            FloatType::F16 => 3e-4,
            FloatType::BF16 => 2e-3,
        }
    }
}
