//! Rotary position embedding: in every head pairs of values are rotated by angles of its position.

use crate::Cpu;
use crate::share::{SharedSlice, share_rows};
use planish_ops::RopePairs;

/// Heads to rotate.
pub struct Rope<'a> {
    /// Rotated in place. // (rows, heads, head_dim)
    pub heads: &'a mut [f32],
    /// Values of a head; those after the rotated ones stay.
    pub head_dim: usize,
    /// Cosines, then sines, already scaled. // (rows, 2, rotated / 2)
    pub angles: &'a [f32],
    /// Rotated values of a head: even, at most `head_dim`.
    pub rotated: usize,
    /// Which values are rotated together.
    pub pairs: RopePairs,
}

/// Rotates every head of every row.
pub fn rope(cpu: &Cpu, problem: Rope<'_>) {
    let Rope {
        heads,
        head_dim,
        angles,
        rotated,
        pairs,
    } = problem;
    let rows = angles.len() / rotated;
    let cols = heads.len() / rows;
    assert!(rotated <= head_dim && cols.is_multiple_of(head_dim));
    assert!(angles.len() == rows * rotated && heads.len() == rows * cols);
    let functions = cpu.vector();
    let heads = SharedSlice::new(heads);
    share_rows(cpu.pool(), rows, cols, |share| {
        for row in share {
            let angles = &angles[row * rotated..(row + 1) * rotated];
            // SAFETY: every row belongs to one share; the functions are those this machine supports.
            unsafe {
                for head in heads.range(row * cols..(row + 1) * cols).chunks_exact_mut(head_dim) {
                    (functions.rotate_head)(pairs, head, angles);
                }
            }
        }
    });
}

/// Cosines and sines of a run of positions.
pub struct RopeAngles<'a> {
    /// Radians per position. // (rotated / 2)
    pub frequencies: &'a [f32],
    /// Multiplies cosines and sines.
    pub factor: f32,
    /// Position of the first row.
    pub first_position: usize,
    /// Cosines, then sines. // (rows, 2, rotated / 2)
    pub output: &'a mut [f32],
}

/// Fills the table that [`rope`] reads. Angles are f32 products, as in transformers.
pub fn rope_angles(problem: RopeAngles<'_>) {
    let RopeAngles {
        frequencies,
        factor,
        first_position,
        output,
    } = problem;
    for (row, angles) in output.chunks_exact_mut(2 * frequencies.len()).enumerate() {
        let (cosines, sines) = angles.split_at_mut(frequencies.len());
        for ((cosine, sine), &frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
            let (s, c) = ((first_position + row) as f32 * frequency).sin_cos();
            (*cosine, *sine) = (c * factor, s * factor);
        }
    }
}
