//! Better scales, biases and codes of rows whose codes are chosen: all scales and biases of a row at once by least squares, then one
//! code after another. Either is kept only where `d H d^T` fell.
//!
//! With q' the codes of a group less their mean, Q' with a column of q' for each group and 1 with one of ones, the changes of scales
//! and biases solve `[[Q'^T H Q', Q'^T H 1], [1^T H Q', 1^T H 1]] (ds, db) = -(Q'^T H d, 1^T H d)`.

use planish_format::FloatType;

use super::panels::{PANEL_ROWS, Panel};
use super::triangle::Lower;
use super::{InputBasis, Row, nearest, stored};

/// Times that scales, biases and codes are gone over.
pub const ROUNDS: usize = 2;
/// Added to the diagonal, in parts of it.
pub const RIDGE: f64 = 1e-3;
/// Columns whose codes are changed before the effect on all others is known.
const BLOCK: usize = 64;

/// d of rows, and d H.
struct Errors {
    off: Panel,
    products: Panel,
}

impl Errors {
    fn of(basis: &InputBasis, target: &Panel, rows: &[Row]) -> Errors {
        let mut off = Panel::zeros(basis.cols());
        for (index, row) in rows.iter().enumerate() {
            let off = off.row_mut(index);
            row.decode(off);
            off.iter_mut()
                .zip(target.row(index))
                .for_each(|(off, target)| *off -= target);
        }
        let mut products = Panel::zeros(basis.cols());
        products.add_product(&off, 1.0, &basis.squares);
        Errors { off, products }
    }

    /// `d H d^T` of a row.
    fn square(&self, row: usize) -> f64 {
        dot(self.off.row(row), self.products.row(row))
    }
}

/// `d H d^T` of each row.
pub(super) fn errors(basis: &InputBasis, target: &Panel, rows: &[Row]) -> Vec<f64> {
    let found = Errors::of(basis, target, rows);
    (0..rows.len()).map(|row| found.square(row)).collect()
}

/// Improves rows, of which `errors` says `d H d^T`.
pub(super) fn improve(
    basis: &InputBasis,
    target: &Panel,
    levels: f32,
    scale_type: FloatType,
    rows: &mut [Row],
    errors: &mut [f64],
) {
    for _ in 0..ROUNDS {
        let now = Errors::of(basis, target, rows);
        let tried = refit(basis, &now, scale_type, rows);
        let mut now = Errors::of(basis, target, &tried);
        keep(rows, errors, tried, |row| now.square(row));
        now = Errors::of(basis, target, rows);
        let mut tried = rows.to_vec();
        sweep(basis, levels, &mut tried, &mut now);
        let now = Errors::of(basis, target, &tried);
        keep(rows, errors, tried, |row| now.square(row));
    }
}

/// Takes over what is better.
fn keep(rows: &mut [Row], errors: &mut [f64], tried: Vec<Row>, error: impl Fn(usize) -> f64) {
    for (index, tried) in tried.into_iter().enumerate() {
        let found = error(index);
        if found < errors[index] {
            (rows[index], errors[index]) = (tried, found);
        }
    }
}

/// The same rows with other scales and biases.
fn refit(basis: &InputBasis, now: &Errors, scale_type: FloatType, rows: &[Row]) -> Vec<Row> {
    let (cols, group) = (basis.cols(), basis.group());
    let groups = cols / group;
    let means: Vec<Vec<f32>> = rows.iter().map(|row| code_means(row, group)).collect();
    let mut centred = Panel::zeros(cols);
    for (index, (row, means)) in rows.iter().zip(&means).enumerate() {
        let values = centred
            .row_mut(index)
            .chunks_exact_mut(group)
            .zip(row.codes.chunks_exact(group));
        for ((values, codes), mean) in values.zip(means) {
            values
                .iter_mut()
                .zip(codes)
                .for_each(|(value, code)| *value = f32::from(*code) - mean);
        }
    }
    let size = 2 * groups;
    let mut systems = vec![vec![0.0f64; size * size]; rows.len()];
    let mut products = Panel::zeros(cols);
    let mut own = vec![0.0; group * PANEL_ROWS]; // (group, PANEL_ROWS)
    for index in 0..groups {
        let first = index * group;
        for (at, own) in own.chunks_exact_mut(PANEL_ROWS).enumerate() {
            own.iter_mut()
                .enumerate()
                .for_each(|(row, own)| *own = centred.row(row)[first + at]);
        }
        (0..PANEL_ROWS).for_each(|row| products.row_mut(row).fill(0.0));
        products.add_columns(&own, (&basis.squares[first * cols..], cols), group, (0, cols));
        for (row, system) in systems.iter_mut().enumerate() {
            let pairs = products
                .row(row)
                .chunks_exact(group)
                .zip(centred.row(row).chunks_exact(group));
            for (other, (products, centred)) in pairs.enumerate() {
                system[index * size + other] = dot(products, centred);
                system[(groups + other) * size + index] = sum(products);
            }
        }
    }
    let solved = |(index, mut system): (usize, Vec<f64>)| {
        for row in 0..groups {
            let squares = &basis.group_squares[row * groups..][..groups];
            system[(groups + row) * size + groups..][..groups].copy_from_slice(squares);
        }
        for at in 0..size {
            let own = &mut system[at * (size + 1)];
            // A group of one code has no scale that matters.
            *own = if *own > 0.0 { *own * (1.0 + RIDGE) } else { 1.0 };
        }
        let groups_of =
            |panel: &Panel| -> Vec<Vec<f32>> { panel.row(index).chunks_exact(group).map(<[f32]>::to_vec).collect() };
        let (products, centred) = (groups_of(&now.products), groups_of(&centred));
        let scales = products
            .iter()
            .zip(&centred)
            .map(|(products, centred)| -dot(products, centred));
        let biases = products.iter().map(|products| -sum(products));
        let mut changes: Vec<f64> = scales.chain(biases).collect();
        Lower::of(system, size)?.solve(&mut changes);
        Some(changes)
    };
    let changes = systems.into_iter().enumerate().map(solved);
    let changed = changes
        .zip(rows.iter().zip(&means))
        .map(|(changes, (row, means))| match changes {
            Some(changes) => changed(row, means, &changes, scale_type),
            None => row.clone(),
        });
    changed.collect()
}

/// A row with its scales and biases changed, as they are stored.
fn changed(row: &Row, means: &[f32], changes: &[f64], scale_type: FloatType) -> Row {
    let (scale_changes, bias_changes) = changes.split_at(means.len());
    let mut changed = row.clone();
    for (index, mean) in means.iter().enumerate() {
        let (before, mean) = (f64::from(row.scales[index]), f64::from(*mean));
        let scale = stored(scale_type, (before + scale_changes[index]) as f32);
        let bias = f64::from(row.biases[index]) + before * mean + bias_changes[index] - f64::from(scale) * mean;
        let bias = stored(scale_type, bias as f32);
        if scale.is_finite() && bias.is_finite() {
            (changed.scales[index], changed.biases[index]) = (scale, bias);
        }
    }
    changed
}

fn code_means(row: &Row, group: usize) -> Vec<f32> {
    let mean = |codes: &[u8]| codes.iter().map(|code| f32::from(*code)).sum::<f32>() / group as f32;
    row.codes.chunks_exact(group).map(mean).collect()
}

/// Gives every code in turn the value at which the row's error is least, the others being what they are.
fn sweep(basis: &InputBasis, levels: f32, rows: &mut [Row], now: &mut Errors) {
    let (cols, group) = (basis.cols(), basis.group());
    let mut changes = vec![0.0; BLOCK * PANEL_ROWS]; // (block, PANEL_ROWS)
    for first in (0..cols).step_by(BLOCK) {
        let block = first..(first + BLOCK).min(cols);
        changes.fill(0.0);
        for (index, row) in rows.iter_mut().enumerate() {
            let products = now.products.row_mut(index);
            for col in block.clone() {
                let squares = &basis.squares[col * cols..][..cols];
                let (scale, bias) = (row.scales[col / group], row.biases[col / group]);
                let weight = f32::from(row.codes[col]) * scale + bias;
                let code = nearest(weight - products[col] / squares[col], scale, bias, levels);
                let change = code * scale + bias - weight;
                if change == 0.0 || !change.is_finite() {
                    continue;
                }
                row.codes[col] = code as u8;
                changes[(col - first) * PANEL_ROWS + index] = change;
                let own = products[block.clone()].iter_mut().zip(&squares[block.clone()]);
                own.for_each(|(product, square)| *product += change * square);
            }
        }
        // The products of earlier columns are not read again.
        let width = cols - block.end;
        if width > 0 {
            let squares = (&basis.squares[first * cols + block.end..], cols);
            now.products
                .add_columns(&changes, squares, block.len(), (block.end, width));
        }
    }
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
