//! Packed weights in the order of the tensor cores, with many inputs.

use std::collections::HashMap;

use planish_format::{FloatType, Packing};
use planish_kernels::launch::{
    Features, Launch, Product, ProductBuffer, TensorMatmul, TensorWeight, WarpgroupMatmul, WeightKind,
};
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
    // Group, columns, rows, inputs, parts of the columns.
    let shapes = [
        (64, 320, 72, 17, 1),
        (32, 192, 130, 33, 1),
        (128, 128, 35, 100, 1),
        (64, 64, 65, 300, 1),
        (64, 192, 136, 250, 1),
        (64, 448, 72, 20, 3),
        (128, 384, 131, 70, 2),
    ];
    let mut problems = Vec::new();
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        for (turn, (group, cols, rows, inputs, parts)) in shapes.into_iter().enumerate() {
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
                matmul: WarpgroupMatmul::new(tensor).expect("inputs that fit").with_parts(parts),
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
        let steps = problem.matmul.plan().steps.into_iter().map(|step| step.launch);
        std::iter::once(problem.tensor.weight.repack()).chain(steps)
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
    let plan = problem.matmul.plan();
    let added = random.values(rows, FloatType::F32);
    let mut memory = HashMap::from([
        (ProductBuffer::Codes, tiles),
        (ProductBuffer::Scales, tile_scales),
        (ProductBuffer::Input, to_bytes(&input, matmul.value)),
        (ProductBuffer::Arranged, vec![0xff; plan.arranged_bytes]),
        (ProductBuffer::Partial, vec![0xff; plan.partial_bytes]),
        (ProductBuffer::Added, to_bytes(&added, FloatType::F32)),
        (ProductBuffer::Output, poison(inputs * rows, matmul.output)),
    ]);
    for step in &plan.steps {
        let bound = step.buffers.iter().map(|buffer| memory[buffer].clone());
        let mut bound: Vec<Vec<u8>> = bound.collect();
        device.run(&step.launch, &mut bound);
        memory.extend(step.buffers.iter().copied().zip(bound));
    }
    let added = matmul.added.then_some(&added[..]);
    let expected: Vec<f64> = input
        .chunks_exact(cols)
        .flat_map(|input| linear_reference(input, &weight.values, added))
        .collect();
    assert_near(
        &from_bytes(&memory[&ProductBuffer::Output], matmul.output),
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
    let problems = problems();
    check_all(Watch::Races, &problems[..3]);
    let parted = problems
        .into_iter()
        .filter(|problem| problem.matmul.partial_bytes() > 0);
    check_all(Watch::Races, &parted.take(2).collect::<Vec<_>>());
}

/// The numbers are those of text/README.md, measured on an H100: what is chosen was the fastest, or within 2 us of it.
#[test]
fn parts_are_chosen_where_they_were_faster() {
    let features = Features {
        simdgroup_matrices: false,
        tensor_cores: true,
        warpgroups: true,
        multiprocessors: 132,
    };
    let chosen = |rows, cols, inputs| {
        let product = Product {
            weight: WeightKind {
                packing: Packing::new(4, 64),
                float_type: FloatType::BF16,
            },
            value: FloatType::BF16,
            output: FloatType::BF16,
            rows,
            cols,
            inputs,
            added: false,
            stored: false,
            overlaps: false,
        };
        let (variant, plan) = product.choose(&features);
        (variant.name, plan.partial_bytes / (4 * (rows * inputs) as usize))
    };
    let (tensor, warpgroup) = ("tensor_matmul", "warpgroup_matmul");
    for (rows, cols, inputs, expected) in [
        (4096, 4096, 48, (tensor, 0)),
        (4096, 4096, 64, (warpgroup, 4)),
        (4096, 4096, 128, (warpgroup, 4)),
        (4096, 4096, 129, (warpgroup, 0)),
        (4096, 14336, 24, (tensor, 0)),
        (4096, 14336, 48, (warpgroup, 4)),
        (4096, 14336, 128, (warpgroup, 4)),
        (1024, 4096, 64, (tensor, 0)),
        (14336, 4096, 16, (tensor, 0)),
        (14336, 4096, 64, (warpgroup, 0)),
        (8192, 2048, 64, (warpgroup, 0)),
        (8192, 8192, 64, (warpgroup, 2)),
        (2048, 8192, 64, (tensor, 0)),
        (2048, 8192, 96, (warpgroup, 4)),
    ] {
        assert_eq!(chosen(rows, cols, inputs), expected, "{rows} x {cols}, {inputs} inputs");
    }
}
