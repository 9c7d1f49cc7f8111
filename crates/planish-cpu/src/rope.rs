//! Rotary position embedding: in every head pairs of values are rotated by angles of its position.

use planish_ops::{Rope, RopeAngles, Shape};

use crate::share::{SharedSlice, share_rows};
use crate::{Cpu, CpuOps};

/// Rotates every head of every row.
pub(crate) fn rope(cpu: &Cpu, problem: Rope<'_, CpuOps>) {
    let Rope {
        rows,
        heads,
        head_dim,
        angles,
        pairs,
    } = problem;
    let (cols, rotated) = (heads.cols(), angles.cols());
    let functions = cpu.vector();
    let angles = angles.first(rows);
    let heads = SharedSlice::new(heads.first_mut(rows));
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

/// Fills the table that [`rope`] reads. Angles are f32 products, as in transformers.
pub(crate) fn rope_angles(problem: RopeAngles<'_, CpuOps>) {
    let RopeAngles {
        frequencies,
        factor,
        places,
        output,
    } = problem;
    let cols = output.cols();
    for span in places.spans {
        let rows = &mut output.all_mut()[span.first_row * cols..span.end_row() * cols];
        for (position, angles) in (span.first_position..).zip(rows.chunks_exact_mut(cols)) {
            let (cosines, sines) = angles.split_at_mut(frequencies.len());
            for ((cosine, sine), &frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
                let (s, c) = (position as f32 * frequency).sin_cos();
                (*cosine, *sine) = (c * factor, s * factor);
            }
        }
    }
}
