//! Sums of parts of rows, and rows that are measured and changed as a whole.

use planish_format::FloatType;
use planish_kernels::launch::{Cut, Launch, Mix, Rescale};
use planish_ops::{cut_reference, mix_reference, rescale_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, to_bytes};
use crate::device::{Device, Watch};

const ROWS: u32 = 3;

fn mixes() -> Vec<Mix> {
    let sizes = [(4, 4, 0, 4), (1, 4, 0, 4), (1, 4, 1, 3), (3, 2, 1, 1)];
    let problem = |(index, (inputs, targets, first_part, parts)): (usize, (u32, u32, u32, u32))| Mix {
        value: TYPES[index % 3],
        rows: ROWS,
        width: 131,
        inputs,
        target_cols: targets * 131,
        first_part,
        parts,
        weighed: index != 2,
        adds: index > 0,
    };
    sizes.into_iter().enumerate().map(problem).collect()
}

fn cuts() -> [Cut; 3] {
    TYPES.map(|value| Cut {
        value,
        rows: ROWS,
        cols: 519,
        deviations: 0.4,
    })
}

fn rescales() -> [Rescale; 3] {
    TYPES.map(|value| Rescale {
        value,
        rows: ROWS,
        cols: 133,
        floor: 0.3,
    })
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let mixes = mixes().into_iter().map(|problem| problem.launch());
    let cuts = cuts().map(|problem| problem.launch());
    let rescales = rescales().map(|problem| problem.launch());
    mixes.chain(cuts).chain(rescales).collect()
}

#[test]
fn sums_of_parts_equal_the_formula() {
    let problems = mixes();
    let launches: Vec<Launch> = problems.iter().map(Mix::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(15);
    for problem in &problems {
        let [width, inputs, cols, parts] =
            [problem.width, problem.inputs, problem.target_cols, problem.parts].map(|size| size as usize);
        let factors = random.values(ROWS as usize * parts * inputs, FloatType::F32);
        let source = random.values(ROWS as usize * inputs * width, problem.value);
        let target = random.values(ROWS as usize * cols, problem.value);
        let mut expected: Vec<f64> = target.iter().map(|&value| f64::from(value)).collect();
        for (row, part) in (0..ROWS as usize).flat_map(|row| (0..parts).map(move |part| (row, part))) {
            let at = row * cols + (problem.first_part as usize + part) * width;
            let base = match problem.adds {
                true => target[at..at + width].to_vec(),
                false => vec![0.0; width],
            };
            let own = match problem.weighed {
                true => factors[(row * parts + part) * inputs..][..inputs].to_vec(),
                false => vec![1.0; inputs],
            };
            let mixed = mix_reference(&base, &own, &source[row * inputs * width..][..inputs * width]);
            expected[at..at + width].copy_from_slice(&mixed);
        }
        let mut buffers = [
            to_bytes(&factors, FloatType::F32),
            to_bytes(&source, problem.value),
            to_bytes(&target, problem.value),
        ];
        device.run(&problem.launch(), &mut buffers);
        let found = from_bytes(&buffers[2], problem.value);
        assert_close(&found, &expected, problem.value, problem);
    }
}

#[test]
fn measured_rows_equal_the_formula() {
    let launches: Vec<Launch> = launches().into_iter().filter(|launch| launch.kernel != "mix").collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(16);
    for problem in &cuts() {
        let values = random.values((ROWS * problem.cols) as usize, problem.value);
        let rows = values.chunks_exact(problem.cols as usize);
        let expected: Vec<f64> = rows.flat_map(|row| cut_reference(row, problem.deviations)).collect();
        let mut buffers = [to_bytes(&values, problem.value)];
        device.run(&problem.launch(), &mut buffers);
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &expected,
            problem.value,
            problem,
        );
    }
    for problem in &rescales() {
        let cols = problem.cols as usize;
        let mut values = random.values(ROWS as usize * cols, problem.value);
        // A row below the floor.
        values[..cols].iter_mut().for_each(|value| *value *= 0.125);
        let like = random.values(ROWS as usize * cols, problem.value);
        let rows = values.chunks_exact(cols).zip(like.chunks_exact(cols));
        let expected: Vec<f64> = rows
            .flat_map(|(row, like)| rescale_reference(row, like, problem.floor))
            .collect();
        let mut buffers = [to_bytes(&values, problem.value), to_bytes(&like, problem.value)];
        device.run(&problem.launch(), &mut buffers);
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &expected,
            problem.value,
            problem,
        );
    }
}
