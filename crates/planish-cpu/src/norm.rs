//! Norms of rows: `hidden += factor * residual; output = normalized(hidden) * weight + bias`.

use planish_ops::{Norm, Shape};

use crate::share::{SharedSlice, share_rows};
use crate::vector::NormRow;
use crate::{Cpu, CpuOps, CpuTensor};

/// Normalizes every width of every row.
pub(crate) fn norm(cpu: &Cpu, problem: Norm<'_, CpuOps>) {
    let Norm {
        kind,
        rows,
        width,
        hidden,
        residual,
        weight,
        bias,
        epsilon,
        output,
    } = problem;
    let range = rows.start * hidden.cols()..rows.end * hidden.cols();
    let (len, count) = (range.len(), rows.len());
    let residual = residual.map(|of| (&of.tensor.values()[range.clone()], of.factor));
    let hidden = &mut hidden.all_mut()[range];
    let [weight, bias] = [weight, bias].map(|vector| vector.map(CpuTensor::values));
    let output = output.map(|output| output.first_mut(count));
    let functions = cpu.vector();
    let hidden = SharedSlice::new(hidden);
    let output = output.map(SharedSlice::new);
    share_rows(cpu.pool(), len / width, width, |share| {
        for row in share {
            let range = row * width..(row + 1) * width;
            let part = |values: &'_ [f32]| row * width % values.len();
            // SAFETY: every row belongs to one share; the functions are those this machine supports.
            unsafe {
                (functions.norm_row)(&mut NormRow {
                    kind,
                    hidden: hidden.range(range.clone()),
                    residual: residual.map(|(residual, factor)| (&residual[range.clone()], factor)),
                    weight: weight.map(|weight| &weight[part(weight)..][..width]),
                    bias: bias.map(|bias| &bias[part(bias)..][..width]),
                    epsilon,
                    output: output.as_ref().map(|output| output.range(range.clone())),
                });
            }
        }
    });
}
