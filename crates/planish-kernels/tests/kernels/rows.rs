//! Embedding rows and dequantizing.

use planish_kernels::launch::{Launch, NO_TOKEN, Rows};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison};
use crate::device::{Device, Watch};
use crate::matvec::{TestWeight, weight_cases};
use crate::places::{Scene, bytes_of};

const TOKENS: [u32; 7] = [4, 0, 3, 3, 1, 4, 2];
/// Rows that are embedded by their places, and the table's row of position 0.
const PLACED: u32 = 4;
const OFFSET: u32 = 1;

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
        .flat_map(|problem| {
            let placed = [problem.embed_chosen(PLACED), problem.embed_positions(PLACED, OFFSET)];
            let others = [problem.embed(TOKENS.len() as u32), problem.dequantize()];
            placed.into_iter().chain(others)
        })
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

        // Sequences at positions 2, 0 and 1, 3 in any slots; the second and the last row have known tokens.
        let scene = Scene::new(&mut random, &[(1, 2), (2, 0), (1, 3)], 0);
        let slots = scene.spans.iter().map(|span| span.slot).max().unwrap_or(0) + 1;
        let mut chosen = vec![u32::MAX; slots];
        let of_slots = [4, 2, 1];
        for (span, &token) in scene.spans.iter().zip(&of_slots) {
            chosen[span.slot] = token;
        }
        let known = [NO_TOKEN, 3, NO_TOKEN, 0];
        let [codes, scales, biases] = weight.buffers.clone();
        let output = poison(known.len() * cols, problem.value);
        let (places, known) = (scene.places(), bytes_of(&known));
        let mut buffers = [
            codes,
            scales,
            biases,
            known,
            places.clone(),
            bytes_of(&chosen),
            output.clone(),
        ];
        device.run(&problem.embed_chosen(PLACED), &mut buffers);
        let embedded: Vec<f64> = [4, 3, 2, 0].into_iter().flat_map(expected).collect();
        assert_close(
            &from_bytes(&buffers[6], problem.value),
            &embedded,
            problem.value,
            problem,
        );
        let [codes, scales, biases] = weight.buffers.clone();
        let mut buffers = [codes, scales, biases, places, output];
        device.run(&problem.embed_positions(PLACED, OFFSET), &mut buffers);
        let embedded: Vec<f64> = [3, 1, 2, 4].into_iter().flat_map(expected).collect();
        assert_close(
            &from_bytes(&buffers[4], problem.value),
            &embedded,
            problem.value,
            problem,
        );

        let [codes, scales, biases] = weight.buffers.clone();
        let mut buffers = [codes, scales, biases, poison(rows * cols, problem.value)];
        device.run(&problem.dequantize(), &mut buffers);
        let found = from_bytes(&buffers[3], problem.value);
        let all: Vec<f64> = (0..rows).flat_map(expected).collect();
        assert_close(&found, &all, problem.value, problem);
    }
}
