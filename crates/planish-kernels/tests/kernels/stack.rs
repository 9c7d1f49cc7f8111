//! Rows through stacks of matrices: by head and by expert, upright and transposed; copies of parts of heads.

use planish_format::FloatType;
use planish_kernels::launch::{CopyHeads, HeadMatvec, Launch, StackMatmul, StackRouting, TransposeHeads, WeightKind};
use planish_ops::HeadPart;
use planish_ops::linear_reference;

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::{TestWeight, weight_cases};

const COUNT: usize = 3;

/// Parts of heads that begin at odd places, and at whole 16 bytes.
fn parts(width: usize, odd: bool) -> HeadPart {
    match odd {
        true => HeadPart {
            stride: width + 5,
            start: 3,
        },
        false => HeadPart {
            stride: width.next_multiple_of(8) + 16,
            start: 8,
        },
    }
}

/// Stored columns are those of the cases: outputs of transposed matrices, inputs of upright ones.
fn sizes(index: usize, stored_cols: usize, transposed: bool) -> (u32, u32) {
    let other = [33, 7, 40][index % 3];
    match transposed {
        true => (stored_cols as u32, other),
        false => (other, stored_cols as u32),
    }
}

fn matvecs() -> Vec<HeadMatvec> {
    let cases = weight_cases().into_iter().enumerate();
    let problems = cases.map(|(index, (weight, stored_cols))| {
        let transposed = index % 2 == 0;
        let (rows, cols) = sizes(index, stored_cols, transposed);
        HeadMatvec {
            weight,
            value: TYPES[index % 3],
            rows,
            cols,
            heads: COUNT as u32,
            transposed,
            inputs: 2,
            from: parts(cols as usize, index / 3 % 2 == 0),
            to: parts(rows as usize, index / 2 % 2 == 0),
        }
    });
    problems.collect()
}

fn matmuls() -> Vec<StackMatmul> {
    let cases = weight_cases().into_iter().enumerate();
    let problems = cases.map(|(index, (weight, stored_cols))| {
        let transposed = index % 3 == 1;
        let (rows, cols) = sizes(index, stored_cols, transposed);
        let routing = match index % 4 {
            0 => StackRouting::Rows { chosen: 2, tiles: 4 },
            1 => StackRouting::Sorted { tiles: 4 },
            _ => StackRouting::Heads {
                heads: COUNT as u32,
                from: parts(cols as usize, index / 4 % 2 == 0),
                to: parts(rows as usize, index / 8 % 2 == 0),
            },
        };
        StackMatmul {
            weight,
            value: TYPES[index % 3],
            rows,
            cols,
            inputs: [33, 20][index % 2],
            transposed,
            added: matches!(routing, StackRouting::Heads { .. }) == (index % 8 == 7),
            routing,
        }
    });
    problems.collect()
}

fn copies() -> [CopyHeads; 3] {
    TYPES.map(|value| CopyHeads {
        value,
        parts: 5 * COUNT as u32,
        width: 23,
        from: parts(23, true),
        to: parts(23, false),
    })
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let matvecs = matvecs()
        .into_iter()
        .flat_map(|problem| [problem.launch(), TransposeHeads(problem).launch()]);
    let matmuls = matmuls().into_iter().map(|problem| problem.launch());
    let copies = copies().into_iter().map(|problem| problem.launch());
    matvecs.chain(matmuls).chain(copies).collect()
}

/// A stack as it is stored, and its matrices as (rows, cols).
struct TestStack {
    buffers: [Vec<u8>; 3],
    matrices: Vec<Vec<f32>>,
}

impl TestStack {
    fn new(weight: TestWeight, (rows, cols): (usize, usize), transposed: bool) -> TestStack {
        let stored = weight.values.chunks_exact(rows * cols);
        let upright = |matrix: &[f32]| match transposed {
            true => (0..rows * cols)
                .map(|index| matrix[index % cols * rows + index / cols])
                .collect(),
            false => matrix.to_vec(),
        };
        TestStack {
            matrices: stored.map(upright).collect(),
            buffers: weight.buffers,
        }
    }
}

fn stack(random: &mut Random, weight: WeightKind, rows: u32, cols: u32, transposed: bool) -> TestStack {
    let (rows, cols) = (rows as usize, cols as usize);
    let (stored_rows, stored_cols) = if transposed { (cols, rows) } else { (rows, cols) };
    let weight = TestWeight::new(random, weight, COUNT * stored_rows, stored_cols);
    TestStack::new(weight, (rows, cols), transposed)
}

/// Heads of some inputs.
struct Heads {
    inputs: usize,
    from: HeadPart,
    to: HeadPart,
}

fn check_matvec(device: &Device, random: &mut Random, problem: &HeadMatvec) {
    let value = problem.value;
    let stack = stack(random, problem.weight, problem.rows, problem.cols, problem.transposed);
    let inputs = problem.inputs as usize;
    let input = random.values(inputs * COUNT * problem.from.stride, value);
    let before = random.values(inputs * COUNT * problem.to.stride, value);
    let [codes, scales, biases] = stack.buffers.clone();
    let mut buffers = [codes, scales, biases, to_bytes(&input, value), to_bytes(&before, value)];
    device.run(&problem.launch(), &mut buffers);
    let heads = Heads {
        inputs,
        from: problem.from,
        to: problem.to,
    };
    let expected = expected_heads(&heads, &stack, problem.cols, None, (&input, &before));
    assert_close(&from_bytes(&buffers[4], value), &expected, value, problem);
}

/// What must come out of heads; `before` where nothing is written.
fn expected_heads(
    heads: &Heads,
    stack: &TestStack,
    cols: u32,
    added: Option<&[f32]>,
    (input, before): (&[f32], &[f32]),
) -> Vec<f64> {
    let mut expected: Vec<f64> = before.iter().map(|&value| f64::from(value)).collect();
    for part in 0..heads.inputs * COUNT {
        let matrix = &stack.matrices[part % COUNT];
        let rows = matrix.len() / cols as usize;
        let x = &input[part * heads.from.stride + heads.from.start..][..cols as usize];
        let added = added.map(|added| &added[part % COUNT * rows..][..rows]);
        let products = linear_reference(x, matrix, added);
        expected[part * heads.to.stride + heads.to.start..][..rows].copy_from_slice(&products);
    }
    expected
}

fn to_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn check_matmul(device: &Device, random: &mut Random, problem: &StackMatmul) {
    let (value, rows, cols) = (problem.value, problem.rows as usize, problem.cols as usize);
    let stack = stack(random, problem.weight, problem.rows, problem.cols, problem.transposed);
    let added = random.values(COUNT * rows, FloatType::F32);
    let [codes, scales, biases] = stack.buffers.clone();
    // Entries backwards, in tiles of matrices 2, none, 0 and 1.
    let chosen = match problem.routing {
        StackRouting::Rows { chosen, .. } => chosen,
        _ => 1,
    };
    let entries = problem.inputs * chosen;
    let order: Vec<u32> = (0..entries).rev().collect();
    let last = entries - 8;
    let tiles = [[2, 0, 3], [1, 3, 0], [0, 3, (last - 3).min(32)], [1, last, 8]];
    let (input_len, before_len) = match problem.routing {
        StackRouting::Heads { from, to, .. } => (
            problem.inputs as usize * COUNT * from.stride,
            problem.inputs as usize * COUNT * to.stride,
        ),
        StackRouting::Rows { .. } => (problem.inputs as usize * cols, entries as usize * rows),
        StackRouting::Sorted { .. } => (entries as usize * cols, entries as usize * rows),
    };
    let input = random.values(input_len, value);
    let before = random.values(before_len, value);
    let mut buffers = [
        codes,
        scales,
        biases,
        to_bytes(&input, value),
        to_bytes(&added, FloatType::F32),
        to_words(&order),
        to_words(tiles.as_flattened()),
        to_bytes(&before, value),
    ];
    device.run(&problem.launch(), &mut buffers);
    let added = problem.added.then_some(&added[..]);
    let expected = match problem.routing {
        StackRouting::Heads { from, to, .. } => {
            let inputs = problem.inputs as usize;
            expected_heads(
                &Heads { inputs, from, to },
                &stack,
                problem.cols,
                added,
                (&input, &before),
            )
        }
        routing => {
            let mut expected: Vec<f64> = before.iter().map(|&value| f64::from(value)).collect();
            for [matrix, first, count] in tiles {
                for place in first..first + count {
                    let entry = order[place as usize];
                    let (from, to) = match routing {
                        StackRouting::Rows { chosen, .. } => (entry / chosen, place),
                        _ => (place, entry),
                    };
                    let added = added.map(|added| &added[matrix as usize * rows..][..rows]);
                    let x = &input[from as usize * cols..][..cols];
                    let products = linear_reference(x, &stack.matrices[matrix as usize], added);
                    expected[to as usize * rows..][..rows].copy_from_slice(&products);
                }
            }
            expected
        }
    };
    assert_close(&from_bytes(&buffers[7], value), &expected, value, problem);
}

fn check_all(watch: Watch, every: usize) {
    let matvecs: Vec<HeadMatvec> = matvecs().into_iter().step_by(every).collect();
    let matmuls: Vec<StackMatmul> = matmuls().into_iter().step_by(every).collect();
    let launches = matvecs.iter().map(HeadMatvec::launch);
    let launches: Vec<Launch> = launches.chain(matmuls.iter().map(StackMatmul::launch)).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(41);
    matvecs
        .iter()
        .for_each(|problem| check_matvec(&device, &mut random, problem));
    matmuls
        .iter()
        .for_each(|problem| check_matmul(&device, &mut random, problem));
}

#[test]
fn stacks_equal_the_reference() {
    check_all(Watch::Memory, 1);
}

#[test]
fn stacks_have_no_races() {
    check_all(Watch::Races, 19);
}

#[test]
fn parts_of_heads_are_copied() {
    let problems = copies();
    let launches: Vec<Launch> = problems.iter().map(CopyHeads::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(42);
    for problem in problems {
        let (parts, width) = (problem.parts as usize, problem.width as usize);
        let input = random.values(parts * problem.from.stride, problem.value);
        let before = random.values(parts * problem.to.stride, problem.value);
        let mut buffers = [to_bytes(&input, problem.value), to_bytes(&before, problem.value)];
        device.run(&problem.launch(), &mut buffers);
        let mut expected = before;
        for part in 0..parts {
            expected[part * problem.to.stride + problem.to.start..][..width]
                .copy_from_slice(&input[part * problem.from.stride + problem.from.start..][..width]);
        }
        assert_eq!(from_bytes(&buffers[1], problem.value), expected, "{problem:?}");
    }
}

#[test]
fn transposed_matrices_are_unpacked() {
    let problems: Vec<HeadMatvec> = matvecs().into_iter().filter(|problem| problem.transposed).collect();
    let launches: Vec<Launch> = problems
        .iter()
        .map(|problem| TransposeHeads(*problem).launch())
        .collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(43);
    for problem in problems {
        let stack = stack(&mut random, problem.weight, problem.rows, problem.cols, true);
        let expected: Vec<f64> = stack.matrices.iter().flatten().map(|&value| f64::from(value)).collect();
        let [codes, scales, biases] = stack.buffers;
        let mut buffers = [codes, scales, biases, poison(expected.len(), problem.value)];
        device.run(&TransposeHeads(problem).launch(), &mut buffers);
        let found = from_bytes(&buffers[3], problem.value);
        assert_close(&found, &expected, problem.value, &problem);
    }
}
