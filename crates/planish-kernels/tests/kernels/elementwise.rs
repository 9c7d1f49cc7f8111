//! Activations and sums.

use planish_format::FloatType;
use planish_kernels::launch::{Add, Gate, Launch, ScaleRows};
use planish_ops::{Activation, Xielu, gate_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, round_to, to_bytes};
use crate::device::{Device, Watch};
use crate::places::bytes_of;

const XIELU: Xielu = Xielu {
    positive: 0.8,
    negative: 0.7,
    slope: 0.5,
    limit: -1e-6,
};
const ACTIVATIONS: [Activation; 13] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Relu2,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Softplus,
    Activation::Clamp(0.5),
    Activation::Softcap(2.5),
    Activation::Xielu(XIELU),
    Activation::ClampedSwiglu {
        slope: 1.702,
        limit: 1.5,
    },
];

fn gates() -> Vec<Gate> {
    ACTIVATIONS
        .into_iter()
        .enumerate()
        .flat_map(|(index, activation)| {
            [false, true].map(|gated| Gate {
                activation,
                value: TYPES[(index + usize::from(gated)) % 3],
                count: 301,
                gated,
            })
        })
        .collect()
}

fn sums() -> [Add; 3] {
    TYPES.map(|value| Add {
        value,
        count: 259,
        factor: -0.75,
    })
}

fn scales() -> [ScaleRows; 3] {
    TYPES.map(|value| ScaleRows {
        value,
        rows: 5,
        cols: 259,
    })
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let gates = gates().into_iter().map(|problem| problem.launch());
    let sums = sums().into_iter().map(|problem| problem.launch());
    let scales = scales().map(|problem| problem.launch());
    gates.chain(sums).chain(scales).collect()
}

#[test]
fn gates_equal_the_reference() {
    let problems = gates();
    let launches: Vec<Launch> = problems.iter().map(Gate::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(5);
    for problem in &problems {
        let count = problem.count as usize;
        let values: Vec<f32> = (0..count)
            .map(|_| round_to(6.0 * random.value(), problem.value))
            .collect();
        let up = random.values(count, problem.value);
        let mut buffers = [to_bytes(&values, problem.value), to_bytes(&up, problem.value)];
        device.run(&problem.launch(), &mut buffers);
        let pairs = values.iter().zip(&up);
        let alone = match problem.activation {
            Activation::ClampedSwiglu { .. } => 0.0, // to which it adds 1
            _ => 1.0,
        };
        let expected: Vec<f64> = pairs
            .map(|(&value, &up)| gate_reference(problem.activation, value, if problem.gated { up } else { alone }))
            .collect();
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &expected,
            problem.value,
            problem,
        );
    }
}

#[test]
fn sums_equal_the_formula() {
    let problems = sums();
    let device = Device::new(&problems.map(|problem| problem.launch()), Watch::Memory);
    let mut random = Random(6);
    for problem in &problems {
        let values = random.values(259, problem.value);
        let other = random.values(259, problem.value);
        let mut buffers = [to_bytes(&values, problem.value), to_bytes(&other, problem.value)];
        device.run(&problem.launch(), &mut buffers);
        let pairs = values.iter().zip(&other);
        let expected: Vec<f64> = pairs
            .map(|(&value, &other)| f64::from(value) - 0.75 * f64::from(other))
            .collect();
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &expected,
            problem.value,
            problem,
        );
    }
}

#[test]
fn scaled_rows_equal_the_reference() {
    let problems = scales();
    let device = Device::new(&problems.map(|problem| problem.launch()), Watch::Memory);
    let mut random = Random(8);
    for problem in &problems {
        let (rows, cols) = (problem.rows as usize, problem.cols as usize);
        let values = random.values(rows * cols, problem.value);
        let factors = random.values(rows, FloatType::F32);
        let entries: Vec<u32> = (0..rows as u32).map(|row| 2 * row % problem.rows).collect();
        let mut buffers = [
            to_bytes(&values, problem.value),
            to_bytes(&factors, FloatType::F32),
            bytes_of(&entries),
        ];
        device.run(&problem.launch(), &mut buffers);
        let scaled = values.iter().enumerate();
        let scaled =
            scaled.map(|(index, &value)| f64::from(value) * f64::from(factors[entries[index / cols] as usize]));
        let expected: Vec<f64> = scaled.collect();
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &expected,
            problem.value,
            problem,
        );
    }
}
