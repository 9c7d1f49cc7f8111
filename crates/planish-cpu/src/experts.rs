//! Experts (Shazeer et al., 2017): `output += sum over the chosen of weight * down(activation(gate(x)) * up(x))`.
//!
//! For one row only the chosen experts' weights are read. Several rows are grouped by expert, so that an expert's weights are
//! read once, for all rows that chose it.

use std::ops::Range;

use planish_format::memory;
use planish_ops::{ExpertLayer, Experts, Shape, StackShape};
use smallvec::SmallVec;

use crate::activation::activate_values;
use crate::cpu::BATCH_ROWS;
use crate::ops::CpuOps;
use crate::share::{SharedSlice, share_rows};
use crate::{Choices, Cpu, CpuMatrix, Matmul, MatmulEach, Precision};

/// Experts of a row for which no memory is taken: as many as most models choose.
const FEW: usize = 16;

/// Memory that calls reuse.
#[derive(Default)]
pub(crate) struct ExpertsWorkspace {
    input: Vec<f32>,  // (rows of an expert, hidden)
    gate: Vec<f32>,   // (rows of an expert, intermediate), or (chosen, intermediate)
    up: Vec<f32>,     // likewise
    output: Vec<f32>, // (rows of an expert, hidden), or (chosen, hidden)
    ranked: Vec<f32>, // (rows, chosen, hidden) of few rows, best expert first
    places: Vec<u32>, // row * chosen + rank, grouped by expert
    ends: Vec<usize>, // of each expert's places
}

/// A checked Problem, and what else computes it.
pub(crate) struct Run<'a, 'b> {
    /// Threads and instruction set.
    pub cpu: &'a Cpu,
    /// How packed weights are multiplied.
    pub precision: Precision,
    /// Rows that they are rounded as, at least as many as there are. Results of few are added up best expert first, as for one row, so
    /// that a row is the same alone and in a batch; those of many expert by expert.
    pub whole: usize,
    /// Who computes which row.
    pub choices: &'a Choices,
    /// The results are added to its output.
    pub problem: &'a mut Experts<'b, CpuOps>,
}

/// What the memory is for.
const WHAT: &str = "experts";

fn grow(values: &mut Vec<f32>, len: usize) {
    memory::resize(WHAT, values, len, 0.0);
}

/// Adds an expert's bias to its products. // (rows, features)
fn add_bias(layer: &ExpertLayer<'_, CpuOps>, expert: usize, products: &mut [f32]) {
    let Some(biases) = layer.biases else { return };
    let features = layer.weights.rows();
    let bias = &biases.values()[expert * features..][..features];
    for row in products.chunks_exact_mut(features) {
        row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
}

impl<'b> Run<'_, 'b> {
    /// Computes every row.
    pub fn run(&mut self, workspace: &mut ExpertsWorkspace) {
        match self.problem.rows {
            0 => {}
            1 if self.is_ranked() => self.one_row(workspace),
            _ => self.grouped_rows(workspace),
        }
    }

    fn is_ranked(&self) -> bool {
        self.whole <= BATCH_ROWS
    }

    /// All chosen experts read the same row: their first products are one dispatch.
    fn one_row(&mut self, workspace: &mut ExpertsWorkspace) {
        let ExpertsWorkspace { gate, up, output, .. } = workspace;
        let Run {
            cpu,
            precision,
            choices,
            ..
        } = *self;
        let problem = &*self.problem;
        let chosen = || choices.experts.iter().map(|&expert| expert as usize);
        let intermediate = problem.up.weights.rows();
        grow(gate, choices.experts.len() * intermediate);
        grow(up, choices.experts.len() * intermediate);
        let layers = [(problem.gate.as_ref(), &mut *gate), (Some(&problem.up), &mut *up)];
        let mut weights = SmallVec::<[&CpuMatrix; 2 * FEW]>::new();
        let mut outputs = SmallVec::<[&mut [f32]; 2 * FEW]>::new();
        for (layer, products) in layers {
            let Some(layer) = layer else { continue };
            weights.extend(chosen().map(|expert| &layer.weights.matrices()[expert]));
            outputs.extend(products.chunks_exact_mut(intermediate));
        }
        cpu.matmul(Matmul {
            weights: &weights,
            input: problem.input.first(1),
            m: 1,
            whole: 1,
            outputs: &mut outputs,
            precision,
        });
        drop(outputs);
        for (expert, (gate, up)) in chosen().zip(
            gate.chunks_exact_mut(intermediate)
                .zip(up.chunks_exact_mut(intermediate)),
        ) {
            self.add_first_biases(expert, gate, up);
        }
        self.weigh_gates(0..choices.experts.len(), gate);
        let activated = self.activate(gate, up);
        let hidden = problem.down.weights.rows();
        grow(output, choices.experts.len() * hidden);
        let down = problem.down.weights.matrices();
        let weights: SmallVec<[&CpuMatrix; FEW]> = chosen().map(|expert| &down[expert]).collect();
        cpu.matmul_each(MatmulEach {
            weights: &weights,
            inputs: activated,
            outputs: output,
            precision,
        });
        let problem = &mut *self.problem;
        for ((expert, &weight), products) in chosen().zip(&choices.weights).zip(output.chunks_exact_mut(hidden)) {
            add_bias(&problem.down, expert, products);
            let sums = problem.output.first_mut(1).iter_mut().zip(products.iter());
            sums.for_each(|(sum, value)| *sum += weight * value);
        }
    }

    fn grouped_rows(&mut self, workspace: &mut ExpertsWorkspace) {
        workspace.group(self.choices, self.problem.up.weights.count());
        let mut start = 0;
        for expert in 0..workspace.ends.len() {
            let end = workspace.ends[expert];
            if start < end {
                self.one_expert(workspace, expert, start..end);
            }
            start = end;
        }
        if self.is_ranked() {
            self.add_ranked(&workspace.ranked);
        }
    }

    /// The rows at some of the grouped places, which are an expert's.
    fn one_expert(&mut self, workspace: &mut ExpertsWorkspace, expert: usize, places: Range<usize>) {
        let ExpertsWorkspace {
            input,
            gate,
            up,
            output,
            ranked,
            places: all_places,
            ..
        } = workspace;
        let Run {
            cpu,
            precision,
            whole,
            choices,
            ..
        } = *self;
        let problem = &*self.problem;
        let (rows, chosen) = (problem.rows, choices.experts.len() / problem.rows);
        let places = &all_places[places];
        let (intermediate, hidden) = (problem.up.weights.rows(), problem.down.weights.rows());
        let of_expert = |layer: &ExpertLayer<'b, CpuOps>| -> &'b CpuMatrix { &layer.weights.matrices()[expert] };
        input.clear();
        memory::reserve(WHAT, input, places.len() * problem.up.weights.cols());
        for &place in places {
            let row = place as usize / chosen;
            input.extend_from_slice(problem.input.rows_of(row..row + 1));
        }
        grow(gate, places.len() * intermediate);
        grow(up, places.len() * intermediate);
        grow(output, places.len() * hidden);
        match &problem.gate {
            Some(layer) => cpu.matmul(Matmul {
                weights: &[of_expert(layer), of_expert(&problem.up)],
                input,
                m: places.len(),
                whole,
                outputs: &mut [&mut *gate, &mut *up],
                precision,
            }),
            None => self.product(of_expert(&problem.up), input, up),
        }
        self.add_first_biases(expert, gate, up);
        self.weigh_gates(places.iter().map(|&place| place as usize), gate);
        let activated = self.activate(gate, up);
        self.product(of_expert(&problem.down), activated, output);
        add_bias(&problem.down, expert, output);
        if self.is_ranked() {
            grow(ranked, choices.experts.len() * hidden);
            for (&place, values) in places.iter().zip(output.chunks_exact(hidden)) {
                ranked[place as usize * hidden..][..hidden].copy_from_slice(values);
            }
            return;
        }
        let target = SharedSlice::new(self.problem.output.first_mut(rows));
        share_rows(cpu.pool(), places.len(), hidden, |share| {
            for index in share {
                let place = places[index] as usize;
                let (row, weight) = (place / chosen, choices.weights[place]);
                // SAFETY: a row chooses an expert once, so the rows of an expert differ, and each belongs to one share.
                let sums = unsafe { target.range(row * hidden..(row + 1) * hidden) };
                let values = &output[index * hidden..][..hidden];
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += weight * value);
            }
        });
    }

    /// One matrix and as many rows of x as `input` holds.
    fn product(&self, weight: &CpuMatrix, input: &[f32], output: &mut [f32]) {
        self.cpu.matmul(Matmul {
            weights: &[weight],
            input,
            m: input.len() / weight.cols(),
            whole: self.whole,
            outputs: &mut [output],
            precision: self.precision,
        });
    }

    fn add_first_biases(&self, expert: usize, gate: &mut [f32], up: &mut [f32]) {
        if let Some(layer) = &self.problem.gate {
            add_bias(layer, expert, gate);
        }
        add_bias(&self.problem.up, expert, up);
    }

    /// Of these places, where inputs are weighed. // (places, intermediate)
    fn weigh_gates(&self, places: impl Iterator<Item = usize>, gate: &mut [f32]) {
        if self.problem.route.weighs_inputs {
            for (place, gate) in places.zip(gate.chunks_exact_mut(self.problem.up.weights.rows())) {
                let weight = self.choices.weights[place];
                gate.iter_mut().for_each(|value| *value *= weight);
            }
        }
    }

    /// Adds the results of every row's experts in the order of their ranks. // (rows, chosen, hidden)
    fn add_ranked(&mut self, ranked: &[f32]) {
        let rows = self.problem.rows;
        let (hidden, chosen) = (self.problem.down.weights.rows(), self.choices.experts.len() / rows);
        let of_rows = ranked.chunks_exact(chosen * hidden);
        let weights = self.choices.weights.chunks_exact(chosen);
        let output = self.problem.output.first_mut(rows);
        for ((sums, values), weights) in output.chunks_exact_mut(hidden).zip(of_rows).zip(weights) {
            for (values, weight) in values.chunks_exact(hidden).zip(weights) {
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// What the last products read.
    fn activate<'c>(&self, gate: &'c mut [f32], up: &'c mut [f32]) -> &'c [f32] {
        let (gate, up) = match self.problem.gate {
            Some(_) => (gate, Some(&*up)),
            None => (up, None),
        };
        activate_values(self.cpu, self.problem.activation, gate, up);
        gate
    }
}

impl ExpertsWorkspace {
    /// Sorts the places by expert, keeping the order of rows.
    fn group(&mut self, choices: &Choices, experts: usize) {
        let ExpertsWorkspace { places, ends, .. } = self;
        // First the counts, then where each expert's places start; every start moves on to its end.
        ends.clear();
        ends.resize(experts, 0);
        choices.experts.iter().for_each(|&expert| ends[expert as usize] += 1);
        let mut start = 0;
        for end in &mut *ends {
            start += std::mem::replace(end, start);
        }
        memory::resize(WHAT, places, choices.experts.len(), 0);
        for (place, &expert) in choices.experts.iter().enumerate() {
            let next = &mut ends[expert as usize];
            places[*next] = place as u32;
            *next += 1;
        }
    }
}
