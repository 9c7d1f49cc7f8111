//! Few rows through the weights of their experts, and sums over experts.

use planish_format::FloatType;
use planish_kernels::launch::{ExpertsInner, ExpertsOuter, Launch, SumBase};
use planish_ops::{Activation, gate_reference, linear_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::{TestWeight, weight_cases};

const EXPERTS: usize = 3;
const BASES: [SumBase; 3] = [SumBase::Zero, SumBase::Output, SumBase::Gated];

fn inners() -> Vec<ExpertsInner> {
    let cases = weight_cases().into_iter().enumerate().step_by(2);
    let problems = cases.map(|(index, (weight, cols))| ExpertsInner {
        weight,
        value: TYPES[index / 2 % 3],
        inner: [5, 8][index / 2 % 2],
        cols: cols as u32,
        entries: 6,
        chosen: [1, 2, 3][index / 2 % 3],
        gated: index / 2 % 5 != 4,
        added: index / 2 % 2 == 0,
        weighed: index / 2 % 5 == 1,
        activation: match index / 2 % 3 {
            0 => Activation::Silu,
            1 => Activation::GeluTanh,
            _ => Activation::ClampedSwiglu {
                slope: 1.702,
                limit: 0.7,
            },
        },
    });
    problems.collect()
}

fn outers() -> Vec<ExpertsOuter> {
    let cases = weight_cases().into_iter().enumerate().skip(1).step_by(2);
    let problems = cases.map(|(index, (weight, cols))| ExpertsOuter {
        weight,
        value: TYPES[index / 2 % 3],
        hidden: [9, 6][index / 2 % 2],
        cols: cols as u32,
        rows: 2,
        chosen: [3, 1, 2][index / 2 % 3],
        added: index / 2 % 2 == 0,
        base: BASES[index / 2 % 3],
    });
    problems.collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let inners = inners().into_iter().map(|problem| problem.launch());
    let outers = outers()
        .into_iter()
        .flat_map(|problem| [problem.launch(), problem.sum()]);
    inners.chain(outers).collect()
}

/// Numbers of experts, and their bytes.
fn choose(random: &mut Random, entries: usize) -> (Vec<usize>, Vec<u8>) {
    let experts: Vec<usize> = (0..entries).map(|_| random.next() as usize % EXPERTS).collect();
    let bytes = experts
        .iter()
        .flat_map(|&expert| (expert as u32).to_le_bytes())
        .collect();
    (experts, bytes)
}

/// One expert's part of a stack's values.
fn part(values: &[f32], expert: usize) -> &[f32] {
    let size = values.len() / EXPERTS;
    &values[expert * size..][..size]
}

fn check_inner(device: &Device, random: &mut Random, problem: &ExpertsInner) {
    let (inner, cols, entries) = (problem.inner as usize, problem.cols as usize, problem.entries as usize);
    let chosen = problem.chosen as usize;
    let [gate, up] = [0, 1].map(|_| TestWeight::new(random, problem.weight, EXPERTS * inner, cols));
    let [gate_added, up_added] = [0, 1].map(|_| random.values(EXPERTS * inner, FloatType::F32));
    let input = random.values(entries / chosen * cols, problem.value);
    let (experts, expert_bytes) = choose(random, entries);
    let weights = random.values(entries, FloatType::F32);
    let [gate_codes, gate_scales, gate_biases] = gate.buffers;
    let [up_codes, up_scales, up_biases] = up.buffers;
    let mut buffers = [
        gate_codes,
        gate_scales,
        gate_biases,
        up_codes,
        up_scales,
        up_biases,
        to_bytes(&input, problem.value),
        to_bytes(&gate_added, FloatType::F32),
        to_bytes(&up_added, FloatType::F32),
        expert_bytes,
        poison(entries * inner, problem.value),
        to_bytes(&weights, FloatType::F32),
    ];
    device.run(&problem.launch(), &mut buffers);
    let mut expected = Vec::new();
    for (entry, &expert) in experts.iter().enumerate() {
        let x = &input[entry / chosen * cols..][..cols];
        let product = |values: &[f32], added: &[f32]| {
            let added = problem.added.then(|| part(added, expert));
            linear_reference(x, part(values, expert), added)
        };
        let ups = product(&up.values, &up_added);
        expected.extend(match problem.gated {
            true => product(&gate.values, &gate_added)
                .iter()
                .zip(ups)
                .map(|(&gate, up)| {
                    (
                        if problem.weighed {
                            gate * f64::from(weights[entry])
                        } else {
                            gate
                        },
                        up,
                    )
                })
                .map(|(gate, up)| gate_reference(problem.activation, gate as f32, up as f32))
                .collect::<Vec<f64>>(),
            false => ups.iter().map(|&up| activated(problem.activation, up as f32)).collect(),
        });
    }
    assert_close(
        &from_bytes(&buffers[10], problem.value),
        &expected,
        problem.value,
        problem,
    );
}

/// The activation alone.
fn activated(activation: Activation, value: f32) -> f64 {
    match activation {
        // Its factor is 1 + up.
        Activation::ClampedSwiglu { .. } => gate_reference(activation, value, 0.0),
        _ => gate_reference(activation, value, 1.0),
    }
}

fn check_outer(device: &Device, random: &mut Random, problem: &ExpertsOuter) {
    let (hidden, cols, rows) = (problem.hidden as usize, problem.cols as usize, problem.rows as usize);
    let (chosen, value) = (problem.chosen as usize, problem.value);
    let entries = rows * chosen;
    let weight = TestWeight::new(random, problem.weight, EXPERTS * hidden, cols);
    let added = random.values(EXPERTS * hidden, FloatType::F32);
    let input = random.values(entries * cols, value);
    let weights = random.values(entries, FloatType::F32);
    let shared_gate = random.values(rows, value);
    let before = random.values(rows * hidden, value);
    let (experts, expert_bytes) = choose(random, entries);
    let [codes, scales, biases] = weight.buffers;
    let output = match problem.base {
        SumBase::Zero => poison(rows * hidden, value),
        _ => to_bytes(&before, value),
    };
    let mut buffers = [
        codes,
        scales,
        biases,
        to_bytes(&input, value),
        to_bytes(&added, FloatType::F32),
        expert_bytes,
        to_bytes(&weights, FloatType::F32),
        to_bytes(&shared_gate, value),
        output.clone(),
    ];
    device.run(&problem.launch(), &mut buffers);
    let products: Vec<Vec<f64>> = (0..entries)
        .map(|entry| {
            let added = problem.added.then(|| part(&added, experts[entry]));
            linear_reference(
                &input[entry * cols..][..cols],
                part(&weight.values, experts[entry]),
                added,
            )
        })
        .collect();
    let sums = |products: &[Vec<f64>]| -> Vec<f64> {
        let sum = |row: usize, col: usize| {
            let factor = match problem.base {
                SumBase::Zero => 0.0,
                SumBase::Output => 1.0,
                SumBase::Gated => 1.0 / (1.0 + f64::from(-shared_gate[row]).exp()),
            };
            let of_row = row * chosen..(row + 1) * chosen;
            let sum: f64 = of_row
                .map(|entry| f64::from(weights[entry]) * products[entry][col])
                .sum();
            factor * f64::from(before[row * hidden + col]) + sum
        };
        (0..rows)
            .flat_map(|row| (0..hidden).map(move |col| (row, col)))
            .map(|(row, col)| sum(row, col))
            .collect()
    };
    assert_close(&from_bytes(&buffers[8], value), &sums(&products), value, problem);

    // The same sum of products that are there already, rounded.
    let stored: Vec<f32> = products.iter().flatten().map(|&product| product as f32).collect();
    let stored = to_bytes(&stored, value);
    let rounded: Vec<Vec<f64>> = from_bytes(&stored, value)
        .chunks_exact(hidden)
        .map(|row| row.iter().map(|&product| f64::from(product)).collect())
        .collect();
    let mut buffers = [
        stored,
        to_bytes(&weights, FloatType::F32),
        to_bytes(&shared_gate, value),
        output,
    ];
    device.run(&problem.sum(), &mut buffers);
    assert_close(&from_bytes(&buffers[3], value), &sums(&rounded), value, problem);
}

fn check_all(watch: Watch, every: usize) {
    let inners: Vec<ExpertsInner> = inners().into_iter().step_by(every).collect();
    let outers: Vec<ExpertsOuter> = outers().into_iter().step_by(every).collect();
    let launches = inners.iter().map(ExpertsInner::launch);
    let launches = launches.chain(outers.iter().flat_map(|problem| [problem.launch(), problem.sum()]));
    let device = Device::new(&launches.collect::<Vec<_>>(), watch);
    let mut random = Random(31);
    inners
        .iter()
        .for_each(|problem| check_inner(&device, &mut random, problem));
    outers
        .iter()
        .for_each(|problem| check_outer(&device, &mut random, problem));
}

#[test]
fn experts_equal_the_reference() {
    check_all(Watch::Memory, 1);
}

#[test]
fn experts_have_no_races() {
    check_all(Watch::Races, 7);
}
