//! Codes of a matrix by the inputs of its layer: error feedback (GPTQ), a refit of all scales and biases of a row, a sweep over
//! its codes. Pure arithmetic on one matrix at a time.
//!
//! With inputs a (of the model as it is quantized so far) and a' (of the model as it was), H = mean a a^T and d the error of a row of
//! weights, a row is chosen for little `d H d^T`: the mean square of the error of its output. Where a' is known, d is the error against
//! `W* = W + SHARE W E[(a' - a) a^T] (H + SOFT mean(diag H) I)^-1`, which makes up for half of what earlier layers lost.
//!
//! Everything is summed in one order, whatever the number of threads.

mod device;
mod entry;
mod feedback;
mod inputs;
mod moments;
mod panels;
mod refit;
mod triangle;

use bytes::Bytes;
use planish_format::{FloatType, GroupSearch, PackedMatrix, PackedShape, Packing, pack_codes};
use rayon::prelude::*;

pub use device::{Basis, Calibrator, InputMoments, OnProcessor};
pub use entry::{ChosenCodes, PartCodes, calibrate_part};
pub use inputs::{BasisNumbers, InputBasis};
pub use moments::Moments;
pub use refit::{RIDGE, ROUNDS};

use panels::{PANEL_ROWS, Panel};

/// Codes that were chosen, and what they are worth.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// Codes, scales and biases.
    pub packed: PackedMatrix,
    /// Sum of `d H d^T` over the rows of the codes that were there before.
    pub searched_error: f64,
    /// The same of these.
    pub error: f64,
}

/// A row's scales and biases, as they are stored, and its codes.
#[derive(Clone, Debug, Default)]
struct Row {
    codes: Vec<u8>,   // (cols)
    scales: Vec<f32>, // (groups)
    biases: Vec<f32>, // (groups)
}

impl Row {
    /// Fills in the weights that it stands for.
    fn decode(&self, weights: &mut [f32]) {
        let group = self.codes.len() / self.scales.len();
        let groups = weights.chunks_exact_mut(group).zip(self.codes.chunks_exact(group));
        for ((weights, codes), (scale, bias)) in groups.zip(self.scales.iter().zip(&self.biases)) {
            for (weight, code) in weights.iter_mut().zip(codes) {
                *weight = f32::from(*code) * scale + bias;
            }
        }
    }

    /// A row of a packed matrix.
    fn of(matrix: &PackedMatrix, row: usize) -> Row {
        let mut codes = vec![0; matrix.cols];
        matrix.row_codes(row, &mut codes);
        let stored = matrix.row(row);
        let values = |bytes: &[u8]| {
            let mut values = vec![0.0; bytes.len() / matrix.scale_type.size_bytes()];
            matrix.scale_type.decode(bytes, &mut values);
            values
        };
        Row {
            codes,
            scales: values(stored.scales),
            biases: values(stored.biases),
        }
    }
}

/// Chooses codes for rows of weights, all of which are multiplied by the inputs of `basis`. `searched` are codes of the same weights
/// that were chosen without: a row for which nothing better is found keeps them.
///
/// # Panics
/// If the sizes do not agree. // weights (rows, cols)
pub fn calibrate_rows(basis: &InputBasis, weights: &[f32], searched: &PackedMatrix) -> Calibrated {
    let cols = basis.cols();
    let (packing, scale_type) = (searched.packing, searched.scale_type);
    assert!(
        cols == searched.cols && weights.len() == searched.rows * cols,
        "sizes of {} rows",
        searched.rows
    );
    assert_eq!(basis.group(), packing.group(), "groups in the order of columns");
    let panels = weights.par_chunks(PANEL_ROWS * cols).enumerate();
    let of_panel = |(index, weights): (usize, &[f32])| {
        let first = index * PANEL_ROWS;
        let before: Vec<Row> = (first..first + weights.len() / cols)
            .map(|row| Row::of(searched, row))
            .collect();
        calibrate_panel(basis, weights, before, packing, scale_type)
    };
    let panels: Vec<Vec<(Row, f64, f64)>> = panels.map(of_panel).collect();
    let rows: Vec<(Row, f64, f64)> = panels.into_iter().flatten().collect();
    Calibrated {
        searched_error: rows.iter().map(|(_, before, _)| before).sum(),
        error: rows.iter().map(|(_, _, after)| after).sum(),
        packed: packed(searched.shape(), rows.iter().map(|(row, ..)| row)),
    }
}

/// At most [`PANEL_ROWS`] rows: each with its error before and after.
fn calibrate_panel(
    basis: &InputBasis,
    weights: &[f32],
    before: Vec<Row>,
    packing: Packing,
    scale_type: FloatType,
) -> Vec<(Row, f64, f64)> {
    let cols = basis.cols();
    let target = basis.target(&Panel::of(weights, cols));
    let mut search = GroupSearch::new(packing, scale_type);
    let levels = ((1u32 << packing.bits()) - 1) as f32;
    let mut found = feedback::codes(basis, &target, levels, &mut search);
    found.truncate(before.len());
    let mut errors = refit::errors(basis, &target, &found);
    refit::improve(basis, &target, levels, scale_type, &mut found, &mut errors);
    let before_errors = refit::errors(basis, &target, &before);
    let pairs = before.into_iter().zip(before_errors).zip(found.into_iter().zip(errors));
    let better = |((before, before_error), (row, error)): ((Row, f64), (Row, f64))| match error < before_error {
        true => (row, before_error, error),
        // An error that is no number, or no gain.
        false => (before, before_error, before_error),
    };
    pairs.map(better).collect()
}

fn packed<'a>(shape: PackedShape, rows: impl Iterator<Item = &'a Row>) -> PackedMatrix {
    let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    let mut code_row = vec![0; shape.code_row_bytes()];
    let mut value_row = vec![0; shape.scale_row_bytes()];
    for row in rows {
        pack_codes(&row.codes, shape.packing.bits(), &mut code_row);
        codes.extend_from_slice(&code_row);
        for (values, bytes) in [(&row.scales, &mut scales), (&row.biases, &mut biases)] {
            shape.scale_type.encode(values, &mut value_row);
            bytes.extend_from_slice(&value_row);
        }
    }
    let [codes, scales, biases] = [codes, scales, biases].map(Bytes::from);
    PackedMatrix::new(shape, codes, scales, biases).expect("as many bytes as the shape says")
}

/// The code nearest to a weight, ties to even; 0 where a scale of 0 has no inverse.
fn nearest(weight: f32, scale: f32, bias: f32, levels: f32) -> f32 {
    let exact = (weight - bias) / scale;
    let clamped = if exact > 0.0 { exact } else { 0.0 };
    clamped.min(levels).round_ties_even()
}

/// A value as it is stored.
fn stored(scale_type: FloatType, value: f32) -> f32 {
    let mut bytes = [0; 4];
    let bytes = &mut bytes[..scale_type.size_bytes()];
    scale_type.encode(&[value], bytes);
    let mut read = [0.0];
    scale_type.decode(bytes, &mut read);
    read[0]
}

#[cfg(test)]
mod tests;
