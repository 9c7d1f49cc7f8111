//! Products of packed matrices with one and with several rows of x, beside the machine's own limits in the same run.
//!
//! `cargo bench -p planish-cpu` prints, for every instruction set, width, shape and count of rows of x, the rate at which
//! weights are read (GB/s, of all bytes of the matrix) and their share of the read bandwidth measured beside it, and the
//! arithmetic rate (Gop/s, two operations for each weight and row of x). Weights lie as models keep them: in huge pages, where
//! the instruction set wants it interleaved. They are repeated until they exceed 256 MB so that no cache holds them.
//! `PLANISH_THREADS` sets the threads, arguments filter the lines by substring.

use planish_ops::PlainMatrix;
use std::time::{Duration, Instant};

use bytes::Bytes;
use planish_cpu::{Arena, Cpu, CpuMatrix, Matmul, Precision, instruction_sets, read_rate};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

/// Bytes that a set of weights has at least, so that it comes from memory.
const COLD_BYTES: usize = 256 << 20;
const ROWS_OF_X: [usize; 11] = [1, 2, 3, 4, 8, 12, 16, 24, 32, 64, 512];
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
                for precision in [Precision::Rounded, Precision::Exact] {
                    let cases = ROWS_OF_X.map(|m| (m, format!("{name} {precision:?} m={m}.")));
                    if cases.iter().any(|(_, name)| wanted(name)) {
                        let weights = weights(&cpu, (rows, cols), bits, precision);
                        for (m, name) in cases.iter().filter(|(_, name)| wanted(name)) {
                            measure(&cpu, name, &weights, *m, precision);
                        }
                    }
                }
            }
        }
    }
}

/// Enough copies of a matrix to exceed the caches, one after the other.
fn weights(cpu: &Cpu, (rows, cols): (usize, usize), bits: u32, precision: Precision) -> Vec<CpuMatrix> {
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
            return CpuMatrix::Plain(PlainMatrix {
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
        CpuMatrix::Packed(matrix)
    };
    let mut arena = Arena::default();
    let first = arena.keep(cpu, one(1), precision);
    let copies = COLD_BYTES.div_ceil(first.bytes());
    let others = (2..=copies).map(|seed| arena.keep(cpu, one(seed), precision));
    std::iter::once(first).chain(others).collect()
}

/// Prints the median of several passes over all weights, beside the rate of reading as many bytes.
fn measure(cpu: &Cpu, name: &str, weights: &[CpuMatrix], m: usize, precision: Precision) {
    let (rows, cols) = (weights[0].rows(), weights[0].cols());
    let input: Vec<f32> = (0..m * cols).map(|index| (index % 251) as f32 / 125.0 - 1.0).collect();
    let mut output = vec![0.0; m * rows];
    let weights = &weights[..(weights.len() * 8 / m).clamp(1, weights.len())];
    let bytes: usize = weights.iter().map(CpuMatrix::bytes).sum();
    let operations = 2.0 * (rows * cols * m * weights.len()) as f64;
    let read = read_rate(cpu.pool(), bytes) / 1e9;
    let mut products = Vec::new();
    for _ in 0..7 {
        products.push(timed(|| {
            for weight in weights {
                let outputs = &mut [output.as_mut_slice()];
                cpu.matmul(Matmul {
                    weights: &[weight],
                    input: &input,
                    m,
                    whole: m,
                    outputs,
                    precision,
                });
            }
        }));
    }
    let product = median(products);
    let rate = bytes as f64 / product / 1e9;
    let share = 100.0 * rate / read;
    let arithmetic = operations / product / 1e9;
    println!("{name:48} {rate:7.1} GB/s  {share:4.0} % of read  {arithmetic:8.0} Gop/s");
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
