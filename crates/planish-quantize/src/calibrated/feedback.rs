//! Codes one column after another, each error made up for by the columns that follow (GPTQ): with `U^T U = H^-1`, the error
//! `e = (w - (s q + b)) / U_cc` of column c takes `e U_cj` off every later column j. Scale and bias of a group are searched for on
//! the weights as they then are, with weights `1 / U_cc^2` of the errors.

use planish_format::GroupSearch;

use super::panels::{PANEL_ROWS, Panel};
use super::{InputBasis, Row, nearest};

/// The codes of every row of a panel.
pub(super) fn codes(basis: &InputBasis, target: &Panel, levels: f32, search: &mut GroupSearch) -> Vec<Row> {
    let (cols, group) = (basis.cols(), basis.group());
    let empty = Row {
        codes: vec![0; cols],
        scales: vec![0.0; cols / group],
        biases: vec![0.0; cols / group],
    };
    let mut found = vec![empty; PANEL_ROWS];
    // In the order in which they are coded.
    let mut left = Panel::zeros(cols);
    for row in 0..PANEL_ROWS {
        let from = target.row(row);
        let ordered = basis.order.iter().map(|&col| from[col]);
        left.row_mut(row)
            .iter_mut()
            .zip(ordered)
            .for_each(|(value, from)| *value = from);
    }
    // In units of the largest, so that sums neither overflow nor vanish.
    let unit = (0..cols)
        .map(|at| basis.upper[at * (cols + 1)])
        .fold(f32::INFINITY, f32::min);
    let weights: Vec<f32> = (0..cols)
        .map(|at| (unit / basis.upper[at * (cols + 1)]).powi(2))
        .collect();
    let mut errors = vec![0.0; group * PANEL_ROWS]; // (group, PANEL_ROWS)
    for first in (0..cols).step_by(group) {
        let own = first..first + group;
        for (row, found) in found.iter_mut().enumerate() {
            let values = &mut left.row_mut(row)[own.clone()];
            let (scale, bias) = search.find(values, &weights[own.clone()]);
            let index = basis.order[first] / group;
            (found.scales[index], found.biases[index]) = (scale, bias);
            for at in 0..group {
                let upper = &basis.upper[(first + at) * cols + first..][..group];
                let code = nearest(values[at], scale, bias, levels);
                let error = (values[at] - (code * scale + bias)) / upper[at];
                found.codes[basis.order[first + at]] = code as u8;
                errors[at * PANEL_ROWS + row] = -error;
                for (value, upper) in values[at + 1..].iter_mut().zip(&upper[at + 1..]) {
                    *value -= error * upper;
                }
            }
        }
        let rest = (own.end, cols - own.end);
        if rest.1 > 0 {
            let upper = (&basis.upper[first * cols + own.end..], cols);
            left.add_columns(&errors, upper, group, rest);
        }
    }
    found
}
