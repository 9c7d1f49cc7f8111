//! Gated delta nets and Mamba 2: a convolution of queries, keys and values, a linear recurrence, a norm and a gate.

use planish_ops::{Activation, Gate, Ops, Recurrence, Rule, Steps};

use super::convolution::ConvolutionLayer;
use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{Error, RecurrenceSpec, RuleSpec};

pub(super) struct RecurrenceBlock<O: Ops> {
    spec: RecurrenceSpec,
    inputs: LinearLayer<O>,
    gate: LinearLayer<O>,
    steps: LinearLayer<O>,
    beta: Option<LinearLayer<O>>, // of the delta rule
    convolution: ConvolutionLayer<O>,
    step_bias: O::Tensor,    // (1, heads)
    rates: O::Tensor,        // (1, heads)
    skip: Option<O::Tensor>, // (1, heads), of the scan
    norm: Option<NormLayer<O>>,
    output: LinearLayer<O>,
}

impl<O: Ops> RecurrenceBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &RecurrenceSpec) -> Result<RecurrenceBlock<O>, Error> {
        let heads = spec.shape.heads;
        let stored = |name: &str| loader.source.vector(name, heads);
        let rates: Vec<f32> = stored(&spec.steps.log_rates)?.into_iter().map(f32::exp).collect();
        let (beta, skip) = match &spec.rule {
            RuleSpec::Delta { beta } => (Some(loader.linear(beta)?), None),
            RuleSpec::Scan { skip } => (None, Some(loader.vector(&stored(skip)?)?)),
        };
        Ok(RecurrenceBlock {
            inputs: loader.linear(&spec.inputs)?,
            gate: loader.linear(&spec.gate)?,
            steps: loader.linear(&spec.steps.inputs)?,
            beta,
            convolution: ConvolutionLayer::load(loader, &spec.convolution)?,
            step_bias: loader.vector(&stored(&spec.steps.bias)?)?,
            rates: loader.vector(&rates)?,
            skip,
            norm: loader.optional_norm(&spec.norm)?,
            output: loader.linear(&spec.output)?,
            spec: spec.clone(),
        })
    }

    /// `silu(gate) * norm(mixed)` or `norm(silu(gate) * mixed)` over the gate.
    fn gate(&self, pass: &Pass<'_, O>, gate: &mut O::Tensor, mixed: &mut O::Tensor) {
        let rows = pass.rows;
        if let (true, Some(norm)) = (self.spec.norm_first, &self.norm) {
            pass.ops.norm(norm.of(0..rows, mixed));
        }
        pass.ops.gate(Gate {
            rows,
            activation: Activation::Silu,
            gate: &mut *gate,
            up: Some(mixed),
        });
        if let (false, Some(norm)) = (self.spec.norm_first, &self.norm) {
            pass.ops.norm(norm.of(0..rows, gate));
        }
    }

    fn rule<'a>(&'a self, beta: &'a O::Tensor) -> Rule<'a, O> {
        match &self.skip {
            Some(skip) => Rule::Scan { skip },
            None => Rule::Delta { beta },
        }
    }
}

impl<O: Ops> Block<O> for RecurrenceBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        let shape = self.spec.shape;
        let (inputs, values) = (shape.cols(), shape.heads * shape.value_dim);
        // Strengths are there in any case, few as they are: one shape of set for both rules.
        [inputs, inputs, values, shape.heads, shape.heads, values]
            .map(TensorSize::row)
            .into()
    }

    fn state(&self, ops: &O, slots: usize) -> Result<BlockState<O>, Error> {
        let (rows, cols) = self.spec.shape.state();
        Ok(BlockState::Recurrence {
            history: self.convolution.history(ops, slots)?,
            state: ops.tensor_f32(slots * rows, cols).map_err(device_error)?,
        })
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::Recurrence { history, state } = state else {
            unreachable!("a recurrence made a state")
        };
        let [inputs, convolved, gate, steps, beta, mixed] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        // The last one where there are beta.
        let last = self.beta.as_ref();
        let layers = [&self.inputs, &self.gate, &self.steps, last.unwrap_or(&self.steps)];
        let count = layers.len() - usize::from(last.is_none());
        let outputs = &mut [&mut *inputs, &mut *gate, &mut *steps, &mut *beta][..count];
        pass.linear(pass.input, &layers[..count], outputs);
        pass.ops.convolve(self.convolution.of(pass, inputs, history, convolved));
        pass.ops.recur(Recurrence {
            places: pass.places,
            shape: self.spec.shape,
            inputs: convolved,
            steps: Steps {
                inputs: steps,
                scale: self.spec.steps.scale,
                bias: &self.step_bias,
                limits: self.spec.steps.limits,
                rates: &self.rates,
            },
            rule: self.rule(beta),
            state,
            output: &mut *mixed,
        });
        self.gate(pass, gate, mixed);
        self.output.run(pass, gate);
        Ok(())
    }
}
