//! A layer's own embedding of the token, let through by a gate of the hidden state.

use planish_ops::{Activation, CopyHeads, Gate, HeadPart, Ops};

use super::{Block, BlockState, LinearLayer, Loader, Pass};
use crate::workspace::TensorSize;
use crate::{Error, LayerInputSpec};

pub(super) struct LayerInputBlock<O: Ops> {
    gate: LinearLayer<O>,
    output: LinearLayer<O>,
    activation: Activation,
    layer: usize,
    layers: usize,
    width: usize,
}

impl<O: Ops> LayerInputBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &LayerInputSpec) -> Result<LayerInputBlock<O>, Error> {
        Ok(LayerInputBlock {
            gate: loader.linear(&spec.gate)?,
            output: loader.linear(&spec.output)?,
            activation: spec.activation,
            layer: spec.layer,
            layers: spec.layers,
            width: spec.gate.rows,
        })
    }
}

impl<O: Ops> Block<O> for LayerInputBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        vec![TensorSize::row(self.width); 2]
    }

    fn run(&self, pass: &mut Pass<'_, O>, _state: &mut BlockState<O>) -> Result<(), Error> {
        let ([gated, part], Some(inputs)) = (std::mem::take(&mut pass.tensors), pass.layer_inputs) else {
            unreachable!("as many as tensors() says, beside the inputs of layers")
        };
        pass.linear(pass.input, &[&self.gate], &mut [&mut *gated]);
        pass.ops.copy_heads(CopyHeads {
            rows: pass.rows,
            heads: 1,
            width: self.width,
            input: inputs,
            from: HeadPart {
                stride: self.layers * self.width,
                start: self.layer * self.width,
            },
            output: part,
            to: HeadPart {
                stride: self.width,
                start: 0,
            },
        });
        pass.ops.gate(Gate {
            rows: pass.rows,
            activation: self.activation,
            gate: &mut *gated,
            up: Some(part),
        });
        self.output.run(pass, gated);
        Ok(())
    }
}
