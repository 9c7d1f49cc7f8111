//! The feed-forward block, gated or plain.

use planish_ops::{Activation, Cut, Gate, Ops, Xielu};

use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass};
use crate::workspace::TensorSize;
use crate::{ActivationSpec, Error, FeedForwardSpec};

pub(super) struct FeedForwardBlock<O: Ops> {
    intermediate: usize,
    gate: Option<LinearLayer<O>>,
    up: LinearLayer<O>,
    down: LinearLayer<O>,
    activation: Activation,
    cut: Option<f32>,
    norm: Option<NormLayer<O>>,
}

impl<O: Ops> FeedForwardBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &FeedForwardSpec) -> Result<FeedForwardBlock<O>, Error> {
        let (gate, up, down, activation, cut, norm) = match spec {
            FeedForwardSpec::Gated {
                gate,
                up,
                down,
                activation,
                cut,
                norm,
            } => {
                let (gate, norm) = (loader.linear(gate)?, loader.optional_norm(norm)?);
                (Some(gate), up, down, ActivationSpec::Fixed(*activation), *cut, norm)
            }
            FeedForwardSpec::Plain { up, down, activation } => (None, up, down, activation.clone(), None, None),
        };
        Ok(FeedForwardBlock {
            intermediate: down.cols,
            gate,
            up: loader.linear(up)?,
            down: loader.linear(down)?,
            activation: match activation {
                ActivationSpec::Fixed(activation) => activation,
                ActivationSpec::Xielu(name) => Activation::Xielu(load_xielu(loader, &name)?),
            },
            cut,
            norm,
        })
    }
}

/// `softplus(alpha_p)`, `beta + softplus(alpha_n)`, beta and epsilon.
fn load_xielu<O: Ops>(loader: &Loader<'_, O>, name: &str) -> Result<Xielu, Error> {
    let softplus = |x: f32| x.exp().ln_1p();
    let learned = |part: &str| {
        let values = loader.source.values(&format!("{name}.{part}"), &[&[1], &[]])?;
        Ok::<f32, Error>(softplus(values[0]))
    };
    let constant = |part: &str, default| loader.source.scalar(&format!("{name}.{part}"), default);
    let slope = constant("beta", 0.5)?;
    Ok(Xielu {
        positive: learned("alpha_p")?,
        negative: slope + learned("alpha_n")?,
        slope,
        limit: constant("eps", -1e-6)?,
    })
}

impl<O: Ops> Block<O> for FeedForwardBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        vec![TensorSize::row(self.intermediate); if self.gate.is_some() { 2 } else { 1 }]
    }

    fn run(&self, pass: &mut Pass<'_, O>, _state: &mut BlockState<O>) -> Result<(), Error> {
        let Some((up, gate)) = std::mem::take(&mut pass.tensors).split_first_mut() else {
            unreachable!("as many as tensors() says")
        };
        let (ops, rows, input) = (pass.ops, pass.rows, pass.input);
        let activation = self.activation;
        let activated = match (&self.gate, gate) {
            (Some(gate), [gated]) => {
                pass.linear(input, &[gate, &self.up], &mut [&mut *gated, &mut *up]);
                if let Some(deviations) = self.cut {
                    ops.cut(Cut {
                        rows,
                        values: &mut *gated,
                        deviations,
                    });
                }
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
                pass.linear(input, &[&self.up], &mut [&mut *up]);
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
        if let Some(norm) = &self.norm {
            ops.norm(norm.of(0..rows, activated));
        }
        self.down.run(pass, activated);
        Ok(())
    }
}
