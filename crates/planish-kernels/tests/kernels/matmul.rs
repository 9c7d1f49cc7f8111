//! Many rows through packed and plain weights.

use planish_kernels::launch::{Launch, Matmul};
use planish_ops::linear_reference;

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::{TestWeight, weight_cases};

fn problems() -> Vec<Matmul> {
    let cases = weight_cases().into_iter().enumerate();
    let problems = cases.map(|(index, (weight, cols))| Matmul {
        weight,
        value: TYPES[index % 3],
        output: TYPES[(index + index / 5) % 3],
        rows: [33, 7, 64][index % 3],
        cols: cols as u32,
        inputs: [17, 40, 3, 32][index % 4],
        added: index % 2 == 0,
    });
    problems.collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(Matmul::launch).collect()
}

fn check(device: &Device, random: &mut Random, problem: &Matmul) {
    let (rows, cols, inputs) = (problem.rows as usize, problem.cols as usize, problem.inputs as usize);
    let weight = TestWeight::new(random, problem.weight, rows, cols);
    let input = random.values(inputs * cols, problem.value);
    let added = random.values(rows, planish_format::FloatType::F32);
    let [codes, scales, biases] = weight.buffers;
    let mut buffers = [
        codes,
        scales,
        biases,
        to_bytes(&input, problem.value),
        to_bytes(&added, planish_format::FloatType::F32),
        poison(inputs * rows, problem.output),
    ];
    device.run(&problem.launch(), &mut buffers);
    let added = problem.added.then_some(&added[..]);
    let expected: Vec<f64> = input
        .chunks_exact(cols)
        .flat_map(|input| linear_reference(input, &weight.values, added))
        .collect();
    assert_close(
        &from_bytes(&buffers[5], problem.output),
        &expected,
        problem.output,
        problem,
    );
}

fn check_all(watch: Watch, problems: &[Matmul]) {
    let launches: Vec<Launch> = problems.iter().map(Matmul::launch).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(9);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn matmul_equals_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn matmul_has_no_races() {
    let problems: Vec<Matmul> = problems().into_iter().step_by(19).collect();
    check_all(Watch::Races, &problems);
}
