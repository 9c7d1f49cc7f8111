//! Routed experts and work on parts of heads, on the CPU against references in f64.

use planish_cpu::{CpuOps, Pool, Precision};
use planish_format::{Encoder, FloatMatrix, FloatType, PackedMatrix, Packing, dequantize, quantize};
use planish_ops::*;

use crate::common::{close, ops, plain, random, read, tensor};

fn rule(scoring: Scoring, chosen: usize) -> Routing {
    Routing {
        chosen,
        scoring,
        groups: None,
        normalize: None,
        scale: 1.0,
    }
}

fn rules() -> Vec<Routing> {
    let groups = |kept, best| Some(ExpertGroups { count: 4, kept, best });
    vec![
        rule(Scoring::Softmax, 2),
        Routing {
            normalize: Some(0.0),
            ..rule(Scoring::Softmax, 5)
        },
        Routing {
            groups: groups(2, 1),
            scale: 1.5,
            ..rule(Scoring::Softmax, 3)
        },
        Routing {
            groups: groups(3, 2),
            normalize: Some(1e-20),
            scale: 2.5,
            ..rule(Scoring::Sigmoid, 4)
        },
        rule(Scoring::SparseMixer { jitter: 0.3 }, 2),
        rule(Scoring::SigmoidOfChosen, 3),
    ]
}

#[test]
fn routes_choose_and_weigh_as_the_formulas_say() {
    let (rows, experts) = (301, 12);
    let logits = random(1, rows * experts, 2.0);
    let score_correction = random(2, experts, 0.3);
    let ops = ops(1, Precision::Exact);
    let router = tensor(&ops, rows, experts, &logits);
    let corrections = ops.vector(&score_correction).unwrap();
    let of_experts = random(3, experts, 1.5);
    let factors = ops.vector(&of_experts).unwrap();
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for rule in rules() {
            let uncorrected = matches!(rule.scoring, Scoring::SparseMixer { .. });
            let mut choices = planish_cpu::Choices::default();
            let problem = Route {
                logits: &router,
                score_correction: (!uncorrected).then_some(&corrections),
                factors: (threads == 3).then_some(&factors),
                rule,
                weighs_inputs: false,
            };
            planish_cpu::route(&pool, rows, &problem, &mut choices);
            for (row, logits) in logits.chunks_exact(experts).enumerate() {
                let expected = route_reference(logits, &score_correction, &rule);
                let range = row * rule.chosen..(row + 1) * rule.chosen;
                let chosen: Vec<usize> = choices.experts[range.clone()]
                    .iter()
                    .map(|&expert| expert as usize)
                    .collect();
                assert!(
                    expected.iter().map(|(expert, _)| *expert).eq(chosen),
                    "row {row}, {rule:?}"
                );
                let factor = |expert: usize| {
                    if threads == 3 {
                        f64::from(of_experts[expert])
                    } else {
                        1.0
                    }
                };
                let weights = expected.iter().map(|&(expert, weight)| weight * factor(expert));
                let weights: Vec<f64> = weights.collect();
                close(&choices.weights[range], &weights, 2e-6);
            }
        }
    }
}

/// Random experts: the values of their matrices, and the matrices.
struct Layer {
    values: Vec<Vec<f32>>,
    matrices: Vec<Matrix>,
    biases: Vec<f32>,
}

fn layer(seed: u64, experts: usize, rows: usize, cols: usize, packed: bool) -> Layer {
    let mut layer = Layer {
        values: Vec::new(),
        matrices: Vec::new(),
        biases: random(seed + 99, experts * rows, 0.3),
    };
    for expert in 0..experts {
        let values = random(seed + expert as u64, rows * cols, 0.4);
        let matrix = match packed {
            true => Matrix::Packed(pack(rows, cols, &values)),
            false => plain(rows, cols, &values),
        };
        layer.values.push(match &matrix {
            Matrix::Packed(matrix) => {
                let mut values = vec![0.0; rows * cols];
                FloatType::F32.decode(&dequantize(matrix, FloatType::F32), &mut values);
                values
            }
            _ => values,
        });
        layer.matrices.push(matrix);
    }
    layer
}

fn pack(rows: usize, cols: usize, values: &[f32]) -> PackedMatrix {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let matrix = FloatMatrix::new(rows, cols, FloatType::F32, &data).unwrap();
    quantize(matrix, Packing::new(4, 8).unwrap(), Encoder::Transformers).unwrap()
}

struct Sizes {
    rows: usize,
    hidden: usize,
    intermediate: usize,
    experts: usize,
    packed: bool,
    weighs_inputs: bool,
    tolerance: f64,
}

fn check_experts(ops: &CpuOps, sizes: Sizes) {
    let Sizes {
        rows,
        hidden,
        intermediate,
        experts,
        packed,
        weighs_inputs,
        tolerance,
    } = sizes;
    let gate = layer(10, experts, intermediate, hidden, packed);
    let up = layer(30, experts, intermediate, hidden, packed);
    let down = layer(50, experts, hidden, intermediate, packed);
    let stack = |layer: &Layer| ops.place_stack(layer.matrices.clone()).unwrap();
    let biases = |layer: &Layer| ops.vector(&layer.biases).unwrap();
    let (gates, ups, downs) = (stack(&gate), stack(&up), stack(&down));
    let (gate_biases, up_biases, down_biases) = (biases(&gate), biases(&up), biases(&down));
    let input = random(70, rows * hidden, 1.0);
    let logits = random(71, rows * experts, 2.0);
    let shared = random(72, rows * hidden, 1.0);
    let shared_gate = random(73, rows, 1.0);
    let mut output = tensor(ops, rows, hidden, &shared);
    let rule = rule(Scoring::Softmax, 3);
    let layer = |weights, biases| ExpertLayer {
        weights,
        biases: (!weighs_inputs).then_some(biases),
    };
    ops.experts(Experts {
        rows,
        input: &tensor(ops, rows, hidden, &input),
        route: Route {
            logits: &tensor(ops, rows, experts, &logits),
            score_correction: None,
            factors: None,
            rule,
            weighs_inputs,
        },
        gate: Some(layer(&gates, &gate_biases)),
        up: layer(&ups, &up_biases),
        down: layer(&downs, &down_biases),
        activation: Activation::Silu,
        base: Base::Gated(&tensor(ops, rows, 1, &shared_gate)),
        output: &mut output,
    });
    let zeros = vec![0.0; hidden.max(intermediate)];
    let mut expected = Vec::new();
    for row in 0..rows {
        let factor = 1.0 / (1.0 + (-f64::from(shared_gate[row])).exp());
        let mut sums: Vec<f64> = shared[row * hidden..][..hidden]
            .iter()
            .map(|&value| factor * f64::from(value))
            .collect();
        for (expert, weight) in route_reference(&logits[row * experts..][..experts], &vec![0.0; experts], &rule) {
            let reference = ReferenceExpert {
                gate: &gate.values[expert],
                up: &up.values[expert],
                down: &down.values[expert],
                biases: [(&gate, intermediate), (&up, intermediate), (&down, hidden)].map(|(layer, features)| {
                    let biases = &layer.biases[expert * features..][..features];
                    if weighs_inputs { &zeros[..features] } else { biases }
                }),
            };
            let (before, after) = if weighs_inputs {
                (weight as f32, 1.0)
            } else {
                (1.0, weight)
            };
            let input = input[row * hidden..][..hidden].iter().map(|value| before * value);
            let values = expert_reference(&input.collect::<Vec<f32>>(), &reference, Activation::Silu);
            sums.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += after * value);
        }
        expected.extend(sums);
    }
    close(&read(ops, &output, rows), &expected, tolerance);
}

#[test]
fn experts_sum_up_for_one_row_and_for_many() {
    for threads in [1, 3] {
        let exact = ops(threads, Precision::Exact);
        for rows in [1, 2, 67] {
            for packed in [false, true] {
                check_experts(
                    &exact,
                    Sizes {
                        rows,
                        hidden: 40,
                        intermediate: 24,
                        experts: 7,
                        packed,
                        weighs_inputs: false,
                        tolerance: 3e-6,
                    },
                );
            }
            check_experts(
                &exact,
                Sizes {
                    rows,
                    hidden: 40,
                    intermediate: 24,
                    experts: 7,
                    packed: true,
                    weighs_inputs: true,
                    tolerance: 3e-6,
                },
            );
            check_experts(
                &ops(threads, Precision::Rounded),
                Sizes {
                    rows,
                    hidden: 64,
                    intermediate: 96,
                    experts: 5,
                    packed: true,
                    weighs_inputs: false,
                    tolerance: 0.03,
                },
            );
        }
    }
}

/// Gathers what belongs to each head, multiplies, and leaves the other columns alone.
#[test]
fn every_head_has_its_matrix() {
    for (rows, packed) in [(5, false), (5, true), (1, false), (1, true)] {
        check_heads(rows, packed);
    }
}

fn check_heads(rows: usize, packed: bool) {
    let ops = ops(2, Precision::Exact);
    let (heads, cols, features) = (3, 24, 39);
    let weights = layer(1, heads, features, cols, packed);
    let from = HeadPart { stride: 27, start: 2 };
    let to = HeadPart { stride: 42, start: 1 };
    let input = random(2, rows * heads * from.stride, 1.0);
    let before = random(3, rows * heads * to.stride, 1.0);
    let mut output = tensor(&ops, rows, heads * to.stride, &before);
    ops.head_linear(HeadLinear {
        rows,
        weights: &ops.place_stack(weights.matrices.clone()).unwrap(),
        input: &tensor(&ops, rows, heads * from.stride, &input),
        from,
        output: &mut output,
        to,
    });
    let mut expected: Vec<f64> = before.iter().map(|&value| f64::from(value)).collect();
    for head in 0..rows * heads {
        let x = &input[head * from.stride + from.start..][..cols];
        let products = linear_reference(x, &weights.values[head % heads], None);
        expected[head * to.stride + to.start..][..features].copy_from_slice(&products);
    }
    close(&read(&ops, &output, rows), &expected, 1e-6);
}

#[test]
fn parts_of_heads_are_copied() {
    let ops = ops(2, Precision::Exact);
    let (rows, heads, width) = (3, 2, 4);
    let (from, to) = (HeadPart { stride: 6, start: 2 }, HeadPart { stride: 5, start: 0 });
    let input = random(1, rows * heads * from.stride, 1.0);
    let before = random(2, rows * heads * to.stride, 1.0);
    let mut output = tensor(&ops, rows, heads * to.stride, &before);
    ops.copy_heads(CopyHeads {
        rows,
        heads,
        width,
        input: &tensor(&ops, rows, heads * from.stride, &input),
        from,
        output: &mut output,
        to,
    });
    let mut expected = before;
    for head in 0..rows * heads {
        expected[head * 5..][..4].copy_from_slice(&input[head * 6 + 2..][..4]);
    }
    assert_eq!(read(&ops, &output, rows), expected);
}
