//! Embedding rows and dequantizing.

use planish_kernels::launch::{Launch, Rows};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison};
use crate::device::{Device, Watch};
use crate::matvec::{TestWeight, weight_cases};

const TOKENS: [u32; 7] = [4, 0, 3, 3, 1, 4, 2];

fn problems() -> Vec<Rows> {
    let cases = weight_cases().into_iter().enumerate();
    let problems = cases.map(|(index, (weight, cols))| Rows {
        weight,
        value: TYPES[index % 3],
        rows: 5,
        cols: cols as u32,
        factor: if index % 2 == 0 { 1.0 } else { 3.5 },
    });
    problems.collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let launches = problems().into_iter();
    launches
        .flat_map(|problem| [problem.embed(TOKENS.len() as u32), problem.dequantize()])
        .collect()
}

#[test]
fn rows_equal_the_reference() {
    let (problems, tokens, launches) = (problems(), TOKENS, launches());
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(2);
    for problem in &problems {
        let (rows, cols) = (problem.rows as usize, problem.cols as usize);
        let weight = TestWeight::new(&mut random, problem.weight, rows, cols);
        let factor = f64::from(problem.factor);
        let expected = |row: usize| {
            let values = weight.values[row * cols..][..cols].iter();
            values.map(move |&value| factor * f64::from(value))
        };
        let [codes, scales, biases] = weight.buffers.clone();
        let token_bytes = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let output = poison(tokens.len() * cols, problem.value);
        let mut buffers = [codes, scales, biases, token_bytes, output];
        device.run(&problem.embed(tokens.len() as u32), &mut buffers);
        let found = from_bytes(&buffers[4], problem.value);
        let embedded: Vec<f64> = tokens.iter().flat_map(|&token| expected(token as usize)).collect();
        assert_close(&found, &embedded, problem.value, problem);

        let [codes, scales, biases] = weight.buffers.clone();
        let mut buffers = [codes, scales, biases, poison(rows * cols, problem.value)];
        device.run(&problem.dequantize(), &mut buffers);
        let found = from_bytes(&buffers[3], problem.value);
        let all: Vec<f64> = (0..rows).flat_map(expected).collect();
        assert_close(&found, &all, problem.value, problem);
    }
}
