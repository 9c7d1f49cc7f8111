//! Packing on the device, bit for bit as planish-format packs.

use planish_format::{Encoder, FloatMatrix, Packing, quantize};
use planish_ops::kernels::{Launch, Quantize};

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
                scale: value,
                rows: 3,
                cols: 4 * group as u32,
            });
        }
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(Quantize::launch).collect()
}

#[test]
fn packing_equals_that_of_the_format() {
    let device = Device::new(&launches(), Watch::Memory);
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
        let source = FloatMatrix::new(rows, cols, problem.value, &bytes).expect("a matrix");
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
