//! The feed-forward block, gated or plain.

use planish_ops::{Activation, Gate, Linear, Ops};

use super::{Block, BlockState, LinearLayer, Loader, Pass};
use crate::clock::Phase;
use crate::workspace::TensorSize;
use crate::{Error, FeedForwardSpec};

pub(super) struct FeedForwardBlock<O: Ops> {
    inner: usize,
    gate: Option<LinearLayer<O>>,
    up: LinearLayer<O>,
    down: LinearLayer<O>,
    activation: Activation,
}

impl<O: Ops> FeedForwardBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &FeedForwardSpec) -> Result<FeedForwardBlock<O>, Error> {
        let (gate, up, down, activation) = match spec {
            FeedForwardSpec::Gated {
                gate,
                up,
                down,
                activation,
            } => (Some(loader.linear(gate)?), up, down, *activation),
            FeedForwardSpec::Plain { up, down, activation } => (None, up, down, *activation),
        };
        Ok(FeedForwardBlock {
            inner: down.cols,
            gate,
            up: loader.linear(up)?,
            down: loader.linear(down)?,
            activation,
        })
    }
}

impl<O: Ops> Block<O> for FeedForwardBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        vec![TensorSize::row(self.inner); if self.gate.is_some() { 2 } else { 1 }]
    }

    fn run(&self, pass: &mut Pass<'_, O>, _state: &mut BlockState<O>) -> Result<(), Error> {
        let Some((up, gate)) = std::mem::take(&mut pass.tensors).split_first_mut() else {
            unreachable!("as many as tensors() says")
        };
        let (ops, rows, input) = (pass.ops, pass.rows, pass.input);
        let activation = self.activation;
        let activated = match (&self.gate, gate) {
            (Some(gate), [gated]) => {
                ops.linear(Linear {
                    rows,
                    input,
                    weights: &[&gate.weight, &self.up.weight],
                    biases: &[gate.bias.as_ref(), self.up.bias.as_ref()],
                    outputs: &mut [&mut *gated, &mut *up],
                });
                pass.clock.lap(Phase::Matmul);
                let (gate, up) = (&mut *gated, Some(&*up));
                ops.gate(Gate {
                    rows,
                    activation,
                    gate,
                    up,
                });
                gated
            }
            _ => {
                ops.linear(Linear {
                    rows,
                    input,
                    weights: &[&self.up.weight],
                    biases: &[self.up.bias.as_ref()],
                    outputs: &mut [&mut *up],
                });
                pass.clock.lap(Phase::Matmul);
                let (gate, up_factor) = (&mut *up, None);
                ops.gate(Gate {
                    rows,
                    activation,
                    gate,
                    up: up_factor,
                });
                up
            }
        };
        pass.clock.lap(Phase::Other);
        self.down.run(pass, activated);
        Ok(())
    }
}
