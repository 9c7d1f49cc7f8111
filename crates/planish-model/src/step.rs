//! The steps of a layer: `x = factor * (x + sum_norm(sum over branches of scale * post_norm(block(norm(x)))))`.
//!
//! What a step leaves is not added at once: the next norm does it on its way.

use planish_ops::{Add, CopyRows, Norm, Ops, Places, Residual};

use crate::blocks::{Block, BlockState, Loader, NormLayer, Pass, load_block};
use crate::streams::Mixer;
use crate::workspace::{TensorSets, Workspace};
use crate::{BranchSpec, Error, StepSpec, StreamUse};

/// A step with its weights.
pub(crate) struct Step<O: Ops> {
    branches: Vec<Branch<O>>,
    sum_norm: Option<NormLayer<O>>,
    norm: Option<NormLayer<O>>, // of x
    factor: f32,
    streams: Option<StreamLayer<O>>,
}

/// See [`StreamUse`].
enum StreamLayer<O: Ops> {
    Predict(Mixer<O>),
    Correct(Mixer<O>),
    Spread,
}

struct Branch<O: Ops> {
    norm: Option<NormLayer<O>>,
    /// The norm is that of the branch before: its result is still there.
    same_norm: bool,
    block: Box<dyn Block<O>>,
    tensors: usize, // index into the sets of the workspace
    post_norm: Option<NormLayer<O>>,
    scale: f32,
}

/// What must still be added to the hidden state.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    delta: usize, // index into the deltas of the workspace
    factor: f32,
}

impl Pending {
    /// What stands in the first delta.
    pub(crate) const FIRST: Pending = Pending { delta: 0, factor: 1.0 };

    /// As the residual of a norm.
    pub(crate) fn residual<O: Ops>(self, deltas: &[O::Tensor]) -> Residual<'_, O> {
        Residual {
            tensor: &deltas[self.delta],
            factor: self.factor,
        }
    }
}

/// The rows of a pass on their way through the steps.
pub(crate) struct Stream<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// Rows of this pass.
    pub(crate) rows: usize,
    /// Where they stand.
    pub(crate) places: Places<'a, O>,
    /// `hidden` without `pending`.
    pub(crate) workspace: &'a mut Workspace<O>,
    /// What must still be added.
    pub(crate) pending: Option<Pending>,
}

impl<O: Ops> Step<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, spec: &StepSpec, sets: &mut TensorSets) -> Result<Step<O>, Error> {
        let mut before: Option<&BranchSpec> = None;
        let branches = spec.branches.iter().map(|branch| {
            let same_norm = branch.norm.is_some() && before.is_some_and(|before| before.norm == branch.norm);
            before = Some(branch);
            let norm = match same_norm {
                true => None,
                false => loader.optional_norm(&branch.norm)?,
            };
            let block = load_block(loader, &branch.block)?;
            Ok(Branch {
                norm,
                same_norm,
                tensors: sets.reserve(block.tensors()),
                block,
                post_norm: loader.optional_norm(&branch.post_norm)?,
                scale: branch.scale,
            })
        });
        Ok(Step {
            branches: branches.collect::<Result<_, Error>>()?,
            sum_norm: loader.optional_norm(&spec.sum_norm)?,
            norm: loader.optional_norm(&spec.norm)?,
            factor: spec.scale
                * match &spec.factor {
                    Some(name) => loader.source.values(name, &[&[1], &[]])?[0],
                    None => 1.0,
                },
            streams: match &spec.streams {
                Some(StreamUse::Predict(mixer)) => Some(StreamLayer::Predict(Mixer::load(loader, mixer)?)),
                Some(StreamUse::Correct(mixer)) => Some(StreamLayer::Correct(Mixer::load(loader, mixer)?)),
                Some(StreamUse::Spread) => Some(StreamLayer::Spread),
                None => None,
            },
        })
    }

    /// The state of each branch, for sequences in so many slots.
    pub(crate) fn states(&self, ops: &O, slots: usize) -> Result<Vec<BlockState<O>>, Error> {
        self.branches
            .iter()
            .map(|branch| branch.block.state(ops, slots))
            .collect()
    }

    /// Runs all branches; their sum is pending, or added but for the last one's part.
    pub(crate) fn run(&self, stream: &mut Stream<'_, O>, states: &mut [BlockState<O>]) -> Result<(), Error> {
        if let Some(StreamLayer::Predict(mixer)) = &self.streams {
            stream.predict(mixer);
        }
        for (index, (branch, state)) in self.branches.iter().zip(states).enumerate() {
            stream.prepare(branch);
            stream.run_block(branch, index, state)?;
        }
        match (&self.sum_norm, &self.streams) {
            (_, Some(StreamLayer::Spread)) => stream.pending = stream.spread().then_some(Pending::FIRST),
            (Some(norm), _) => stream.sum_normalized(&self.branches, norm),
            (None, _) => {
                for (delta, branch) in self.branches.iter().enumerate() {
                    let factor = branch.scale;
                    stream.add_pending();
                    stream.pending = Some(Pending { delta, factor });
                }
            }
        }
        if let Some(norm) = &self.norm {
            stream.normalize_hidden(norm);
        }
        if self.factor != 1.0 {
            stream.multiply_hidden(self.factor);
        }
        if let Some(StreamLayer::Correct(mixer)) = &self.streams {
            stream.correct(mixer);
        }
        Ok(())
    }
}

impl<O: Ops> Stream<'_, O> {
    /// Adds what is pending and normalizes, in one go where there is a norm.
    fn prepare(&mut self, branch: &Branch<O>) {
        let Some(norm) = &branch.norm else {
            return self.add_pending();
        };
        let Workspace {
            hidden, normed, deltas, ..
        } = &mut *self.workspace;
        let residual = self.pending.take().map(|pending| pending.residual(deltas));
        self.ops.norm(Norm {
            residual,
            output: Some(normed),
            ..norm.of(0..self.rows, hidden)
        });
    }

    /// Brings `hidden` up to date.
    pub(crate) fn add_pending(&mut self) {
        let Some(Pending { delta, factor }) = self.pending.take() else {
            return;
        };
        let Workspace { hidden, deltas, .. } = &mut *self.workspace;
        self.ops.add(Add {
            rows: self.rows,
            target: hidden,
            source: &deltas[delta],
            factor,
        });
    }

    /// Normalizes `hidden` itself.
    pub(crate) fn normalize_hidden(&mut self, norm: &NormLayer<O>) {
        let Workspace { hidden, deltas, .. } = &mut *self.workspace;
        let residual = self.pending.take().map(|pending| pending.residual(deltas));
        self.ops.norm(Norm {
            residual,
            ..norm.of(0..self.rows, hidden)
        });
    }

    /// Adds up what the branches left; the normalized sum is pending.
    fn sum_normalized(&mut self, branches: &[Branch<O>], norm: &NormLayer<O>) {
        self.add_pending();
        let Some((sum, others)) = self.workspace.deltas.split_first_mut() else {
            unreachable!("a step has a branch")
        };
        // The norm takes the scale of the first away, but for its epsilon.
        for (branch, source) in branches[1..].iter().zip(others) {
            self.ops.add(Add {
                rows: self.rows,
                target: &mut *sum,
                source,
                factor: branch.scale / branches[0].scale,
            });
        }
        self.ops.norm(norm.of(0..self.rows, sum));
        self.pending = Some(Pending::FIRST);
    }

    /// `hidden + (factor - 1) * hidden`, of which the second part is pending.
    fn multiply_hidden(&mut self, factor: f32) {
        self.add_pending();
        let Workspace { hidden, deltas, .. } = &mut *self.workspace;
        self.ops.copy_rows(CopyRows {
            source: Some(hidden),
            from: 0,
            target: &mut deltas[0],
            to: 0,
            rows: self.rows,
        });
        let factor = factor - 1.0;
        self.pending = Some(Pending { delta: 0, factor });
    }

    /// From the normalized rows, or `hidden` where there is no norm, to the branch's delta.
    fn run_block(&mut self, branch: &Branch<O>, delta: usize, state: &mut BlockState<O>) -> Result<(), Error> {
        let workspace = &mut *self.workspace;
        let normalized = branch.norm.is_some() || branch.same_norm;
        let mut pass = Pass {
            ops: self.ops,
            rows: self.rows,
            places: self.places,
            angles: &workspace.angles,
            hidden: &workspace.hidden,
            layer_inputs: workspace.layer_inputs.as_ref().map(|[inputs, _]| inputs),
            input: if normalized {
                &workspace.normed
            } else {
                &workspace.hidden
            },
            output: &mut workspace.deltas[delta],
            tensors: &mut workspace.sets[branch.tensors],
            adapters: &mut workspace.adapters,
        };
        branch.block.run(&mut pass, state)?;
        if let Some(norm) = &branch.post_norm {
            self.ops.norm(norm.of(0..self.rows, &mut workspace.deltas[delta]));
        }
        Ok(())
    }
}
