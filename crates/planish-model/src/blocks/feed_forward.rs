//! The feed-forward block, gated or plain.

use planish_ops::{Activation, Gate, Linear, Ops};

use super::{LinearLayer, Pass};
use crate::clock::Phase;
use crate::source::WeightSource;
use crate::{Error, FeedForwardSpec};

pub(crate) struct FeedForwardBlock<O: Ops> {
    gate: Option<LinearLayer<O>>,
    up: LinearLayer<O>,
    down: LinearLayer<O>,
    activation: Activation,
}

impl<O: Ops> FeedForwardBlock<O> {
    pub(crate) fn load(
        ops: &O,
        source: &dyn WeightSource,
        spec: &FeedForwardSpec,
    ) -> Result<FeedForwardBlock<O>, Error> {
        let linear = |spec| LinearLayer::load(ops, source, spec);
        let (gate, up, down, activation) = match spec {
            FeedForwardSpec::Gated {
                gate,
                up,
                down,
                activation,
            } => (Some(linear(gate)?), up, down, *activation),
            FeedForwardSpec::Plain { up, down, activation } => (None, up, down, *activation),
        };
        Ok(FeedForwardBlock {
            gate,
            up: linear(up)?,
            down: linear(down)?,
            activation,
        })
    }

    /// From `normed` to `delta` of the workspace.
    pub(crate) fn run(&self, pass: &mut Pass<'_, O>) {
        let Pass {
            ops,
            rows,
            workspace,
            clock,
            ..
        } = pass;
        let rows = *rows;
        let (input, activation) = (&workspace.normed, self.activation);
        match &self.gate {
            Some(gate) => {
                ops.linear(Linear {
                    rows,
                    input,
                    weights: &[&gate.weight, &self.up.weight],
                    biases: &[gate.bias.as_ref(), self.up.bias.as_ref()],
                    outputs: &mut [&mut workspace.gate, &mut workspace.up],
                });
                clock.lap(Phase::Matmul);
                ops.gate(Gate {
                    rows,
                    activation,
                    gate: &mut workspace.gate,
                    up: Some(&workspace.up),
                });
            }
            None => {
                ops.linear(Linear {
                    rows,
                    input,
                    weights: &[&self.up.weight],
                    biases: &[self.up.bias.as_ref()],
                    outputs: &mut [&mut workspace.gate],
                });
                clock.lap(Phase::Matmul);
                ops.gate(Gate {
                    rows,
                    activation,
                    gate: &mut workspace.gate,
                    up: None,
                });
            }
        }
        clock.lap(Phase::Other);
        ops.linear(Linear {
            rows,
            input: &workspace.gate,
            weights: &[&self.down.weight],
            biases: &[self.down.bias.as_ref()],
            outputs: &mut [&mut workspace.delta],
        });
        clock.lap(Phase::Matmul);
    }
}
