//! Packing by search on the device, bit for bit as planish-format packs.

use planish_format::{FloatMatrix, FloatType, Packing, QuantizeOptions, Rule, quantize_with};
use planish_kernels::launch::{Launch, SearchGroups};

use crate::data::{Random, TYPES, WIDTHS, poison, to_bytes};
use crate::device::{Device, Watch};

/// Every width, the groups that models have and some that do not fill the lanes.
fn problems() -> Vec<SearchGroups> {
    let problem = |(index, bits): (usize, u32), group: usize, scale: FloatType| SearchGroups {
        packing: Packing::new(bits, group).expect("a packing"),
        value: TYPES[index % 3],
        scale,
        rows: 3,
        cols: 4 * group as u32,
    };
    let groups = [64, 8, 128, 40, 32, 256];
    let every = WIDTHS.into_iter().enumerate().flat_map(|(index, bits)| {
        [
            problem((index, bits), groups[index], TYPES[index % 3]),
            problem((index, bits), 64, FloatType::BF16),
        ]
    });
    every.collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(SearchGroups::launch).collect()
}

#[test]
fn codes_equal_those_of_the_format() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(14);
    for problem in problems() {
        let (rows, cols, group) = (problem.rows as usize, problem.cols as usize, problem.packing.group());
        let mut plain = random.values(rows * cols, problem.value);
        // Equal weights, zeros of either sign, a zero as the least, large and tiny ones, one that stands alone.
        plain[..group].fill(0.25);
        plain[group..2 * group].iter_mut().enumerate().for_each(|(at, weight)| {
            *weight = if at % 3 == 1 { -0.0 } else { 0.0 };
        });
        plain[2 * group..3 * group]
            .iter_mut()
            .enumerate()
            .for_each(|(at, weight)| {
                *weight = if at < 5 { -0.0 } else { weight.abs() };
            });
        plain[3 * group..4 * group]
            .iter_mut()
            .for_each(|weight| *weight *= 1024.0);
        plain[4 * group..5 * group]
            .iter_mut()
            .for_each(|weight| *weight /= 8192.0);
        plain[5 * group + 3] = 32.0;
        let bytes = to_bytes(&plain, problem.value);
        let columns: Vec<f32> = (0..cols).map(|_| 1.0 + 3.0 * random.value().abs()).collect();
        let source = FloatMatrix::new(rows, cols, problem.value, &bytes).expect("a matrix");
        let options = QuantizeOptions {
            packing: problem.packing,
            rule: Rule::Search {
                importance: Some(&columns),
            },
            scale_type: problem.scale,
            allow_non_finite: false,
        };
        let expected = quantize_with(source, options).expect("weights that can be packed");
        let groups = rows * cols / group;
        let mut buffers = [
            bytes.clone(),
            to_bytes(&columns, FloatType::F32),
            vec![0xff; expected.codes.len()],
            poison(groups, problem.scale),
            poison(groups, problem.scale),
        ];
        device.run(&problem.launch(), &mut buffers);
        assert_eq!(buffers[3], expected.scales, "scales of {problem:?}");
        assert_eq!(buffers[4], expected.biases, "biases of {problem:?}");
        assert_eq!(buffers[2], expected.codes, "codes of {problem:?}");
    }
}
