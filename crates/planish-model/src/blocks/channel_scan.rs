//! Mamba 1: a convolution of values, keys, queries and steps made of them, a scan, and a gate.

use planish_ops::{Activation, ChannelScan, Gate, Ops};

use super::convolution::ConvolutionLayer;
use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{ChannelScanSpec, Error};

pub(super) struct ChannelScanBlock<O: Ops> {
    spec: ChannelScanSpec,
    inputs: LinearLayer<O>,
    gate: LinearLayer<O>,
    convolution: ConvolutionLayer<O>,
    of_values: [LinearLayer<O>; 3], // to what steps are made of, keys, queries
    norms: Option<[NormLayer<O>; 3]>,
    steps: LinearLayer<O>,
    step_bias: O::Tensor, // (1, channels)
    rates: O::Tensor,     // (1, key_dim * channels)
    skip: O::Tensor,      // (1, channels)
    output: LinearLayer<O>,
}

impl<O: Ops> ChannelScanBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &ChannelScanSpec) -> Result<ChannelScanBlock<O>, Error> {
        let (channels, key_dim) = (spec.inputs.rows, spec.key.rows);
        let stored = loader.source.values(&spec.log_rates, &[&[channels, key_dim]])?;
        let of_number = |number: usize| stored.iter().skip(number).step_by(key_dim);
        let rates: Vec<f32> = (0..key_dim).flat_map(of_number).map(|rate| rate.exp()).collect();
        let vector = |name: &str| loader.vector(&loader.source.vector(name, channels)?);
        let norms = match &spec.norms {
            Some([step, key, query]) => Some([loader.norm(step)?, loader.norm(key)?, loader.norm(query)?]),
            None => None,
        };
        Ok(ChannelScanBlock {
            inputs: loader.linear(&spec.inputs)?,
            gate: loader.linear(&spec.gate)?,
            convolution: ConvolutionLayer::load(loader, &spec.convolution)?,
            of_values: [
                loader.linear(&spec.step_inputs)?,
                loader.linear(&spec.key)?,
                loader.linear(&spec.query)?,
            ],
            norms,
            steps: loader.linear(&spec.steps)?,
            step_bias: vector(&spec.step_bias)?,
            rates: loader.vector(&rates)?,
            skip: vector(&spec.skip)?,
            output: loader.linear(&spec.output)?,
            spec: spec.clone(),
        })
    }
}

impl<O: Ops> Block<O> for ChannelScanBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        let (channels, key_dim) = (self.spec.inputs.rows, self.spec.key.rows);
        [
            channels,
            channels,
            channels,
            channels,
            self.spec.steps.cols,
            key_dim,
            key_dim,
        ]
        .map(TensorSize::row)
        .into()
    }

    fn state(&self, ops: &O, slots: usize) -> Result<BlockState<O>, Error> {
        let (channels, key_dim) = (self.spec.inputs.rows, self.spec.key.rows);
        Ok(BlockState::Recurrence {
            history: self.convolution.history(ops, slots)?,
            state: ops.tensor_f32(slots * key_dim, channels).map_err(device_error)?,
        })
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::Recurrence { history, state } = state else {
            unreachable!("a scan made a state")
        };
        let [inputs, gate, values, mixed, ranked, keys, queries] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        pass.linear(pass.input, &[&self.inputs, &self.gate], &mut [&mut *inputs, &mut *gate]);
        pass.ops.convolve(self.convolution.of(pass, inputs, history, values));
        let of_values = &mut [&mut *ranked, &mut *keys, &mut *queries];
        pass.linear(values, &self.of_values.each_ref(), of_values);
        if let Some(norms) = &self.norms {
            for (norm, tensor) in norms.iter().zip([&mut *ranked, &mut *keys, &mut *queries]) {
                pass.ops.norm(norm.of(0..pass.rows, tensor));
            }
        }
        // What went into the convolution is not read again.
        let steps = inputs;
        pass.linear(ranked, &[&self.steps], &mut [&mut *steps]);
        pass.ops.scan_channels(ChannelScan {
            places: pass.places,
            values,
            steps,
            keys,
            queries,
            step_bias: &self.step_bias,
            rates: &self.rates,
            skip: &self.skip,
            state,
            output: &mut *mixed,
        });
        pass.ops.gate(Gate {
            rows: pass.rows,
            activation: Activation::Silu,
            gate: &mut *gate,
            up: Some(mixed),
        });
        self.output.run(pass, gate);
        Ok(())
    }
}
