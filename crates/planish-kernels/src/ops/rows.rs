//! Operations on rows that multiply no matrix: norms, additions, activations, rotation.

use planish_gpu::{Error, Queue};

use super::{GpuOps, GpuTensor, lock};
use crate::launch;
use planish_ops::{Add, CopyRows, Cut, Gate, HeadPart, Mix, Norm, Rescale, Rope, RopeAngles, RopePairs};

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_norm(&self, problem: &Norm<'_, GpuOps<Q>>) {
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
        let launch = launch::Norm {
            kind: *kind,
            value: hidden.float_type,
            rows: rows.len() as u32,
            first_row: rows.start as u32,
            cols: hidden.cols as u32,
            width: *width as u32,
            size: weight.or(*bias).map_or(*width, |vector| vector.cols) as u32,
            residual: residual.as_ref().map(|residual| residual.factor),
            weight: weight.is_some(),
            bias: bias.is_some(),
            epsilon: *epsilon,
            in_place: output.is_none(),
        }
        .launch();
        let residual = residual.as_ref().map(|residual| residual.tensor);
        let output = output.as_deref();
        self.run(
            &launch,
            &[
                hidden.all(),
                self.optional(residual),
                self.optional(*weight),
                self.optional(*bias),
                output.unwrap_or(hidden).all(),
            ],
        );
    }

    pub(super) fn run_add(&self, problem: &Add<'_, GpuOps<Q>>) {
        let Add {
            rows,
            target,
            source,
            factor,
        } = problem;
        let launch = launch::Add {
            value: target.float_type,
            count: (rows * target.cols) as u32,
            factor: *factor,
        }
        .launch();
        self.run(&launch, &[target.all(), source.all()]);
    }

    pub(super) fn run_mix(&self, problem: &Mix<'_, GpuOps<Q>>) {
        let Mix {
            rows,
            width,
            factors,
            source,
            target,
            parts,
            adds,
        } = problem;
        let launch = launch::Mix {
            value: target.float_type,
            rows: *rows as u32,
            width: *width as u32,
            inputs: (source.cols / width) as u32,
            target_cols: target.cols as u32,
            first_part: parts.start as u32,
            parts: parts.len() as u32,
            weighed: factors.is_some(),
            adds: *adds,
        }
        .launch();
        self.run(&launch, &[self.optional(*factors), source.all(), target.all()]);
    }

    pub(super) fn run_cut(&self, problem: &Cut<'_, GpuOps<Q>>) {
        let launch = launch::Cut {
            value: problem.values.float_type,
            rows: problem.rows as u32,
            cols: problem.values.cols as u32,
            deviations: problem.deviations,
        }
        .launch();
        self.run(&launch, &[problem.values.all()]);
    }

    pub(super) fn run_rescale(&self, problem: &Rescale<'_, GpuOps<Q>>) {
        let launch = launch::Rescale {
            value: problem.values.float_type,
            rows: problem.rows as u32,
            cols: problem.values.cols as u32,
            floor: problem.floor,
        }
        .launch();
        self.run(&launch, &[problem.values.all(), problem.like.all()]);
    }

    pub(super) fn run_gate(&self, problem: &Gate<'_, GpuOps<Q>>) {
        let Gate {
            rows,
            activation,
            gate,
            up,
        } = problem;
        let launch = launch::Gate {
            value: gate.float_type,
            count: (rows * gate.cols) as u32,
            activation: *activation,
            gated: up.is_some(),
        }
        .launch();
        self.run(&launch, &[gate.all(), self.optional(*up)]);
    }

    pub(super) fn run_rope_angles(&self, problem: &RopeAngles<'_, GpuOps<Q>>) -> Result<(), Error> {
        let RopeAngles {
            frequencies,
            factor,
            places,
            output,
        } = problem;
        let launch = launch::RopeAngles {
            rows: places.rows() as u32,
            first_row: places.first_row() as u32,
            rotated: output.cols as u32,
            factor: *factor,
        }
        .launch();
        let frequencies = self.frequencies(frequencies)?;
        self.run(&launch, &[(&frequencies, 0), places.sequences.places(), output.all()]);
        Ok(())
    }

    pub(super) fn run_rope(&self, problem: &Rope<'_, GpuOps<Q>>) {
        let Rope {
            rows,
            heads,
            head_dim,
            angles,
            pairs,
        } = problem;
        let launch = launch::Rope {
            value: heads.float_type,
            rows: *rows as u32,
            heads: (heads.cols / head_dim) as u32,
            head_dim: *head_dim as u32,
            rotated: angles.cols as u32,
            neighbours: *pairs == RopePairs::Neighbours,
        }
        .launch();
        // Queries and keys follow one another, and their rotations overlap.
        let overlaps = lock(&self.rotated).is_some_and(|before| before != heads.id);
        self.run_overlapping(&launch, &[heads.all(), angles.all()], overlaps);
        *lock(&self.rotated) = Some(heads.id);
    }

    pub(super) fn run_copy_rows(&self, problem: &CopyRows<'_, GpuOps<Q>>) {
        let CopyRows {
            source,
            from,
            target,
            to,
            rows,
        } = problem;
        let source = source.unwrap_or(target);
        assert_eq!(source.float_type, target.float_type);
        let width = source.cols;
        let part = |row: &usize| HeadPart {
            stride: width,
            start: row * width,
        };
        let launch = launch::CopyHeads {
            value: source.float_type,
            parts: *rows as u32,
            width: width as u32,
            from: part(from),
            to: part(to),
        }
        .launch();
        self.run(&launch, &[source.all(), target.all()]);
    }

    /// What is bound for a tensor that may be absent.
    pub(super) fn optional<'a>(&'a self, tensor: Option<&'a GpuTensor<Q>>) -> (&'a Q::Buffer, usize) {
        tensor.map_or((&self.nothing, 0), GpuTensor::all)
    }
}
