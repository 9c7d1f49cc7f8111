//! Packing on the device, bit for bit as planish-format packs.

use planish_format::{Encoder, FloatMatrix, Packing, quantize};
use planish_kernels::launch::{Launch, NonFinite, Quantize};

use crate::data::{Random, TYPES, WIDTHS, poison, round_to, to_bytes};
use crate::device::{Device, Watch};

const ENCODERS: [Encoder; 3] = [Encoder::Transformers, Encoder::MlxCpu, Encoder::MlxMetal];

fn problems() -> Vec<Quantize> {
    let mut problems = Vec::new();
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        for (turn, encoder) in ENCODERS.into_iter().enumerate() {
            let group = [64, 8, 40, 288][(index + turn) % 4];
            let value = TYPES[(index + turn / 2) % 3];
            problems.push(Quantize {
                packing: Packing::new(bits, group).expect("a packing"),
                encoder,
                value,
                scale: if turn == 1 { TYPES[(index + 1) % 3] } else { value },
                rows: 3,
                cols: 4 * group as u32,
            });
        }
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let problems = problems();
    problems
        .iter()
        .flat_map(|problem| [problem.launch(), NonFinite(*problem).launch()])
        .collect()
}

#[test]
fn packing_equals_that_of_the_format() {
    let launches: Vec<Launch> = problems().iter().map(Quantize::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(12);
    for problem in problems() {
        let (rows, cols, group) = (problem.rows as usize, problem.cols as usize, problem.packing.group());
        let mut plain = random.values(rows * cols, problem.value);
        // A group of equal weights, and one without positive weights.
        plain[..group].fill(0.25);
        plain[group..2 * group]
            .iter_mut()
            .for_each(|weight| *weight = round_to(-weight.abs(), problem.value));
        let bytes = to_bytes(&plain, problem.value);
        // Rounded to the type of the scales first.
        let rounded = to_bytes(&plain, problem.scale);
        let source = FloatMatrix::new(rows, cols, problem.scale, &rounded).expect("a matrix");
        let expected = quantize(source, problem.packing, problem.encoder).expect("weights that can be packed");
        let groups = rows * cols / group;
        let mut buffers = [
            bytes.clone(),
            vec![0xff; expected.codes.len()],
            poison(groups, problem.scale),
            poison(groups, problem.scale),
        ];
        device.run(&problem.launch(), &mut buffers);
        assert_eq!(buffers[1], expected.codes, "codes of {problem:?}");
        assert_eq!(buffers[2], expected.scales, "scales of {problem:?}");
        assert_eq!(buffers[3], expected.biases, "biases of {problem:?}");
    }
}

#[test]
fn what_is_not_finite_is_found() {
    let launches: Vec<Launch> = problems().iter().map(|problem| NonFinite(*problem).launch()).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(13);
    for problem in problems() {
        let search = NonFinite(problem);
        let count = (problem.rows * problem.cols) as usize;
        let mut plain = random.values(count, problem.value);
        for wrong in [None, Some(f32::NAN), Some(f32::NEG_INFINITY)] {
            if let Some(wrong) = wrong {
                plain[random.next() as usize % count] = wrong;
            }
            let mut buffers = [
                to_bytes(&plain, problem.value),
                poison(NonFinite::PARTS as usize, planish_format::FloatType::F32),
            ];
            device.run(&search.launch(), &mut buffers);
            let found = buffers[1].chunks_exact(4).any(|part| part != [0; 4]);
            assert_eq!(found, wrong.is_some(), "{problem:?}");
        }
    }
}
