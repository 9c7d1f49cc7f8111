//! Rotary position embedding (Su et al., 2021): for the pairs (i, i + half) or (2i, 2i + 1) of a head
//! `a' = a cos - b sin, b' = b cos + a sin` with the angle `position * frequencies[i]`.

use crate::{Ops, Places, Shape};

/// Which values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (i, i + half), as most Hugging Face models.
    Halves,
    /// (2i, 2i + 1).
    Neighbours,
}

/// Cosines and sines of the positions of rows, shared by all heads and layers.
pub struct RopeAngles<'a, O: Ops> {
    /// Radians per position. // (rotated / 2)
    pub frequencies: &'a [f32],
    /// Multiplies cosines and sines.
    pub factor: f32,
    /// Rows to fill: those of spans whose sequences have these frequencies.
    pub places: Places<'a, O>,
    /// Cosines, then sines. // (rows, rotated)
    pub output: &'a mut O::Tensor,
}

impl<O: Ops> RopeAngles<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert_eq!(self.output.cols(), 2 * self.frequencies.len());
        self.places.check_rows([&*self.output]);
    }
}

/// Heads to rotate in place.
pub struct Rope<'a, O: Ops> {
    /// Rows to rotate.
    pub rows: usize,
    /// Heads side by side. // (rows, heads * head_dim)
    pub heads: &'a mut O::Tensor,
    /// Values of a head; those after the rotated ones stay.
    pub head_dim: usize,
    /// From [`Ops::rope_angles`]. // (rows, rotated)
    pub angles: &'a O::Tensor,
    /// Which values are rotated together.
    pub pairs: RopePairs,
}

impl<O: Ops> Rope<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.heads.rows() && self.rows <= self.angles.rows());
        assert!(self.heads.cols().is_multiple_of(self.head_dim) && self.angles.cols() <= self.head_dim);
    }
}

/// The formula for one head at an angle of `position * frequencies[i]` for its i-th pair, in f64.
pub fn rope_reference(head: &[f32], pairs: RopePairs, frequencies: &[f32], position: usize) -> Vec<f64> {
    let mut rotated: Vec<f64> = head.iter().map(|&value| f64::from(value)).collect();
    let half = frequencies.len();
    for (i, &frequency) in frequencies.iter().enumerate() {
        let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
        let (first, second) = match pairs {
            RopePairs::Halves => (i, i + half),
            RopePairs::Neighbours => (2 * i, 2 * i + 1),
        };
        let (a, b) = (rotated[first], rotated[second]);
        (rotated[first], rotated[second]) = (a * cosine - b * sine, b * cosine + a * sine);
    }
    rotated
}
