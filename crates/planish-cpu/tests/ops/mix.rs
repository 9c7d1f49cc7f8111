//! Sums of parts of rows, and rows that are measured and changed as a whole, against their references in f64.

use crate::common::{close, ops, random, read, tensor};
use planish_cpu::Precision;
use planish_ops::*;

#[test]
fn parts_are_sums_of_parts() {
    // Source parts, target parts, written target parts, whether there are factors, whether sums are added.
    let cases = [
        (4, 4, 0..4, true, false),
        (1, 4, 0..4, true, true),
        (1, 4, 1..4, false, true),
        (3, 2, 1..2, true, false),
    ];
    for (rows, width) in [(1, 7), (70, 259)] {
        for (inputs, targets, parts, weighed, adds) in cases.clone() {
            let ops = ops(3, Precision::Exact);
            let factors = random(1, rows * parts.len() * inputs, 1.0);
            let (source, before) = (
                random(2, rows * inputs * width, 1.0),
                random(3, rows * targets * width, 1.0),
            );
            let mut target = tensor(&ops, rows, targets * width, &before);
            let stored = tensor(&ops, rows, parts.len() * inputs, &factors);
            ops.mix(Mix {
                rows,
                width,
                factors: weighed.then_some(&stored),
                source: &tensor(&ops, rows, inputs * width, &source),
                target: &mut target,
                parts: parts.clone(),
                adds,
            });
            let mut expected: Vec<f64> = before.iter().map(|&value| f64::from(value)).collect();
            for (row, part) in (0..rows).flat_map(|row| parts.clone().map(move |part| (row, part))) {
                let range = (row * targets + part) * width..(row * targets + part + 1) * width;
                let base: Vec<f32> = before[range.clone()]
                    .iter()
                    .map(|value| if adds { *value } else { 0.0 })
                    .collect();
                let own = &factors[(row * parts.len() + part - parts.start) * inputs..][..inputs];
                let own = if weighed { own.to_vec() } else { vec![1.0; inputs] };
                let mixed = mix_reference(&base, &own, &source[row * inputs * width..][..inputs * width]);
                expected[range].copy_from_slice(&mixed);
            }
            close(&read(&ops, &target, rows), &expected, 1e-6);
        }
    }
}

#[test]
fn rows_are_cut_and_scaled_as_a_whole() {
    for (rows, cols) in [(1, 37), (3, 133), (40, 1023)] {
        let ops = ops(3, Precision::Exact);
        let (values, like) = (random(1, rows * cols, 1.0), random(2, rows * cols, 3.0));
        for deviations in [-0.3, 0.0, 1.6449] {
            let mut found = tensor(&ops, rows, cols, &values);
            ops.cut(Cut {
                rows,
                values: &mut found,
                deviations,
            });
            let expected = values.chunks_exact(cols).flat_map(|row| cut_reference(row, deviations));
            close(&read(&ops, &found, rows), &expected.collect::<Vec<f64>>(), 2e-6);
        }
        // The second floor is above all squares.
        for floor in [1e-5, 100.0] {
            let mut found = tensor(&ops, rows, cols, &values);
            ops.rescale(Rescale {
                rows,
                values: &mut found,
                like: &tensor(&ops, rows, cols, &like),
                floor,
            });
            let pairs = values.chunks_exact(cols).zip(like.chunks_exact(cols));
            let expected = pairs.flat_map(|(row, like)| rescale_reference(row, like, floor));
            close(&read(&ops, &found, rows), &expected.collect::<Vec<f64>>(), 2e-6);
        }
    }
}
