//! Routed experts, and shared ones beside them.

use planish_ops::{Activation, Base, CopyRows, ExpertLayer, Experts, Linear, Ops, Route, Routing, Shape, StackShape};

use super::feed_forward::FeedForwardBlock;
use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass};
use crate::workspace::TensorSize;
use crate::{Error, ExpertsSpec, ScoreCorrectionSpec, SharedExpertsSpec, StackSpec};

pub(super) struct ExpertsBlock<O: Ops> {
    router: LinearLayer<O>,
    router_norm: Option<NormLayer<O>>,
    factors: Option<O::Tensor>,          // (1, experts)
    score_correction: Option<O::Tensor>, // (1, experts)
    routing: Routing,
    weighs_inputs: bool,
    gate: Option<StackLayer<O>>,
    up: StackLayer<O>,
    down: StackLayer<O>,
    activation: Activation,
    shared: Option<SharedExperts<O>>,
}

/// One projection of every expert.
struct StackLayer<O: Ops> {
    weights: O::Stack,         // experts times (rows, cols)
    biases: Option<O::Tensor>, // (1, experts * rows)
}

struct SharedExperts<O: Ops> {
    block: FeedForwardBlock<O>,
    gate: Option<LinearLayer<O>>, // (1, hidden)
}

impl<O: Ops> StackLayer<O> {
    fn load(loader: &Loader<'_, O>, spec: &StackSpec) -> Result<StackLayer<O>, Error> {
        let biases = loader.source.stack_biases(spec)?;
        Ok(StackLayer {
            weights: loader.stack(spec)?,
            biases: biases.map(|biases| loader.vector(&biases)).transpose()?,
        })
    }

    fn layer(&self) -> ExpertLayer<'_, O> {
        ExpertLayer {
            weights: &self.weights,
            biases: self.biases.as_ref(),
        }
    }
}

impl<O: Ops> SharedExperts<O> {
    fn load(loader: &Loader<'_, O>, spec: &SharedExpertsSpec) -> Result<SharedExperts<O>, Error> {
        Ok(SharedExperts {
            block: FeedForwardBlock::load(loader, &spec.feed_forward)?,
            gate: spec.gate.as_ref().map(|gate| loader.merged_linear(gate)).transpose()?,
        })
    }
}

impl<O: Ops> ExpertsBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &ExpertsSpec) -> Result<ExpertsBlock<O>, Error> {
        let present = |name: &str| loader.source.has(name);
        let router = spec
            .router
            .iter()
            .find(|router| present(&format!("{}.weight", router.name)));
        let score_correction = spec.score_correction.as_ref();
        let score_correction = score_correction.map(|correction| load_correction(loader, correction, spec.up.experts));
        Ok(ExpertsBlock {
            router: loader.merged_linear(router.unwrap_or(&spec.router[0]))?,
            router_norm: loader.optional_norm(&spec.router_norm)?,
            factors: match &spec.factors {
                Some(name) => Some(loader.vector(&loader.source.vector(name, spec.up.experts)?)?),
                None => None,
            },
            score_correction: score_correction.transpose()?.flatten(),
            routing: spec.routing,
            weighs_inputs: spec.weighs_inputs,
            gate: match &spec.gate {
                Some(gate) => Some(StackLayer::load(loader, gate)?),
                None => None,
            },
            up: StackLayer::load(loader, &spec.up)?,
            down: StackLayer::load(loader, &spec.down)?,
            activation: spec.activation,
            shared: spec
                .shared
                .as_ref()
                .map(|shared| SharedExperts::load(loader, shared))
                .transpose()?,
        })
    }

    /// What the router says, of the hidden state in `routed` where it has a norm of its own.
    fn route(&self, pass: &Pass<'_, O>, routed: Option<&mut O::Tensor>, logits: &mut O::Tensor) {
        let input = match (&self.router_norm, routed) {
            (Some(norm), Some(routed)) => {
                pass.ops.copy_rows(CopyRows {
                    source: Some(pass.hidden),
                    from: 0,
                    target: &mut *routed,
                    to: 0,
                    rows: pass.rows,
                });
                pass.ops.norm(norm.of(0..pass.rows, routed));
                &*routed
            }
            _ => pass.input,
        };
        run_logits(pass, &self.router, input, logits);
    }
}

/// The few values of a router or of a gate.
fn run_logits<O: Ops>(pass: &Pass<'_, O>, layer: &LinearLayer<O>, input: &O::Tensor, logits: &mut O::Tensor) {
    pass.ops.linear(Linear {
        rows: pass.rows,
        input,
        weights: &[&layer.weight],
        biases: &[layer.bias.as_ref()],
        outputs: &mut [logits],
    });
}

/// `None` where the checkpoint lacks what it may lack.
fn load_correction<O: Ops>(
    loader: &Loader<'_, O>,
    spec: &ScoreCorrectionSpec,
    experts: usize,
) -> Result<Option<O::Tensor>, Error> {
    let found = spec.names.iter().find(|name| loader.source.has(name));
    let required = spec.names.first().filter(|_| spec.required);
    let Some(name) = found.or(required) else {
        return Ok(None);
    };
    let values = loader.source.values(name, &[&[experts], &[1, experts]])?;
    loader.vector(&values).map(Some)
}

impl<O: Ops> Block<O> for ExpertsBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        let experts = self.up.weights.count();
        let shared = self.shared.as_ref().map(|shared| shared.block.tensors());
        // Rounded scores would choose otherwise.
        let logits = [TensorSize::f32_row(experts), TensorSize::row(1)];
        let routed = self
            .router_norm
            .as_ref()
            .map(|_| TensorSize::row(self.up.weights.cols()));
        let shared = shared.into_iter().flatten();
        logits.into_iter().chain(routed).chain(shared).collect()
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let [logits, shared_logits, tensors @ ..] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        let (routed, shared_tensors) = tensors.split_at_mut(usize::from(self.router_norm.is_some()));
        self.route(pass, routed.first_mut(), logits);
        let mut base = Base::Zero;
        if let Some(shared) = &self.shared {
            pass.tensors = shared_tensors;
            shared.block.run(pass, state)?;
            base = Base::Output;
            if let Some(gate) = &shared.gate {
                run_logits(pass, gate, pass.input, shared_logits);
                base = Base::Gated(shared_logits);
            }
        }
        pass.ops.experts(Experts {
            rows: pass.rows,
            input: pass.input,
            route: Route {
                logits,
                score_correction: self.score_correction.as_ref(),
                factors: self.factors.as_ref(),
                rule: self.routing,
                weighs_inputs: self.weighs_inputs,
            },
            gate: self.gate.as_ref().map(StackLayer::layer),
            up: self.up.layer(),
            down: self.down.layer(),
            activation: self.activation,
            base,
            output: pass.output,
        });
        Ok(())
    }
}
