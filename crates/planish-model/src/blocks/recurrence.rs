//! Gated delta nets, Kimi Delta Attention and Mamba 2: a convolution of queries, keys and values, a linear recurrence, a norm and a gate.

use planish_ops::{CopyHeads, Gate, HeadPart, Ops, Recurrence, Rule, Shape, Steps};

use super::convolution::ConvolutionLayer;
use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{Error, RankedSpec, RecurrenceSpec, RuleSpec};

pub(super) struct RecurrenceBlock<O: Ops> {
    spec: RecurrenceSpec,
    inputs: Vec<LinearLayer<O>>, // one, or those to queries, keys and values
    gate: Ranked<O>,
    steps: Ranked<O>,
    beta: Option<LinearLayer<O>>, // of the delta rule
    convolution: ConvolutionLayer<O>,
    step_bias: O::Tensor,    // (1, rows of the steps)
    rates: O::Tensor,        // (1, heads)
    skip: Option<O::Tensor>, // (1, heads), of the scan
    norm: Option<NormLayer<O>>,
    output: LinearLayer<O>,
}

/// A layer, or two that are one of low rank.
struct Ranked<O: Ops> {
    down: Option<LinearLayer<O>>,
    layer: LinearLayer<O>,
}

impl<O: Ops> Ranked<O> {
    fn load(loader: &Loader<'_, O>, spec: &RankedSpec) -> Result<Ranked<O>, Error> {
        Ok(Ranked {
            down: spec.down.as_ref().map(|down| loader.linear(down)).transpose()?,
            layer: loader.linear(&spec.layer)?,
        })
    }

    /// From the input of the pass, by way of `ranked`.
    fn run(&self, pass: &mut Pass<'_, O>, ranked: &mut O::Tensor, output: &mut O::Tensor) {
        let input = match &self.down {
            Some(down) => {
                pass.linear(pass.input, &[down], &mut [&mut *ranked]);
                &*ranked
            }
            None => pass.input,
        };
        pass.linear(input, &[&self.layer], &mut [output]);
    }
}

impl<O: Ops> RecurrenceBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &RecurrenceSpec) -> Result<RecurrenceBlock<O>, Error> {
        let heads = spec.shape.heads;
        let stored = |name: &str| loader.source.vector(name, heads);
        let rates = loader
            .source
            .values(&spec.steps.log_rates, &[&[heads], &[1, 1, heads, 1]])?;
        let rates: Vec<f32> = rates.into_iter().map(f32::exp).collect();
        let step_bias = loader.source.vector(&spec.steps.bias, spec.steps.inputs.layer.rows)?;
        let (beta, skip) = match &spec.rule {
            RuleSpec::Delta { beta } => (Some(loader.linear(beta)?), None),
            RuleSpec::Scan { skip } => (None, Some(loader.vector(&stored(skip)?)?)),
        };
        Ok(RecurrenceBlock {
            inputs: spec
                .inputs
                .iter()
                .map(|spec| loader.linear(spec))
                .collect::<Result<_, Error>>()?,
            gate: Ranked::load(loader, &spec.gate)?,
            steps: Ranked::load(loader, &spec.steps.inputs)?,
            beta,
            convolution: ConvolutionLayer::load(loader, &spec.convolution)?,
            step_bias: loader.vector(&step_bias)?,
            rates: loader.vector(&rates)?,
            skip,
            norm: loader.optional_norm(&spec.norm)?,
            output: loader.linear(&spec.output)?,
            spec: spec.clone(),
        })
    }

    /// `activation(gate) * norm(mixed)` or `norm(activation(gate) * mixed)` over the gate.
    fn gate(&self, pass: &Pass<'_, O>, gate: &mut O::Tensor, mixed: &mut O::Tensor) {
        let rows = pass.rows;
        if let (true, Some(norm)) = (self.spec.norm_first, &self.norm) {
            pass.ops.norm(norm.of(0..rows, mixed));
        }
        pass.ops.gate(Gate {
            rows,
            activation: self.spec.gate_activation,
            gate: &mut *gate,
            up: Some(mixed),
        });
        if let (false, Some(norm)) = (self.spec.norm_first, &self.norm) {
            pass.ops.norm(norm.of(0..rows, gate));
        }
    }

    /// Everything that reads the input, at once.
    fn project(&self, pass: &mut Pass<'_, O>, outputs: [&mut O::Tensor; 4]) {
        // The last one where there are beta.
        let last = self.beta.as_ref();
        let (steps, mut outputs) = (&self.steps.layer, outputs);
        let layers = [&self.inputs[0], &self.gate.layer, steps, last.unwrap_or(steps)];
        let count = layers.len() - usize::from(last.is_none());
        pass.linear(pass.input, &layers[..count], &mut outputs[..count]);
    }

    /// The same where queries, keys and values have layers of their own, or others are of low rank: `others` are their results.
    fn project_apart(
        &self,
        pass: &mut Pass<'_, O>,
        [inputs, gate, steps, beta]: [&mut O::Tensor; 4],
        others: &mut [O::Tensor],
    ) {
        let (ops, rows) = (pass.ops, pass.rows);
        let stride = self.spec.shape.cols();
        let mut start = 0;
        for (layer, part) in self.inputs.iter().zip(&mut *others) {
            pass.linear(pass.input, &[layer], &mut [&mut *part]);
            let width = layer.weight.rows();
            ops.copy_heads(CopyHeads {
                rows,
                heads: 1,
                width,
                input: part,
                from: HeadPart {
                    stride: width,
                    start: 0,
                },
                output: &mut *inputs,
                to: HeadPart { stride, start },
            });
            start += width;
        }
        let Some(ranked) = others.last_mut() else {
            unreachable!("a part at least")
        };
        self.gate.run(pass, ranked, gate);
        self.steps.run(pass, ranked, steps);
        if let Some(layer) = &self.beta {
            pass.linear(pass.input, &[layer], &mut [beta]);
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
        let steps = self.steps.layer.weight.rows();
        // Strengths are there in any case, few as they are: one shape of set for both rules.
        let usual = [inputs, inputs, values, steps, shape.heads, values];
        let apart = self.spec.inputs.len() > 1;
        let parts = self.spec.inputs.iter().map(|spec| spec.rows).filter(|_| apart);
        let ranks = [&self.spec.gate, &self.spec.steps.inputs].map(|spec| spec.down.as_ref().map(|down| down.rows));
        let others = parts.chain(ranks.into_iter().flatten().max());
        usual.into_iter().chain(others).map(TensorSize::row).collect()
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
        let [inputs, convolved, gate, steps, beta, mixed, others @ ..] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        match others {
            [] => self.project(pass, [&mut *inputs, &mut *gate, &mut *steps, &mut *beta]),
            others => self.project_apart(pass, [&mut *inputs, &mut *gate, &mut *steps, &mut *beta], others),
        }
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
