//! Causal convolution with its weight, and the block of a gated short one.

use planish_ops::{Activation, Convolution, Ops};

use super::{Block, BlockState, LinearLayer, Loader, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{ConvolutionSpec, Error, ShortConvolutionSpec};

/// A convolution of channels; the factors of its spec are folded into the weight.
pub(super) struct ConvolutionLayer<O: Ops> {
    weight: O::Tensor,       // (1, taps * channels)
    bias: Option<O::Tensor>, // (1, channels)
    activation: Option<Activation>,
    taps: usize,
    channels: usize,
}

impl<O: Ops> ConvolutionLayer<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &ConvolutionSpec) -> Result<ConvolutionLayer<O>, Error> {
        let (channels, taps) = (spec.channels, spec.taps);
        let mut stored = loader
            .source
            .values(&format!("{}.weight", spec.name), &[&[channels, 1, taps]])?;
        for (range, factor) in &spec.factors {
            let weights = &mut stored[range.start * taps..range.end * taps];
            weights.iter_mut().for_each(|weight| *weight *= factor);
        }
        let of_tap = |tap: usize| stored.iter().skip(tap).step_by(taps).copied();
        let weight: Vec<f32> = (0..taps).flat_map(of_tap).collect();
        let bias = match spec.bias {
            true => Some(loader.source.vector(&format!("{}.bias", spec.name), channels)?),
            false => None,
        };
        Ok(ConvolutionLayer {
            weight: loader.vector(&weight)?,
            bias: bias.map(|bias| loader.vector(&bias)).transpose()?,
            activation: spec.activation,
            taps,
            channels,
        })
    }

    /// The last inputs of sequences. // (slots * (taps - 1), channels)
    pub(super) fn history(&self, ops: &O, slots: usize) -> Result<O::Tensor, Error> {
        ops.tensor_f32(slots * (self.taps - 1), self.channels)
            .map_err(device_error)
    }

    /// The convolution of an input without gates.
    pub(super) fn of<'a>(
        &'a self,
        pass: &Pass<'a, O>,
        input: &'a O::Tensor,
        history: &'a mut O::Tensor,
        output: &'a mut O::Tensor,
    ) -> Convolution<'a, O> {
        Convolution {
            places: pass.places,
            input,
            input_gate: None,
            weight: &self.weight,
            bias: self.bias.as_ref(),
            activation: self.activation,
            output_gate: None,
            history,
            output,
        }
    }
}

pub(super) struct ShortConvolutionBlock<O: Ops> {
    input_gate: LinearLayer<O>,
    output_gate: LinearLayer<O>,
    input: LinearLayer<O>,
    convolution: ConvolutionLayer<O>,
    output: LinearLayer<O>,
}

impl<O: Ops> ShortConvolutionBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &ShortConvolutionSpec) -> Result<ShortConvolutionBlock<O>, Error> {
        Ok(ShortConvolutionBlock {
            input_gate: loader.linear(&spec.input_gate)?,
            output_gate: loader.linear(&spec.output_gate)?,
            input: loader.linear(&spec.input)?,
            convolution: ConvolutionLayer::load(loader, &spec.convolution)?,
            output: loader.linear(&spec.output)?,
        })
    }
}

impl<O: Ops> Block<O> for ShortConvolutionBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        vec![TensorSize::row(self.convolution.channels); 4]
    }

    fn state(&self, ops: &O, slots: usize) -> Result<BlockState<O>, Error> {
        let history = self.convolution.history(ops, slots)?;
        Ok(BlockState::Convolution { history })
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::Convolution { history } = state else {
            unreachable!("a convolution made a history")
        };
        let [input_gate, output_gate, input, convolved] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        let layers = [&self.input_gate, &self.output_gate, &self.input];
        let outputs = &mut [&mut *input_gate, &mut *output_gate, &mut *input];
        pass.linear(pass.input, &layers, outputs);
        pass.ops.convolve(Convolution {
            input_gate: Some(input_gate),
            output_gate: Some(output_gate),
            ..self.convolution.of(pass, input, history, convolved)
        });
        self.output.run(pass, convolved);
        Ok(())
    }
}
