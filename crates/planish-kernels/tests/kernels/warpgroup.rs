//! Packed weights in the order of the tensor cores, with many inputs.

use planish_format::{FloatType, Packing};
use planish_kernels::launch::{Launch, TensorMatmul, TensorWeight, WarpgroupMatmul, WeightKind};
use planish_ops::linear_reference;

use crate::data::{Random, WIDTHS, assert_near, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::TestWeight;
use crate::tensor::repacked;

struct Problem {
    kind: WeightKind,
    rows: usize,
    cols: usize,
    tensor: TensorMatmul,
    matmul: WarpgroupMatmul,
}

fn problems() -> Vec<Problem> {
    let halves = [FloatType::F16, FloatType::BF16];
    // Group, columns, rows, inputs.
    let shapes = [
        (64, 320, 72, 17),
        (32, 192, 130, 33),
        (128, 128, 35, 100),
        (64, 64, 65, 300),
        (64, 192, 136, 250),
    ];
    let mut problems = Vec::new();
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        for (turn, (group, cols, rows, inputs)) in shapes.into_iter().enumerate() {
            // The large ones for two widths.
            if turn > 1 && index % 3 != turn % 3 {
                continue;
            }
            let packing = Packing::new(bits, group).expect("a packing");
            let float_type = halves[(index + turn) % 2];
            let weight = TensorWeight::new(packing, float_type, rows, cols).expect("a shape that fits");
            // So few multiprocessors that threadgroups take several tiles.
            let weight = weight.shared_by(1);
            let tensor = TensorMatmul {
                weight,
                value: FloatType::BF16,
                output: [FloatType::BF16, FloatType::F16, FloatType::F32][turn % 3],
                inputs,
                added: turn % 2 == 0,
            };
            problems.push(Problem {
                kind: WeightKind {
                    packing: Some(packing),
                    float_type,
                },
                rows: rows as usize,
                cols: cols as usize,
                tensor,
                matmul: WarpgroupMatmul::new(tensor).expect("inputs that fit"),
            });
        }
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    launches_of(&problems())
}

fn launches_of(problems: &[Problem]) -> Vec<Launch> {
    let launches = problems.iter().flat_map(|problem| {
        [
            problem.tensor.weight.repack(),
            problem.matmul.arrange().launch(),
            problem.matmul.launch(),
        ]
    });
    launches.collect()
}

fn check(device: &Device, random: &mut Random, problem: &Problem) {
    let Problem { rows, cols, .. } = *problem;
    let matmul = problem.tensor;
    let weight = TestWeight::new(random, problem.kind, rows, cols);
    let [tiles, tile_scales] = repacked(device, matmul.weight, &weight.buffers);
    let inputs = matmul.inputs as usize;
    let input = random.values(inputs * cols, matmul.value);
    let arrange = problem.matmul.arrange();
    let mut arranged = [to_bytes(&input, matmul.value), vec![0xff; arrange.bytes()]];
    device.run(&arrange.launch(), &mut arranged);
    let [_, arranged] = arranged;

    let added = random.values(rows, FloatType::F32);
    let mut buffers = [
        tiles,
        tile_scales,
        arranged,
        to_bytes(&added, FloatType::F32),
        poison(inputs * rows, matmul.output),
    ];
    device.run(&problem.matmul.launch(), &mut buffers);
    let added = matmul.added.then_some(&added[..]);
    let expected: Vec<f64> = input
        .chunks_exact(cols)
        .flat_map(|input| linear_reference(input, &weight.values, added))
        .collect();
    assert_near(
        &from_bytes(&buffers[4], matmul.output),
        &expected,
        // Weights are rounded to f16, even where outputs are not.
        match matmul.output {
            FloatType::F32 => FloatType::F16,
            rounded => rounded,
        },
        &problem.matmul,
    );
}

fn check_all(watch: Watch, problems: &[Problem]) {
    let device = Device::new(&launches_of(problems), watch);
    let mut random = Random(11);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn warpgroup_matmul_equals_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn warpgroup_matmul_has_no_races() {
    check_all(Watch::Races, &problems()[..3]);
}
