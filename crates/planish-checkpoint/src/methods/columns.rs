//! Integer codes with a scale and a zero point for each group, as a packed matrix: `weight = scale * (code - zero)`.
//!
//! The peers store matrices as (inputs, outputs), so scales and words of codes are turned here, in parallel.

use planish_format::{FloatType, PackedMatrix, PackedShape, Packing, memory};
use rayon::prelude::*;

use crate::{Tensor, Weight};

/// The widest group that the kernels are made for.
const WIDEST: usize = 128;

/// The group that a peer's becomes: its own or, where it is wider, the widest that divides it. A group is then several with equal scales.
pub(super) fn group_within(group: usize) -> usize {
    match group {
        0..=WIDEST => group,
        _ => (1..=WIDEST)
            .rev()
            .find(|part| part.is_power_of_two() && group.is_multiple_of(*part))
            .unwrap_or(1),
    }
}

/// What is known of a matrix before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub shape: PackedShape,
    /// Groups of a row as the peer has them.
    pub groups: usize,
}

impl Sizes {
    /// A matrix of (rows, cols) in so many groups, or what is wrong with the sizes.
    pub fn new(rows: usize, cols: usize, bits: u32, groups: usize, scale_type: FloatType) -> Result<Sizes, String> {
        if groups == 0 || !cols.is_multiple_of(groups) {
            return Err(format!("its {cols} columns are not {groups} whole groups"));
        }
        let packing = Packing::checked(bits, group_within(cols / groups)).map_err(|error| error.to_string())?;
        let shape = PackedShape::new(rows, cols, packing, scale_type).map_err(|error| error.to_string())?;
        Ok(Sizes { shape, groups })
    }

    /// The matrix of these codes: scale and zero point of each group, (groups, rows) or, as rows of ours, (rows, groups). Their products
    /// are rounded to f32, which holds those of 16-bit scales and whole zero points exactly.
    pub fn packed(&self, codes: Vec<u8>, scales: &[f32], zeros: &[f32], order: Order) -> Result<Weight, String> {
        let PackedShape { rows, scale_type, .. } = self.shape;
        let groups = self.shape.groups();
        let repeat = groups / self.groups;
        let mut own_scales = memory::filled("weights", rows * groups, 0.0);
        let mut own_biases = memory::filled("weights", rows * groups, 0.0);
        let own = own_scales
            .chunks_exact_mut(groups)
            .zip(own_biases.chunks_exact_mut(groups));
        for (row, (own_scales, own_biases)) in own.enumerate() {
            for group in 0..groups {
                let place = match order {
                    Order::GroupsOfRows => row * self.groups + group / repeat,
                    Order::RowsOfGroups => group / repeat * rows + row,
                };
                own_scales[group] = scales[place];
                own_biases[group] = -zeros[place] * scales[place];
            }
        }
        let scales = exact(&own_scales, scale_type, "scale")?;
        let biases = exact(&own_biases, scale_type, "product of scale and zero point")?;
        let matrix = PackedMatrix::new(self.shape, codes.into(), scales.into(), biases.into());
        matrix.map(Weight::Packed).map_err(|error| error.to_string())
    }
}

/// How the values of groups lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// (rows, groups)
    GroupsOfRows,
    /// (groups, rows)
    RowsOfGroups,
}

/// The values as a type that must hold them exactly.
fn exact(values: &[f32], float_type: FloatType, what: &str) -> Result<Vec<u8>, String> {
    let mut bytes = memory::filled("weights", values.len() * float_type.size_bytes(), 0);
    float_type.encode(values, &mut bytes);
    let mut stored = memory::filled("weights", values.len(), 0.0);
    float_type.decode(&bytes, &mut stored);
    match values.iter().zip(&stored).find(|(value, stored)| value != stored) {
        Some((value, _)) => Err(format!(
            "a {what} is {value}, which {float_type:?} does not hold exactly"
        )),
        None => Ok(bytes),
    }
}

/// The values of a tensor of floats.
pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f32>, String> {
    let float_type = tensor
        .dtype
        .float_type()
        .ok_or_else(|| format!("expected floats, found {}", tensor.dtype))?;
    let mut values = memory::filled("weights", tensor.data.len() / float_type.size_bytes(), 0.0);
    float_type.decode(&tensor.data, &mut values);
    Ok(values)
}

/// Words with columns as rows. // (rows, cols) to (cols, rows)
pub(super) fn transposed_words(words: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let mut turned = memory::filled("weights", words.len(), 0);
    // Columns side by side fill a line of the cache.
    const LANE: usize = 16;
    turned
        .par_chunks_mut(LANE * rows * 4)
        .enumerate()
        .for_each(|(lane, turned)| {
            let first = lane * LANE;
            for row in 0..rows {
                let from = &words[(row * cols + first) * 4..];
                for (word, column) in from.as_chunks::<4>().0.iter().zip(turned.chunks_exact_mut(rows * 4)) {
                    column[row * 4..row * 4 + 4].copy_from_slice(word);
                }
            }
        });
    turned
}
