//! Products of packed matrices with one and with several rows of x, beside the machine's own limits in the same run.
//!
//! `cargo bench -p planish-cpu` prints, for every instruction set, width, shape and count of rows of x, the rate at which
//! weights are read (GB/s, of all bytes of the matrix) and their share of the read bandwidth measured beside it, and the
//! arithmetic rate (Gop/s, two operations for each weight and row of x). The weights of a shape are repeated until they
//! exceed 256 MB so that no cache holds them. `PLANISH_THREADS` sets the threads, arguments filter the lines by substring.

use std::time::{Duration, Instant};

use bytes::Bytes;
use planish_cpu::{Cpu, Matmul, Matrix, PlainMatrix, Precision, instruction_sets};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

/// Bytes that a set of weights has at least, so that it comes from memory.
const COLD_BYTES: usize = 256 << 20;
const SHAPES: [(usize, usize); 3] = [(2048, 8192), (4096, 14336), (576, 1536)]; // (rows, cols)

fn main() {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str| filters.iter().all(|filter| name.contains(filter.as_str()));
    let threads = std::env::var("PLANISH_THREADS")
        .ok()
        .and_then(|threads| threads.parse().ok())
        .unwrap_or(0);
    for set in instruction_sets().into_iter().filter(|&set| set != "scalar") {
        let cpu = match Cpu::with_instructions(threads, Some(set)) {
            Ok(cpu) => cpu,
            Err(error) => return eprintln!("{error}"),
        };
        for (rows, cols) in SHAPES {
            for bits in [4, 8, 2, 3, 5, 6, 16] {
                let name = format!("{set} {bits}-bit {rows}x{cols}");
                let cases: Vec<(usize, Precision)> = [Precision::Rounded, Precision::Exact]
                    .into_iter()
                    .flat_map(|precision| [1, 2, 4, 8, 16, 24, 32, 64, 512].map(|m| (m, precision)))
                    .filter(|&(m, precision)| wanted(&format!("{name} {precision:?} m={m}.")))
                    .collect();
                if cases.is_empty() {
                    continue;
                }
                let weights = weights(rows, cols, bits);
                for (m, precision) in cases {
                    measure(&cpu, &format!("{name} {precision:?} m={m}."), &weights, m, precision);
                }
            }
        }
    }
}

/// Enough copies of a matrix to exceed the caches, at different addresses.
fn weights(rows: usize, cols: usize, bits: u32) -> Vec<Matrix> {
    let one = |seed: usize| {
        let noise = |count: usize| {
            Bytes::from(
                (0..count)
                    .map(|at| ((at * 31 + seed) ^ (at >> 7)) as u8)
                    .collect::<Vec<_>>(),
            )
        };
        if bits == 16 {
            let data = Bytes::from(vec![0x3c; rows * cols * 2]);
            return Matrix::Plain(PlainMatrix {
                rows,
                cols,
                float_type: FloatType::BF16,
                data,
            });
        }
        let packing = Packing::new(bits, 64).expect("a width of the list");
        let shape = PackedShape::new(rows, cols, packing, FloatType::BF16).expect("a shape of the list");
        let small = Bytes::from(vec![0x3c; shape.scale_bytes()]);
        let matrix =
            PackedMatrix::new(shape, noise(shape.code_bytes()), small.clone(), small).expect("lengths by shape");
        Matrix::Packed(matrix)
    };
    let first = one(1);
    let copies = COLD_BYTES.div_ceil(first.bytes());
    std::iter::once(first).chain((2..=copies).map(one)).collect()
}

/// Prints the medians of several passes over all weights, each beside a pass that only reads them.
fn measure(cpu: &Cpu, name: &str, weights: &[Matrix], m: usize, precision: Precision) {
    let (rows, cols) = (weights[0].rows(), weights[0].cols());
    let input: Vec<f32> = (0..m * cols).map(|index| (index % 251) as f32 / 125.0 - 1.0).collect();
    let mut output = vec![0.0; m * rows];
    let weights = &weights[..(weights.len() * 8 / m).clamp(1, weights.len())];
    let bytes: usize = weights.iter().map(Matrix::bytes).sum();
    let operations = 2.0 * (rows * cols * m * weights.len()) as f64;
    let (mut products, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        reads.push(timed(|| read(cpu, weights)));
        products.push(timed(|| {
            for weight in weights {
                let outputs = &mut [output.as_mut_slice()];
                cpu.matmul(Matmul {
                    weights: &[weight],
                    input: &input,
                    m,
                    outputs,
                    precision,
                });
            }
        }));
    }
    let (product, read) = (median(products), median(reads));
    let rate = bytes as f64 / product / 1e9;
    let share = 100.0 * read / product;
    let arithmetic = operations / product / 1e9;
    println!("{name:48} {rate:7.1} GB/s  {share:4.0} % of read  {arithmetic:8.0} Gop/s");
}

/// Reads all codes and nothing else, a sum for each 64 bytes.
fn read(cpu: &Cpu, weights: &[Matrix]) {
    for weight in weights {
        let data = match weight {
            Matrix::Packed(matrix) => &matrix.codes,
            Matrix::Interleaved(_) => unreachable!("none is made here"),
            Matrix::Plain(matrix) => &matrix.data,
        };
        cpu.pool().run(|slot, slots| {
            let part = data.len() / slots;
            let mut sums = [0u64; 64];
            for words in data[slot * part..][..part].chunks_exact(512) {
                for (sum, word) in sums.iter_mut().zip(words.as_chunks::<8>().0) {
                    *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
                }
            }
            std::hint::black_box(sums);
        });
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
