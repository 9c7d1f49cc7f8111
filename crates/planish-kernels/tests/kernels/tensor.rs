//! Packed weights in the order of the tensor cores.

use planish_format::{FloatType, Packing};
use planish_kernels::launch::{Launch, TensorMatmul, TensorWeight, WeightKind};
use planish_ops::linear_reference;

use crate::data::{Random, WIDTHS, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::TestWeight;

struct Problem {
    kind: WeightKind,
    rows: usize,
    cols: usize,
    matmul: TensorMatmul,
}

fn problems() -> Vec<Problem> {
    let halves = [FloatType::F16, FloatType::BF16];
    let (few, many) = (3, 132);
    // (group, cols, rows, inputs, multiprocessors)
    let shapes = [
        (32, 64, 1, 1, many),
        (64, 320, 17, 9, many),
        (128, 640, 35, 3, many),
        // The large ones, for two widths each: one or two inputs, many inputs, all the ways to share out few.
        (32, 64, 8200, 2, many),
        (64, 128, 150, 130, few),
        (64, 192, 40, 2, few),
        (64, 192, 70, 3, few),
        (64, 320, 150, 5, few),
        (32, 192, 400, 8, few),
        (64, 320, 70, 17, few),
        (64, 192, 80, 31, few),
        (64, 320, 100, 33, few),
        (64, 192, 150, 12, few),
        // Several row tiles for each threadgroup, columns that end within a unit.
        (64, 1088, 200, 1, few),
        (192, 768, 100, 3, few),
    ];
    let (large, first_exact) = (3..13, 13);
    let mut problems = Vec::new();
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        for (turn, (group, cols, rows, inputs, processors)) in shapes.into_iter().enumerate() {
            if large.contains(&turn) && index % 3 != turn % 3 {
                continue;
            }
            let packing = Packing::new(bits, group).expect("a packing");
            let float_type = halves[(index + turn) % 2];
            let weight = TensorWeight::new(packing, float_type, rows, cols).expect("a shape that fits");
            let weight = weight.shared_by(processors);
            let halves_or_exact = [halves[(index / 2 + turn) % 2], FloatType::F32];
            problems.push(Problem {
                kind: WeightKind {
                    packing: Some(packing),
                    float_type,
                },
                rows: rows as usize,
                cols: cols as usize,
                matmul: TensorMatmul {
                    weight,
                    value: halves_or_exact[usize::from(turn >= first_exact && index % 2 == turn % 2)],
                    output: if turn == 1 || turn >= first_exact {
                        FloatType::F32
                    } else {
                        halves[index % 2]
                    },
                    inputs,
                    added: turn == 0,
                },
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
    let launches = problems.iter();
    launches
        .flat_map(|problem| {
            let weight = problem.matmul.weight;
            [weight.repack(), weight.restore(), problem.matmul.launch()]
        })
        .collect()
}

/// Tiles and tile scales of a weight.
pub fn repacked(device: &Device, weight: TensorWeight, buffers: &[Vec<u8>; 3]) -> [Vec<u8>; 2] {
    let [codes, scales, biases] = buffers.clone();
    let (tiles, tile_scales) = (vec![0xff; weight.tile_bytes()], vec![0xff; weight.scale_bytes()]);
    let mut repacked = [codes, scales, biases, tiles, tile_scales];
    device.run(&weight.repack(), &mut repacked);
    let [_, _, _, tiles, tile_scales] = repacked;
    [tiles, tile_scales]
}

/// The way back gives the bytes that were there.
fn check_restored(device: &Device, weight: TensorWeight, stored: &[Vec<u8>; 3], repacked: &[Vec<u8>; 2]) {
    let [tiles, tile_scales] = repacked.clone();
    let [codes, scales, biases] = stored.clone().map(|bytes| vec![0xff; bytes.len()]);
    let mut buffers = [tiles, tile_scales, codes, scales, biases];
    device.run(&weight.restore(), &mut buffers);
    assert_eq!(buffers[2..], stored[..], "{weight:?}");
}

fn check(device: &Device, random: &mut Random, problem: &Problem) {
    let Problem { rows, cols, matmul, .. } = *problem;
    let weight = TestWeight::new(random, problem.kind, rows, cols);
    let repacked = repacked(device, matmul.weight, &weight.buffers);
    check_restored(device, matmul.weight, &weight.buffers, &repacked);
    let [tiles, tile_scales] = repacked;
    let inputs = matmul.inputs as usize;
    let input = random.values(inputs * cols, matmul.value);
    let added = random.values(rows, FloatType::F32);
    let mut buffers = [
        tiles,
        tile_scales,
        to_bytes(&input, matmul.value),
        to_bytes(&added, FloatType::F32),
        poison(inputs * rows, matmul.output),
    ];
    device.run(&matmul.launch(), &mut buffers);
    let added = matmul.added.then_some(&added[..]);
    let expected: Vec<f64> = input
        .chunks_exact(cols)
        .flat_map(|input| linear_reference(input, &weight.values, added))
        .collect();
    assert_close(
        &from_bytes(&buffers[4], matmul.output),
        &expected,
        matmul.output,
        &matmul,
    );
}

fn check_all(watch: Watch, problems: &[Problem]) {
    let launches = launches_of(problems);
    let device = Device::new(&launches, watch);
    let mut random = Random(10);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn tensor_matmul_equals_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn tensor_matmul_has_no_races() {
    check_all(Watch::Races, &problems()[6..9]);
}
