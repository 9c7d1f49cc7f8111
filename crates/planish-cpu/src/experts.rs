//! Experts (Shazeer et al., 2017): `output += sum over the chosen of weight * down(activation(gate(x)) * up(x))`.
//!
//! For one row only the chosen experts' weights are read. Several rows are grouped by expert, so that an expert's weights are
//! read once, for all rows that chose it.

use planish_ops::Activation;
use smallvec::SmallVec;

use crate::activation::activate_values;
use crate::share::{SharedSlice, share_rows};
use crate::{Choices, Cpu, CpuMatrix, Matmul, MatmulEach, Precision};

/// Experts of a row for which no memory is taken: as many as most models choose.
const FEW: usize = 16;
/// Rows up to which results are added up best expert first, as for one row, so that a row is the same alone and in a batch.
const RANKED_ROWS: usize = 16;

/// The same projection of every expert.
#[derive(Clone, Copy)]
pub struct ExpertLayer<'a> {
    /// Of equal shape. // experts times (features, cols)
    pub weights: &'a [CpuMatrix],
    /// Added to the products. // (experts, features)
    pub biases: Option<&'a [f32]>,
}

impl ExpertLayer<'_> {
    fn features(&self) -> usize {
        self.weights.first().map_or(0, CpuMatrix::rows)
    }

    /// Adds an expert's bias to its products. // (rows, features)
    fn add_bias(&self, expert: usize, products: &mut [f32]) {
        let Some(biases) = self.biases else { return };
        let features = self.features();
        let bias = &biases[expert * features..][..features];
        for row in products.chunks_exact_mut(features) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    }
}

/// Rows through their experts.
pub struct Experts<'a> {
    /// x. // (rows, hidden)
    pub input: &'a [f32],
    /// Who computes which row.
    pub choices: &'a Choices,
    /// (intermediate, hidden) of every expert.
    pub gate: Option<ExpertLayer<'a>>,
    /// (intermediate, hidden) of every expert.
    pub up: ExpertLayer<'a>,
    /// (hidden, intermediate) of every expert.
    pub down: ExpertLayer<'a>,
    /// The non-linearity.
    pub activation: Activation,
    /// How packed weights are multiplied.
    pub precision: Precision,
    /// The result is added. // (rows, hidden)
    pub output: &'a mut [f32],
}

/// Memory that calls reuse.
#[derive(Default)]
pub struct ExpertsWorkspace {
    input: Vec<f32>,  // (rows of an expert, hidden)
    gate: Vec<f32>,   // (rows of an expert, intermediate), or (chosen, intermediate)
    up: Vec<f32>,     // likewise
    output: Vec<f32>, // (rows of an expert, hidden), or (chosen, hidden)
    ranked: Vec<f32>, // (rows, chosen, hidden) of few rows, best expert first
    places: Vec<u32>, // row * chosen + rank, grouped by expert
    ends: Vec<usize>, // of each expert's places
}

impl Cpu {
    /// Computes every row.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn experts(&self, problem: &mut Experts<'_>, workspace: &mut ExpertsWorkspace) {
        let hidden = problem.down.features();
        let rows = problem.output.len() / hidden;
        assert!(problem.output.len() == rows * hidden && problem.input.len() == rows * problem.up.weights[0].cols());
        assert!(problem.choices.experts.len().is_multiple_of(rows.max(1)));
        match rows {
            0 => {}
            1 => self.one_row(problem, workspace),
            _ => self.grouped_rows(problem, workspace, rows),
        }
    }

    /// All chosen experts read the same row: their first products are one dispatch.
    fn one_row(&self, problem: &mut Experts<'_>, workspace: &mut ExpertsWorkspace) {
        let ExpertsWorkspace { gate, up, output, .. } = workspace;
        let choices = problem.choices;
        let chosen = || choices.experts.iter().map(|&expert| expert as usize);
        let intermediate = problem.up.features();
        gate.resize(choices.experts.len() * intermediate, 0.0);
        up.resize(choices.experts.len() * intermediate, 0.0);
        let layers = [(problem.gate, &mut *gate), (Some(problem.up), &mut *up)];
        let mut weights = SmallVec::<[&CpuMatrix; 2 * FEW]>::new();
        let mut outputs = SmallVec::<[&mut [f32]; 2 * FEW]>::new();
        for (layer, products) in layers {
            let Some(layer) = layer else { continue };
            weights.extend(chosen().map(|expert| &layer.weights[expert]));
            outputs.extend(products.chunks_exact_mut(intermediate));
        }
        self.matmul(Matmul {
            weights: &weights,
            input: problem.input,
            m: 1,
            outputs: &mut outputs,
            precision: problem.precision,
        });
        drop(outputs);
        for (expert, (gate, up)) in chosen().zip(
            gate.chunks_exact_mut(intermediate)
                .zip(up.chunks_exact_mut(intermediate)),
        ) {
            problem.add_first_biases(expert, gate, up);
        }
        let activated = problem.activate(self, gate, up);
        let hidden = problem.down.features();
        output.resize(choices.experts.len() * hidden, 0.0);
        let weights: SmallVec<[&CpuMatrix; FEW]> = chosen().map(|expert| &problem.down.weights[expert]).collect();
        self.matmul_each(MatmulEach {
            weights: &weights,
            inputs: activated,
            outputs: output,
            precision: problem.precision,
        });
        for ((expert, &weight), products) in chosen().zip(&choices.weights).zip(output.chunks_exact_mut(hidden)) {
            problem.down.add_bias(expert, products);
            let sums = problem.output.iter_mut().zip(products.iter());
            sums.for_each(|(sum, value)| *sum += weight * value);
        }
    }

    fn grouped_rows(&self, problem: &mut Experts<'_>, workspace: &mut ExpertsWorkspace, rows: usize) {
        workspace.group(problem.choices, problem.up.weights.len());
        let mut start = 0;
        for expert in 0..workspace.ends.len() {
            let end = workspace.ends[expert];
            if start < end {
                self.one_expert(problem, workspace, expert, Places { start, end, rows });
            }
            start = end;
        }
        if rows <= RANKED_ROWS {
            problem.add_ranked(&workspace.ranked, rows);
        }
    }

    fn one_expert(&self, problem: &mut Experts<'_>, workspace: &mut ExpertsWorkspace, expert: usize, places: Places) {
        let ExpertsWorkspace {
            input,
            gate,
            up,
            output,
            ranked,
            places: all_places,
            ..
        } = workspace;
        let choices = problem.choices;
        let (rows, chosen) = (places.rows, choices.experts.len() / places.rows);
        let places = &all_places[places.start..places.end];
        let (intermediate, hidden) = (problem.up.features(), problem.down.features());
        let cols = problem.up.weights[expert].cols();
        input.clear();
        for &place in places {
            input.extend_from_slice(&problem.input[place as usize / chosen * cols..][..cols]);
        }
        gate.resize(places.len() * intermediate, 0.0);
        up.resize(places.len() * intermediate, 0.0);
        output.resize(places.len() * hidden, 0.0);
        match problem.gate {
            Some(layer) => self.matmul(Matmul {
                weights: &[&layer.weights[expert], &problem.up.weights[expert]],
                input,
                m: places.len(),
                outputs: &mut [&mut *gate, &mut *up],
                precision: problem.precision,
            }),
            None => self.product(&problem.up.weights[expert], input, up, problem.precision),
        }
        problem.add_first_biases(expert, gate, up);
        let activated = problem.activate(self, gate, up);
        self.product(&problem.down.weights[expert], activated, output, problem.precision);
        problem.down.add_bias(expert, output);
        if rows <= RANKED_ROWS {
            ranked.resize(choices.experts.len() * hidden, 0.0);
            for (&place, values) in places.iter().zip(output.chunks_exact(hidden)) {
                ranked[place as usize * hidden..][..hidden].copy_from_slice(values);
            }
            return;
        }
        let target = SharedSlice::new(problem.output);
        share_rows(self.pool(), places.len(), hidden, |share| {
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
    fn product(&self, weight: &CpuMatrix, input: &[f32], output: &mut [f32], precision: Precision) {
        self.matmul(Matmul {
            weights: &[weight],
            input,
            m: input.len() / weight.cols(),
            outputs: &mut [output],
            precision,
        });
    }
}

/// Which of the grouped places belong to an expert.
struct Places {
    start: usize,
    end: usize,
    rows: usize, // of the call
}

impl Experts<'_> {
    fn add_first_biases(&self, expert: usize, gate: &mut [f32], up: &mut [f32]) {
        if let Some(layer) = self.gate {
            layer.add_bias(expert, gate);
        }
        self.up.add_bias(expert, up);
    }

    /// Adds the results of every row's experts in the order of their ranks. // (rows, chosen, hidden)
    fn add_ranked(&mut self, ranked: &[f32], rows: usize) {
        let (hidden, chosen) = (self.down.features(), self.choices.experts.len() / rows);
        let of_rows = ranked.chunks_exact(chosen * hidden);
        let weights = self.choices.weights.chunks_exact(chosen);
        for ((sums, values), weights) in self.output.chunks_exact_mut(hidden).zip(of_rows).zip(weights) {
            for (values, weight) in values.chunks_exact(hidden).zip(weights) {
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// What the last products read.
    fn activate<'b>(&self, cpu: &Cpu, gate: &'b mut [f32], up: &'b mut [f32]) -> &'b [f32] {
        let (gate, up) = match self.gate {
            Some(_) => (gate, Some(&*up)),
            None => (up, None),
        };
        let activation = self.activation;
        activate_values(cpu, activation, gate, up);
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
        places.resize(choices.experts.len(), 0);
        for (place, &expert) in choices.experts.iter().enumerate() {
            let next = &mut ends[expert as usize];
            places[*next] = place as u32;
            *next += 1;
        }
    }
}
