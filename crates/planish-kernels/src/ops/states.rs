//! Operations of layers with a state.

use planish_gpu::Queue;

use super::GpuOps;
use crate::launch;
use planish_ops::{Activation, ChannelScan, Convolution, Recurrence, Rule};

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_convolve(&self, problem: &Convolution<'_, GpuOps<Q>>) {
        let Convolution {
            places,
            input,
            input_gate,
            weight,
            bias,
            activation,
            output_gate,
            history,
            output,
        } = problem;
        let silu = matches!(activation, Some(Activation::Silu));
        // Other activations take a kernel of their own, which then also has the gate.
        let later = activation.filter(|_| !silu);
        let launch = launch::Convolve {
            value: input.float_type,
            spans: places.spans.len() as u32,
            channels: input.cols as u32,
            taps: (weight.cols / input.cols) as u32,
            input_gated: input_gate.is_some(),
            biased: bias.is_some(),
            silu,
            output_gated: output_gate.is_some() && later.is_none(),
        }
        .launch();
        self.run(
            &launch,
            &[
                input.all(),
                self.optional(*input_gate),
                weight.all(),
                self.optional(*bias),
                self.optional(*output_gate),
                self.spans_of(places),
                history.all(),
                output.all(),
            ],
        );
        if let Some(activation) = later {
            let launch = launch::Gate {
                value: output.float_type,
                count: (places.end_row() * output.cols) as u32,
                activation,
                gated: output_gate.is_some(),
            }
            .launch();
            self.run(&launch, &[output.all(), self.optional(*output_gate)]);
        }
    }

    pub(super) fn run_scan_channels(&self, problem: &ChannelScan<'_, GpuOps<Q>>) {
        let launch = launch::ScanChannels {
            value: problem.values.float_type,
            spans: problem.places.spans.len() as u32,
            channels: problem.values.cols as u32,
            key_dim: problem.keys.cols as u32,
        }
        .launch();
        self.run(
            &launch,
            &[
                problem.values.all(),
                problem.steps.all(),
                problem.keys.all(),
                problem.queries.all(),
                problem.step_bias.all(),
                problem.rates.all(),
                problem.skip.all(),
                self.spans_of(&problem.places),
                problem.state.all(),
                problem.output.all(),
            ],
        );
    }

    pub(super) fn run_recur(&self, problem: &Recurrence<'_, GpuOps<Q>>) {
        let Recurrence {
            places,
            shape,
            inputs,
            steps,
            rule,
            state,
            output,
        } = problem;
        let (beta, skip) = match rule {
            Rule::Delta { beta } => (Some(*beta), None),
            Rule::Scan { skip } => (None, Some(*skip)),
        };
        let launch = launch::Recur {
            value: inputs.float_type,
            spans: places.spans.len() as u32,
            shape: *shape,
            steps_of_keys: problem.has_steps_of_keys(),
            delta: beta.is_some(),
            step_scale: steps.scale,
            limits: steps.limits,
        }
        .launch();
        self.run(
            &launch,
            &[
                inputs.all(),
                steps.inputs.all(),
                steps.bias.all(),
                steps.rates.all(),
                self.optional(beta),
                self.optional(skip),
                self.spans_of(places),
                state.all(),
                output.all(),
            ],
        );
    }
}
