//! The tensors between the operations, allocated once for the largest pass.

use std::collections::BTreeSet;

use planish_ops::{Ops, Shape};

use crate::blocks::{Angles, device_error};
use crate::streams::Streams;
use crate::{Architecture, Error, LayerSpec};

/// Rows of a pass at least, whatever memory they take.
const LEAST_ROWS: usize = 64;

/// What all blocks share, (rows, ..), and the tensors that blocks asked for.
pub(crate) struct Workspace<O: Ops> {
    /// Rows of a pass at most.
    pub(crate) rows: usize,
    pub(crate) hidden: O::Tensor,                    // (rows, hidden)
    pub(crate) normed: O::Tensor,                    // (rows, hidden)
    pub(crate) embedded: Option<O::Tensor>,          // (rows, cols of a factorized token table)
    pub(crate) deltas: Vec<O::Tensor>,               // each (rows, hidden): what the branches of a step leave
    pub(crate) layer_inputs: Option<[O::Tensor; 2]>, // each (rows, layers * width): the sum, and one of its terms
    pub(crate) streams: Option<Streams<O>>,          // other hidden states
    pub(crate) angles: Vec<Angles<O>>,               // of each rope
    pub(crate) sets: Vec<Vec<O::Tensor>>,            // by [`TensorSets::reserve`]
    pub(crate) adapters: AdapterTensors<O>,
}

/// What layers with an adapter need: columns of `A x`, and of `B (A x)`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdapterSizes {
    ranks: BTreeSet<usize>,
    widths: BTreeSet<usize>,
}

impl AdapterSizes {
    /// A layer of so many rows with an adapter of that rank.
    pub(crate) fn add(&mut self, rank: usize, rows: usize) {
        self.ranks.insert(rank);
        self.widths.insert(rows);
    }
}

/// The tensors of [`AdapterSizes`], each (rows, size).
pub(crate) struct AdapterTensors<O: Ops> {
    reduced: Vec<O::Tensor>,
    added: Vec<O::Tensor>,
}

impl<O: Ops> AdapterTensors<O> {
    /// Those of an adapter of that rank, for a layer of so many rows.
    pub(crate) fn of(&mut self, rank: usize, rows: usize) -> (&mut O::Tensor, &mut O::Tensor) {
        let of_width = |tensors: &[O::Tensor], cols: usize| {
            let index = tensors.iter().position(|tensor| tensor.cols() == cols);
            index.expect("the loader counted the sizes of every adapter")
        };
        let (reduced, added) = (of_width(&self.reduced, rank), of_width(&self.added, rows));
        (&mut self.reduced[reduced], &mut self.added[added])
    }
}

/// A tensor that a block needs: `per_row` rows of `cols` values for each row of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TensorSize {
    pub(crate) per_row: usize,
    pub(crate) cols: usize,
    /// In f32 on every device.
    pub(crate) in_f32: bool,
}

impl TensorSize {
    /// One row for each row of a pass.
    pub(crate) fn row(cols: usize) -> TensorSize {
        TensorSize {
            per_row: 1,
            cols,
            in_f32: false,
        }
    }

    /// The same in f32 on every device.
    pub(crate) fn f32_row(cols: usize) -> TensorSize {
        TensorSize {
            in_f32: true,
            ..TensorSize::row(cols)
        }
    }
}

/// The sets of tensors that blocks need. Blocks of equal sizes share one: blocks run one after another, and nothing in a
/// set outlives a block's run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TensorSets {
    sets: Vec<Vec<TensorSize>>,
}

impl TensorSets {
    /// Index of a set of these sizes.
    pub(crate) fn reserve(&mut self, sizes: Vec<TensorSize>) -> usize {
        if let Some(index) = self.sets.iter().position(|set| *set == sizes) {
            return index;
        }
        self.sets.push(sizes);
        self.sets.len() - 1
    }
}

impl<O: Ops> Workspace<O> {
    pub(crate) fn new(
        ops: &O,
        architecture: &Architecture,
        sets: &TensorSets,
        adapters: &AdapterSizes,
    ) -> Result<Workspace<O>, Error> {
        let steps = architecture.layers.iter().flat_map(|LayerSpec { steps }| steps);
        let branches = steps.map(|step| step.branches.len()).max().unwrap_or(1);
        let sizes = sets.sets.iter().flatten();
        let set_values: usize = sizes.map(|size| size.per_row * size.cols).sum();
        let layer_inputs = architecture.embedding.layer_inputs.as_ref();
        let input_values = layer_inputs.map_or(0, |spec| 2 * spec.layers * spec.width);
        let streams = architecture.embedding.streams.as_ref();
        let stream_values = streams.map_or(0, |spec| Streams::<O>::row_values(spec, architecture.hidden));
        let adapter_values: usize = adapters.ranks.iter().chain(&adapters.widths).sum();
        let values = set_values + input_values + stream_values + adapter_values;
        let row_bytes = 4 * ((2 + branches) * architecture.hidden + values);
        let rows = (O::PASS.bytes / row_bytes).clamp(LEAST_ROWS, O::PASS.rows) / 32 * 32;
        let sized = |size: &TensorSize| {
            let rows = rows * size.per_row;
            let tensor = match size.in_f32 {
                true => ops.tensor_f32(rows, size.cols),
                false => ops.tensor(rows, size.cols),
            };
            tensor.map_err(device_error)
        };
        let tensor = |cols| sized(&TensorSize::row(cols));
        let factorized = architecture.embedding.factorized.as_ref();
        let ropes = architecture.ropes.iter().map(|rope| {
            let tensor = ops.tensor_f32(rows, rope.rotated).map_err(device_error)?;
            let pairs = rope.pairs;
            Ok(Angles { tensor, pairs })
        });
        let sets = sets.sets.iter().map(|set| set.iter().map(sized).collect());
        Ok(Workspace {
            rows,
            hidden: tensor(architecture.hidden)?,
            normed: tensor(architecture.hidden)?,
            layer_inputs: match &architecture.embedding.layer_inputs {
                Some(spec) => Some([tensor(spec.layers * spec.width)?, tensor(spec.layers * spec.width)?]),
                None => None,
            },
            streams: match streams {
                Some(spec) => Some(Streams::new(ops, spec, rows, architecture.hidden)?),
                None => None,
            },
            embedded: factorized.map(|layers| tensor(layers.project_in.cols)).transpose()?,
            deltas: (0..branches)
                .map(|_| tensor(architecture.hidden))
                .collect::<Result<_, _>>()?,
            angles: ropes.collect::<Result<_, Error>>()?,
            sets: sets.collect::<Result<_, _>>()?,
            adapters: AdapterTensors {
                reduced: adapters.ranks.iter().copied().map(tensor).collect::<Result<_, _>>()?,
                added: adapters.widths.iter().copied().map(tensor).collect::<Result<_, _>>()?,
            },
        })
    }
}
