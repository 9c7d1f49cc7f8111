//! Weights: rows of a table, products.

use planish_gpu::{Error, Queue};

use super::{GpuOps, lock};
use crate::kernels;
use crate::{Embed, Linear};

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_embed(&self, problem: &Embed<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Embed {
            table,
            tokens,
            scale,
            output,
        } = problem;
        let launch = kernels::Rows {
            weight: table.kind,
            value: output.float_type,
            rows: table.rows as u32,
            cols: table.cols as u32,
            factor: *scale,
        }
        .embed(tokens.len() as u32);
        let mut scratch = lock(&self.tokens);
        let buffer = scratch.at_least(&self.queue, 4 * tokens.len())?;
        self.queue.upload(bytemuck::cast_slice(tokens), buffer, 0)?;
        let [codes, scales, biases] = table.buffers();
        self.run(&launch, &[codes, scales, biases, (buffer, 0), output.all()]);
        Ok(())
    }

    pub(super) fn run_linear(&self, problem: &Linear<'_, GpuOps<Q>>) {
        let Linear {
            rows,
            input,
            weights,
            biases,
            outputs,
        } = problem;
        let weights = weights.iter().zip(biases.iter()).zip(outputs.iter());
        for (index, ((weight, bias), output)) in weights.enumerate() {
            let launch = kernels::Matvec {
                weight: weight.kind,
                value: input.float_type,
                output: output.float_type,
                rows: weight.rows as u32,
                cols: weight.cols as u32,
                inputs: *rows as u32,
                added: bias.is_some(),
                experts: None,
            }
            .launch();
            let [codes, scales, biases] = weight.buffers();
            let buffers = [
                codes,
                scales,
                biases,
                input.all(),
                self.optional(*bias),
                (&self.nothing, 0),
                output.all(),
            ];
            // They share an input and write outputs of their own.
            self.run_beside(&launch, &buffers, index > 0);
        }
    }
}
