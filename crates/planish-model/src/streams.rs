//! Several hidden states side by side: what begins, predicts, corrects and ends them.

use std::ops::Range;

use planish_ops::{Activation, Add, CopyHeads, Gate, HeadPart, Mix, Norm, Ops, Rescale, Shape};

use crate::blocks::{LinearLayer, Loader, NormLayer, device_error};
use crate::step::Stream;
use crate::workspace::Workspace;
use crate::{Error, LinearSpec, MixerSpec, StreamsSpec};

/// The streams of a pass.
pub(crate) struct Streams<O: Ops> {
    count: usize,
    active: usize,
    values: [O::Tensor; 2], // (rows, count * hidden): the streams, and room for what is predicted of them
    current: usize,         // which of the two
    routed: O::Tensor,      // (rows, count)
    predictions: O::Tensor, // (rows, count * count), f32
    corrections: O::Tensor, // (rows, count), f32
}

impl<O: Ops> Streams<O> {
    pub(crate) fn new(ops: &O, spec: &StreamsSpec, rows: usize, hidden: usize) -> Result<Streams<O>, Error> {
        let tensor = |cols| ops.tensor(rows, cols).map_err(device_error);
        let factors = |cols| ops.tensor_f32(rows, cols).map_err(device_error);
        let count = spec.count;
        Ok(Streams {
            count,
            active: spec.active,
            values: [tensor(count * hidden)?, tensor(count * hidden)?],
            current: 0,
            routed: tensor(count)?,
            predictions: factors(count * count)?,
            corrections: factors(count)?,
        })
    }

    /// Values of all tensors for a row of a pass.
    pub(crate) fn row_values(spec: &StreamsSpec, hidden: usize) -> usize {
        2 * spec.count * hidden + (2 + spec.count) * spec.count
    }

    /// One of the streams, to `target`. // (rows, hidden)
    fn take(&self, ops: &O, rows: usize, stream: usize, target: &mut O::Tensor) {
        let width = target.cols();
        ops.copy_heads(CopyHeads {
            rows,
            heads: 1,
            width,
            input: &self.values[self.current],
            from: part(self.count, stream, width),
            output: target,
            to: part(1, 0, width),
        });
    }

    /// One of the streams becomes `source`. // (rows, hidden)
    fn store(&mut self, ops: &O, rows: usize, stream: usize, source: &O::Tensor) {
        let width = source.cols();
        ops.copy_heads(CopyHeads {
            rows,
            heads: 1,
            width,
            input: source,
            from: part(1, 0, width),
            output: &mut self.values[self.current],
            to: part(self.count, stream, width),
        });
    }

    /// Some of the streams gain `source`. // (rows, hidden)
    fn gain(&mut self, ops: &O, rows: usize, streams: Range<usize>, source: &O::Tensor) {
        ops.mix(Mix {
            rows,
            width: source.cols(),
            factors: None,
            source,
            target: &mut self.values[self.current],
            parts: streams,
            adds: true,
        });
    }
}

/// A part of so many in a row.
fn part(count: usize, index: usize, width: usize) -> HeadPart {
    HeadPart {
        stride: count * width,
        start: index * width,
    }
}

/// What mixes the streams in a step.
pub(crate) struct Mixer<O: Ops> {
    norm: NormLayer<O>,
    router: LinearLayer<O>,
    coefficients: LinearLayer<O>, // their bias is what is there without them
}

impl<O: Ops> Mixer<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, spec: &MixerSpec) -> Result<Mixer<O>, Error> {
        let (rows, count) = (spec.coefficients.rows, spec.coefficients.cols);
        // A prediction begins with the streams themselves, a correction with all of the difference.
        let stays = |index: usize| rows == count || index.is_multiple_of(count + 1);
        let base: Vec<f32> = (0..rows).map(|index| f32::from(u8::from(stays(index)))).collect();
        Ok(Mixer {
            norm: loader.norm(&spec.norm)?,
            router: loader.merged_linear(&spec.router)?,
            coefficients: LinearLayer {
                bias: Some(loader.vector(&base)?),
                ..loader.merged_linear(&spec.coefficients)?
            },
        })
    }

    /// The coefficients of every row, by its `hidden`.
    fn route(
        &self,
        (ops, rows): (&O, usize),
        (hidden, normed): (&mut O::Tensor, &mut O::Tensor),
        routed: &mut O::Tensor,
        coefficients: &mut O::Tensor,
    ) {
        ops.norm(Norm {
            output: Some(&mut *normed),
            ..self.norm.of(0..rows, hidden)
        });
        self.router.apply(ops, rows, normed, routed);
        ops.gate(Gate {
            rows,
            activation: Activation::Tanh,
            gate: &mut *routed,
            up: None,
        });
        self.coefficients.apply(ops, rows, routed, coefficients);
    }
}

/// The projections at both ends.
pub(crate) struct StreamEnds<O: Ops> {
    project_in: Vec<LinearLayer<O>>,
    project_out: Vec<LinearLayer<O>>,
    floor: f32,
}

impl<O: Ops> StreamEnds<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, spec: &StreamsSpec) -> Result<StreamEnds<O>, Error> {
        let layers = |specs: &[LinearSpec]| {
            specs
                .iter()
                .map(|spec| loader.merged_linear(spec))
                .collect::<Result<_, Error>>()
        };
        Ok(StreamEnds {
            project_in: layers(&spec.project_in)?,
            project_out: layers(&spec.project_out)?,
            floor: spec.floor,
        })
    }

    /// From `hidden`, the first stream, to all of them; `hidden` is the active one then.
    pub(crate) fn begin(&self, stream: &mut Stream<'_, O>) {
        stream.add_pending();
        let (ops, rows) = (stream.ops, stream.rows);
        let Parts {
            hidden, delta, streams, ..
        } = parts(stream.workspace);
        streams.current = 0;
        streams.store(ops, rows, 0, hidden);
        for (index, layer) in self.project_in.iter().enumerate() {
            self.project((ops, rows), layer, (hidden, hidden), delta);
            streams.store(ops, rows, index + 1, delta);
        }
        streams.take(ops, rows, streams.active, hidden);
    }

    /// From all streams to their sum in `hidden`.
    pub(crate) fn end(&self, stream: &mut Stream<'_, O>) {
        stream.add_pending();
        let (ops, rows) = (stream.ops, stream.rows);
        let Parts {
            hidden,
            normed,
            delta,
            streams,
        } = parts(stream.workspace);
        streams.take(ops, rows, 0, hidden);
        for (index, layer) in self.project_out.iter().enumerate() {
            streams.take(ops, rows, index + 1, normed);
            self.project((ops, rows), layer, (normed, hidden), delta);
            streams.gain(ops, rows, 0..1, delta);
        }
        streams.take(ops, rows, 0, hidden);
    }

    /// `source` through a projection, with the magnitude of `like`.
    fn project(
        &self,
        (ops, rows): (&O, usize),
        layer: &LinearLayer<O>,
        (source, like): (&O::Tensor, &O::Tensor),
        target: &mut O::Tensor,
    ) {
        layer.apply(ops, rows, source, target);
        ops.rescale(Rescale {
            rows,
            values: target,
            like,
            floor: self.floor,
        });
    }
}

/// What a workspace has for streams.
struct Parts<'a, O: Ops> {
    hidden: &'a mut O::Tensor,
    normed: &'a mut O::Tensor,
    delta: &'a mut O::Tensor,
    streams: &'a mut Streams<O>,
}

fn parts<O: Ops>(workspace: &mut Workspace<O>) -> Parts<'_, O> {
    match workspace {
        Workspace {
            hidden,
            normed,
            deltas,
            streams: Some(streams),
            ..
        } => Parts {
            hidden,
            normed,
            delta: &mut deltas[0],
            streams,
        },
        _ => unreachable!("a model whose steps use streams has them"),
    }
}

impl<O: Ops> Stream<'_, O> {
    /// Every stream becomes what all predict of it, and `hidden` the active one.
    pub(crate) fn predict(&mut self, mixer: &Mixer<O>) {
        self.add_pending();
        let (ops, rows) = (self.ops, self.rows);
        let Parts {
            hidden,
            normed,
            streams,
            ..
        } = parts(self.workspace);
        mixer.route(
            (ops, rows),
            (hidden, normed),
            &mut streams.routed,
            &mut streams.predictions,
        );
        let [first, second] = &mut streams.values;
        let (source, target) = match streams.current {
            0 => (&*first, second),
            _ => (&*second, first),
        };
        ops.mix(Mix {
            rows,
            width: hidden.cols(),
            factors: Some(&streams.predictions),
            source,
            target,
            parts: 0..streams.count,
            adds: false,
        });
        streams.current = 1 - streams.current;
        streams.take(ops, rows, streams.active, hidden);
    }

    /// Every stream gains its share of what `hidden` has beyond the active one, which `hidden` becomes.
    pub(crate) fn correct(&mut self, mixer: &Mixer<O>) {
        self.add_pending();
        let (ops, rows) = (self.ops, self.rows);
        let Parts {
            hidden,
            normed,
            delta,
            streams,
        } = parts(self.workspace);
        mixer.route(
            (ops, rows),
            (hidden, normed),
            &mut streams.routed,
            &mut streams.corrections,
        );
        streams.take(ops, rows, streams.active, delta);
        ops.add(Add {
            rows,
            target: &mut *hidden,
            source: delta,
            factor: -1.0,
        });
        ops.mix(Mix {
            rows,
            width: hidden.cols(),
            factors: Some(&streams.corrections),
            source: hidden,
            target: &mut streams.values[streams.current],
            parts: 0..streams.count,
            adds: true,
        });
        streams.take(ops, rows, streams.active, hidden);
    }

    /// All streams but the first gain what a branch left. Returns whether `hidden` is among them.
    pub(crate) fn spread(&mut self) -> bool {
        let (ops, rows) = (self.ops, self.rows);
        let Parts { delta, streams, .. } = parts(self.workspace);
        streams.gain(ops, rows, 1..streams.count, delta);
        streams.active > 0
    }
}
