//! The operations on the CPU: every method hands its Problem to planish-cpu. Launches are done when they return.

mod routed;

use planish_ops::CacheType;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::{
    Activate, Arena, AttentionWorkspace, Cpu, CpuMatrix, KeyValueShape, KeyValues, Matmul, Precision, activate, add,
    add_to_rows, attention, convolve, copy_heads, norm, recur, rope, rope_angles,
};

use planish_ops::{
    Add, Append, Attention, Choose, Convolution, CopyHeads, Embed, Experts, Gate, HeadLinear, KeyValueSizes, Linear,
    Matrix, Norm, Ops, PassSize, Recurrence, ResidentKeyValues, Rope, RopeAngles, Rotation, Rule, Shape, Tokens,
};

pub use routed::CpuStack;
use routed::RoutedWorkspace;

/// Weights of one [`Linear`] at most: query, key and value.
const MOST_WEIGHTS: usize = 4;

/// Processor cores.
pub struct CpuOps {
    cpu: Cpu,
    precision: Precision,
    cache: CacheType,
    arena: Mutex<Arena>,
    workspace: Mutex<AttentionWorkspace>,
    experts: Mutex<RoutedWorkspace>,
}

impl CpuOps {
    /// `precision` is that of packed matrices; [`Precision::Exact`] also keeps keys and values in f32 instead of f16.
    pub fn new(cpu: Cpu, precision: Precision) -> CpuOps {
        CpuOps {
            cpu,
            precision,
            cache: match precision {
                Precision::Exact => CacheType::Float32,
                Precision::Rounded => CacheType::Float16,
            },
            arena: Mutex::default(),
            workspace: Mutex::default(),
            experts: Mutex::default(),
        }
    }

    /// Keeps keys and values so from now on.
    pub fn with_cache(self, cache: CacheType) -> CpuOps {
        CpuOps { cache, ..self }
    }

    /// Threads and instruction set.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// In huge pages, where there are some.
    fn keep(&self, matrix: Matrix) -> CpuMatrix {
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.keep(&self.cpu, matrix.into(), self.precision)
    }
}

/// Activations in memory.
pub struct CpuTensor {
    rows: usize,
    cols: usize,
    values: Vec<f32>, // (rows, cols)
}

impl CpuTensor {
    /// The first rows. // (rows, cols)
    fn first(&self, rows: usize) -> &[f32] {
        &self.values[..rows * self.cols]
    }

    fn first_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.values[..rows * self.cols]
    }
}

impl Shape for CpuTensor {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }
}

impl ResidentKeyValues for KeyValues {
    fn position_bytes(&self) -> usize {
        KeyValues::position_bytes(self)
    }
}

/// Tokens are chosen by who reads the logits: they lie in its memory.
pub enum NoneChosen {}

impl Ops for CpuOps {
    type Tensor = CpuTensor;
    type Weight = CpuMatrix;
    type Stack = CpuStack;
    type KeyValues = KeyValues;
    type Chosen = NoneChosen;
    type Error = Infallible;

    /// What is computed next should still be in a cache.
    const PASS: PassSize = PassSize {
        rows: 512,
        bytes: 24 << 20,
    };
    const SYNCHRONOUS: bool = true;

    fn tensor(&self, rows: usize, cols: usize) -> Result<CpuTensor, Infallible> {
        Ok(CpuTensor {
            rows,
            cols,
            values: vec![0.0; rows * cols],
        })
    }

    fn tensor_f32(&self, rows: usize, cols: usize) -> Result<CpuTensor, Infallible> {
        self.tensor(rows, cols)
    }

    fn vector(&self, values: &[f32]) -> Result<CpuTensor, Infallible> {
        Ok(CpuTensor {
            rows: 1,
            cols: values.len(),
            values: values.to_vec(),
        })
    }

    fn weight(&self, matrix: Matrix) -> Result<CpuMatrix, Infallible> {
        Ok(self.keep(matrix))
    }

    fn stack(&self, matrices: Vec<Matrix>) -> Result<CpuStack, Infallible> {
        Ok(CpuStack::new(
            matrices.into_iter().map(|matrix| self.keep(matrix)).collect(),
        ))
    }

    fn key_values(&self, sizes: KeyValueSizes) -> Result<KeyValues, Infallible> {
        Ok(KeyValues::new(KeyValueShape {
            heads: sizes.heads,
            head_dim: sizes.head_dim,
            value_dim: sizes.value_dim,
            window: sizes.window,
            cache: self.cache,
        }))
    }

    fn read<'a>(
        &self,
        tensor: &'a CpuTensor,
        rows: Range<usize>,
        _staging: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], Infallible> {
        Ok(&tensor.values[rows.start * tensor.cols..rows.end * tensor.cols])
    }

    fn chosen(&self) -> Result<Option<NoneChosen>, Infallible> {
        Ok(None)
    }

    fn choose(&self, problem: Choose<'_, CpuOps>) -> Result<(), Infallible> {
        match *problem.chosen {}
    }

    fn take(&self, chosen: &mut NoneChosen) -> Result<Option<u32>, Infallible> {
        match *chosen {}
    }

    fn used_bytes(&self) -> Option<u64> {
        None
    }

    fn embed(&self, problem: Embed<'_, CpuOps>) {
        problem.check();
        let Embed {
            table,
            tokens,
            scale,
            output,
        } = problem;
        let tokens = match tokens {
            Tokens::Known(tokens) => tokens,
            Tokens::Chosen(chosen) => match *chosen {},
        };
        let output = output.first_mut(tokens.len());
        self.cpu.rows(table, tokens, output);
        if scale != 1.0 {
            output.iter_mut().for_each(|value| *value *= scale);
        }
    }

    fn norm(&self, problem: Norm<'_, CpuOps>) {
        problem.check();
        let rows = problem.rows;
        let range = rows.start * problem.hidden.cols..rows.end * problem.hidden.cols;
        let problem = crate::Norm {
            kind: problem.kind,
            width: problem.width,
            residual: problem.residual.map(|of| (&of.tensor.values[range.clone()], of.factor)),
            hidden: &mut problem.hidden.values[range],
            weight: problem.weight.map(|weight| weight.values.as_slice()),
            bias: problem.bias.map(|bias| bias.values.as_slice()),
            epsilon: problem.epsilon,
            output: problem.output.map(|output| output.first_mut(rows.len())),
        };
        norm(&self.cpu, problem);
    }

    fn add(&self, problem: Add<'_, CpuOps>) {
        problem.check();
        let (rows, factor) = (problem.rows, problem.factor);
        let (target, source) = (problem.target.first_mut(rows), problem.source.first(rows));
        add(self.cpu.pool(), target, source, factor);
    }

    fn linear(&self, problem: Linear<'_, CpuOps>) {
        problem.check();
        let Linear {
            rows,
            input,
            weights,
            biases,
            outputs,
        } = problem;
        assert!(weights.len() <= MOST_WEIGHTS);
        let mut targets: [&mut [f32]; MOST_WEIGHTS] = Default::default();
        for (target, output) in targets.iter_mut().zip(outputs.iter_mut()) {
            *target = output.first_mut(rows);
        }
        self.cpu.matmul(Matmul {
            weights,
            input: input.first(rows),
            m: rows,
            outputs: &mut targets[..weights.len()],
            precision: self.precision,
        });
        for (bias, output) in biases.iter().zip(outputs.iter_mut()) {
            if let Some(bias) = bias {
                add_to_rows(self.cpu.pool(), output.first_mut(rows), &bias.values);
            }
        }
    }

    fn rope_angles(&self, problem: RopeAngles<'_, CpuOps>) {
        problem.check();
        let RopeAngles {
            frequencies,
            factor,
            first_position,
            rows,
            output,
        } = problem;
        rope_angles(crate::RopeAngles {
            frequencies,
            factor,
            first_position,
            output: output.first_mut(rows),
        });
    }

    fn rope(&self, problem: Rope<'_, CpuOps>) {
        problem.check();
        let Rope {
            rows,
            heads,
            head_dim,
            angles,
            pairs,
        } = problem;
        let (rotated, angles) = (angles.cols, angles.first(rows));
        rope(
            &self.cpu,
            crate::Rope {
                heads: heads.first_mut(rows),
                head_dim,
                angles,
                rotated,
                pairs,
            },
        );
    }

    fn append(&self, problem: Append<'_, CpuOps>) -> Result<(), Infallible> {
        problem.check();
        let Append {
            rows,
            first_position,
            rotation,
            keys,
            values,
            key_values,
        } = problem;
        if let Some(Rotation {
            queries,
            head_dim,
            angles,
            pairs,
        }) = rotation
        {
            for heads in [queries, &mut *keys] {
                self.rope(Rope {
                    rows,
                    heads,
                    head_dim,
                    angles,
                    pairs,
                });
            }
        }
        key_values.append(&self.cpu, first_position, keys.first(rows), values.first(rows));
        Ok(())
    }

    fn attention(&self, problem: Attention<'_, CpuOps>) {
        problem.check();
        let Attention {
            rows,
            first_position,
            queries,
            heads,
            scale,
            window,
            softcap,
            alibi,
            sinks,
            key_values,
            output,
        } = problem;
        let mut problem = crate::Attention {
            queries: queries.first(rows),
            heads,
            first_position,
            scale,
            window,
            softcap,
            alibi: alibi.map(|alibi| crate::Alibi {
                slopes: &alibi.slopes.values,
                factor: alibi.factor,
            }),
            sinks: sinks.map(|sinks| sinks.values.as_slice()),
            key_values,
            output: output.first_mut(rows),
        };
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        attention(&self.cpu, &mut problem, &mut workspace);
    }

    fn gate(&self, problem: Gate<'_, CpuOps>) {
        problem.check();
        let Gate {
            rows,
            activation,
            gate,
            up,
        } = problem;
        let up = up.map(|up| up.first(rows));
        activate(
            &self.cpu,
            Activate {
                activation,
                gate: gate.first_mut(rows),
                up,
            },
        );
    }

    fn convolve(&self, problem: Convolution<'_, CpuOps>) {
        problem.check();
        let Convolution {
            rows,
            first_position,
            input,
            input_gate,
            weight,
            bias,
            activation,
            output_gate,
            history,
            output,
        } = problem;
        convolve(
            &self.cpu,
            crate::Convolution {
                input: input.first(rows),
                input_gate: input_gate.map(|gate| gate.first(rows)),
                weight: &weight.values,
                bias: bias.map(|bias| bias.values.as_slice()),
                activation,
                output_gate: output_gate.map(|gate| gate.first(rows)),
                channels: input.cols,
                begins: first_position == 0,
                history: &mut history.values,
                output: output.first_mut(rows),
            },
        );
    }

    fn recur(&self, problem: Recurrence<'_, CpuOps>) {
        problem.check();
        let Recurrence {
            rows,
            first_position,
            shape,
            inputs,
            steps,
            rule,
            state,
            output,
        } = problem;
        let rule = match rule {
            Rule::Delta { strengths } => crate::Rule::Delta {
                strengths: strengths.first(rows),
            },
            Rule::Scan { skip } => crate::Rule::Scan { skip: &skip.values },
        };
        recur(
            &self.cpu,
            crate::Recurrence {
                shape,
                inputs: inputs.first(rows),
                steps: crate::Steps {
                    inputs: steps.inputs.first(rows),
                    scale: steps.scale,
                    bias: &steps.bias.values,
                    limits: steps.limits,
                    rates: &steps.rates.values,
                },
                rule,
                begins: first_position == 0,
                state: &mut state.values,
                output: output.first_mut(rows),
            },
        );
    }

    fn experts(&self, problem: Experts<'_, CpuOps>) {
        problem.check();
        self.run_experts(problem);
    }

    fn head_linear(&self, problem: HeadLinear<'_, CpuOps>) {
        problem.check();
        let rows = problem.rows;
        self.cpu.head_linear(crate::HeadLinear {
            weights: &problem.weights.matrices,
            input: problem.input.first(rows),
            from: problem.from,
            output: problem.output.first_mut(rows),
            to: problem.to,
            precision: self.precision,
        });
    }

    fn copy_heads(&self, problem: CopyHeads<'_, CpuOps>) {
        problem.check();
        let problem = crate::CopyHeads {
            heads: problem.heads,
            width: problem.width,
            input: problem.input.first(problem.rows),
            from: problem.from,
            output: problem.output.first_mut(problem.rows),
            to: problem.to,
        };
        copy_heads(self.cpu.pool(), problem);
    }
}
