//! Rows through stacks of matrices on tensor cores: by expert and by head, packed and plain, two stacks at once.

use planish_format::{FloatType, Packing};
use planish_kernels::launch::{Launch, StackMatmul, StackRouting, StackTensor, WeightKind};
use planish_ops::{Activation, HeadPart, gate_reference, linear_reference};

use crate::data::{Random, WIDTHS, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::matvec::TestWeight;

const COUNT: usize = 3;

fn problems() -> Vec<StackTensor> {
    let types = [FloatType::BF16, FloatType::F16];
    let mut problems = Vec::new();
    let mut add = |weight: WeightKind, value: FloatType, cols: u32| {
        let index = problems.len();
        let part = |width: u32, start| HeadPart {
            stride: width as usize + 24,
            start,
        };
        let rows = [136, 70, 33][index % 3];
        let routing = match index % 3 {
            0 => StackRouting::Rows { chosen: 2, tiles: 5 },
            1 => StackRouting::Sorted { tiles: 5 },
            _ => StackRouting::Heads {
                heads: COUNT as u32,
                from: part(cols, 8),
                to: part(rows, 3),
            },
        };
        problems.push(StackTensor {
            product: StackMatmul {
                weight,
                value,
                rows,
                cols,
                inputs: [50, 75, 66][index % 3],
                transposed: false,
                added: index % 4 == 1,
                routing,
            },
            paired: (index % 6 == 0).then_some(Activation::Silu),
        });
    };
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        for (turn, group) in [64, 32, 128].into_iter().enumerate() {
            let weight = WeightKind {
                packing: Packing::new(bits, group),
                float_type: types[(index + turn) % 2],
            };
            add(weight, types[(index + turn / 2) % 2], 128);
        }
    }
    for float_type in types {
        let packing = None;
        add(WeightKind { packing, float_type }, float_type, 192);
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(launch).collect()
}

fn launch(problem: &StackTensor) -> Launch {
    assert!(problem.fits_all(), "{problem:?}");
    problem.launch()
}

fn to_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Where a product reads, which matrix it meets, where it writes.
struct Pair {
    from: usize,
    matrix: usize,
    to: usize,
}

/// The pairs of a problem, its order and its tiles: entries backwards, those of matrices 2, none, 0 and 1.
fn pairs(product: &StackMatmul) -> (Vec<Pair>, Vec<u32>, Vec<u32>) {
    let (rows, cols, inputs) = (product.rows as usize, product.cols as usize, product.inputs as usize);
    let chosen = match product.routing {
        StackRouting::Heads { heads, from, to } => {
            let parts = 0..inputs * heads as usize;
            let pair = |part: usize| Pair {
                from: part * from.stride + from.start,
                matrix: part % heads as usize,
                to: part * to.stride + to.start,
            };
            return (parts.map(pair).collect(), vec![0], vec![0]);
        }
        StackRouting::Rows { chosen, .. } => chosen as usize,
        StackRouting::Sorted { .. } => 1,
    };
    let entries = inputs * chosen;
    let order: Vec<usize> = (0..entries).rev().collect();
    let tiles = [[2, 0, 5], [1, 5, 0], [0, 5, 62], [1, 67, entries - 67], [1, entries, 0]];
    let mut pairs = Vec::new();
    for [matrix, first, count] in tiles {
        for (place, &entry) in order.iter().enumerate().skip(first).take(count) {
            let (from, to) = match product.routing {
                StackRouting::Rows { .. } => (entry / chosen, place),
                _ => (place, entry),
            };
            let (from, to) = (from * cols, to * rows);
            pairs.push(Pair { from, matrix, to });
        }
    }
    let words = |values: &[usize]| values.iter().map(|&value| value as u32).collect();
    (pairs, words(&order), words(tiles.as_flattened()))
}

fn check(device: &Device, random: &mut Random, problem: &StackTensor) {
    let product = &problem.product;
    let (value, rows, cols) = (product.value, product.rows as usize, product.cols as usize);
    let stacks = [0, 1].map(|_| TestWeight::new(random, product.weight, COUNT * rows, cols));
    let added = [0, 1].map(|_| random.values(COUNT * rows, FloatType::F32));
    let (pairs, order, tiles) = pairs(product);
    let input_len = pairs
        .iter()
        .map(|pair| pair.from + cols)
        .max()
        .unwrap_or(0)
        .next_multiple_of(64);
    let output_len = pairs.iter().map(|pair| pair.to + rows).max().unwrap_or(0);
    let input = random.values(input_len, value);
    let [gates, ups] = stacks;
    let [gate_codes, gate_scales, gate_biases] = gates.buffers;
    let [up_codes, up_scales, up_biases] = ups.buffers;
    let mut buffers = [
        gate_codes,
        gate_scales,
        gate_biases,
        up_codes,
        up_scales,
        up_biases,
        to_bytes(&input, value),
        to_bytes(&added[0], FloatType::F32),
        to_bytes(&added[1], FloatType::F32),
        to_words(&order),
        to_words(&tiles),
        poison(output_len, value),
    ];
    device.run(&launch(problem), &mut buffers);
    let output = from_bytes(&buffers[11], value);
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for Pair { from, matrix, to } in pairs {
        let multiply = |weight: &[f32], added: &[f32]| {
            let weight = &weight[matrix * rows * cols..][..rows * cols];
            let added = product.added.then(|| &added[matrix * rows..][..rows]);
            linear_reference(&input[from..][..cols], weight, added)
        };
        let products = multiply(&gates.values, &added[0]);
        found.extend_from_slice(&output[to..][..rows]);
        expected.extend(match problem.paired {
            Some(activation) => {
                let ups = multiply(&ups.values, &added[1]);
                let pairs = products.iter().zip(ups);
                pairs
                    .map(|(&gate, up)| gate_reference(activation, gate as f32, up as f32))
                    .collect()
            }
            None => products,
        });
    }
    assert_close(&found, &expected, value, problem);
}

fn check_all(watch: Watch, problems: &[StackTensor]) {
    let launches: Vec<Launch> = problems.iter().map(launch).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(51);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn stacks_on_tensor_cores_equal_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn stacks_on_tensor_cores_have_no_races() {
    let problems: Vec<StackTensor> = problems().into_iter().step_by(13).collect();
    check_all(Watch::Races, &problems);
}
