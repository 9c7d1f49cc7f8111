//! Activations, sums, and rows appended to a cache.

use planish_ops::kernels::{Add, Append, Gate, Launch};
use planish_ops::{Activation, Xielu, gate_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, round_to, to_bytes};
use crate::device::{Device, Watch};

const XIELU: Xielu = Xielu {
    positive: 0.8,
    negative: 0.7,
    slope: 0.5,
    limit: -1e-6,
};
const ACTIVATIONS: [Activation; 11] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Relu2,
    Activation::Sigmoid,
    Activation::Tanh,
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

fn appends() -> [Append; 3] {
    [(0, 1), (1, 2), (2, 0)].map(|(value, cache)| Append {
        value: TYPES[value],
        cache: TYPES[cache],
        rows: 3,
        first_position: 2,
        key_width: 300,
        value_width: 40,
    })
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let gates = gates().into_iter().map(|problem| problem.launch());
    let sums = sums().into_iter().map(|problem| problem.launch());
    let appends = appends().into_iter().map(|problem| problem.launch());
    gates.chain(sums).chain(appends).collect()
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
fn appended_rows_lie_at_their_positions() {
    let problems = appends();
    let device = Device::new(&problems.map(|problem| problem.launch()), Watch::Memory);
    let mut random = Random(7);
    for problem in &problems {
        let widths = [problem.key_width as usize, problem.value_width as usize];
        let rows = widths.map(|width| random.values(3 * width, problem.value));
        let mut buffers = [
            to_bytes(&rows[0], problem.value),
            to_bytes(&rows[1], problem.value),
            poison(6 * widths[0], problem.cache),
            poison(6 * widths[1], problem.cache),
        ];
        device.run(&problem.launch(), &mut buffers);
        for (which, width) in widths.into_iter().enumerate() {
            let cache = &buffers[2 + which];
            let bytes = width * problem.cache.size_bytes();
            let expected: Vec<f64> = rows[which].iter().map(|&value| f64::from(value)).collect();
            let found = from_bytes(&cache[2 * bytes..5 * bytes], problem.cache);
            assert_close(&found, &expected, problem.cache, problem);
            let others = cache[..2 * bytes].iter().chain(&cache[5 * bytes..]);
            assert!(
                others.into_iter().all(|&byte| byte == 0xff),
                "other positions stay: {problem:?}"
            );
        }
    }
}
