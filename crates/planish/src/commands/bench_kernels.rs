//! `planish bench --kernels`: every GPU kernel for packed products on the shapes of well-known models, in µs, GB/s and TFLOP/s,
//! beside the copy and read speed of the device's memory measured in the same run.
//!
//! Weights take turns so that no cache serves them. A time is the median over passes of many launches, divided by their number.

use std::time::{Duration, Instant};

use anyhow::Context;
use planish_format::{FloatType, Packing};
use planish_gpu::{Argument, Queue, Source};
use planish_ops::kernels::{Launch, Matmul, Matvec, Read, TensorMatmul, TensorWeight, WeightKind};
use serde_json::{Value, json};

use super::run_flags::{DeviceFlag, RunFlags};

/// (rows, cols): attention and feed-forward products of 1B, 8B and 70B models.
const SHAPES: [(u32, u32); 7] = [
    (2048, 2048),
    (8192, 2048),
    (2048, 8192),
    (4096, 4096),
    (14336, 4096),
    (4096, 14336),
    (28672, 8192),
];
/// Rows of activations.
const INPUTS: [u32; 8] = [1, 2, 4, 8, 16, 64, 512, 2048];
/// The second-level cache of the largest GPUs is smaller by far.
const ROTATED_BYTES: usize = 512 << 20;
const STREAM_BYTES: usize = 1 << 30;
const PASSES: usize = 5;
const PASS_TIME: Duration = Duration::from_millis(4);
const MOST_LAUNCHES: usize = 4096;

/// What is measured.
struct Problem {
    rows: u32,
    cols: u32,
    inputs: u32,
    packing: Packing,
    value: FloatType,
}

/// A way to compute it.
struct Variant {
    name: &'static str,
    /// `None` where it cannot compute the problem.
    prepare: fn(&Problem) -> Option<Prepared>,
}

/// Its launch, and what it reads of the weight.
struct Prepared {
    launch: Launch,
    /// Bytes of each buffer of the weight.
    weight: Vec<usize>,
    /// Buffers between input and output.
    others: usize,
}

/// Best first for many rows; which one a model uses is up to its rows.
const VARIANTS: [Variant; 3] = [
    Variant {
        name: "tensor_matmul",
        prepare: prepare_tensor_matmul,
    },
    Variant {
        name: "matmul",
        prepare: prepare_matmul,
    },
    Variant {
        name: "matvec",
        prepare: prepare_matvec,
    },
];

/// Runs the command on the device that the flags name.
pub fn run(flags: &RunFlags, as_json: bool) -> anyhow::Result<()> {
    let (bits, group) = (flags.bits.unwrap_or(4), flags.group_size.unwrap_or(64));
    let packing = Packing::new(bits, group).context("bits are 2, 3, 4, 5, 6 or 8, a group is a multiple of 8")?;
    let value = if flags.exact { FloatType::F32 } else { FloatType::BF16 };
    let result = measure_on(flags.device, packing, value)?;
    match as_json {
        true => println!("{result}"),
        false => print_table(&result),
    }
    Ok(())
}

fn measure_on(device: DeviceFlag, packing: Packing, value: FloatType) -> anyhow::Result<Value> {
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    if matches!(device, DeviceFlag::Auto | DeviceFlag::Cuda) {
        return measure_all(&planish_gpu::CudaQueue::new()?, packing, value);
    }
    #[cfg(target_vendor = "apple")]
    if matches!(device, DeviceFlag::Auto | DeviceFlag::Metal) {
        return measure_all(&planish_gpu::MetalQueue::new()?, packing, value);
    }
    let _ = (packing, value);
    anyhow::bail!("--kernels measures the kernels of GPUs, and {device:?} is none of this system")
}

fn measure_all<Q: Queue>(queue: &Q, packing: Packing, value: FloatType) -> anyhow::Result<Value> {
    let (copy, read) = measure_memory(queue)?;
    let mut rows = Vec::new();
    for (rows_, cols) in SHAPES {
        for inputs in INPUTS {
            let problem = Problem {
                rows: rows_,
                cols,
                inputs,
                packing,
                value,
            };
            for variant in &VARIANTS {
                if let Some(prepared) = (variant.prepare)(&problem) {
                    let time = measure(queue, &problem, &prepared)?;
                    rows.push(describe(variant.name, &problem, &prepared, time, read));
                }
            }
        }
    }
    Ok(json!({
        "device": queue.device(),
        "bits": packing.bits(),
        "group": packing.group(),
        "values": format!("{value:?}"),
        "copy_gb_per_s": copy,
        "read_gb_per_s": read,
        "kernels": rows,
    }))
}

fn weight_kind(problem: &Problem) -> WeightKind {
    WeightKind {
        packing: Some(problem.packing),
        float_type: FloatType::BF16,
    }
}

/// Codes, scales and biases.
fn packed_bytes(problem: &Problem) -> Vec<usize> {
    let weights = problem.rows as usize * problem.cols as usize;
    let scales = weights / problem.packing.group() * FloatType::BF16.size_bytes();
    vec![weights / 8 * problem.packing.bits() as usize, scales, scales]
}

fn prepare_matvec(problem: &Problem) -> Option<Prepared> {
    // It reads the weight again for every few inputs: beyond this it would only take long.
    let launch = || {
        Matvec {
            weight: weight_kind(problem),
            value: problem.value,
            output: problem.value,
            rows: problem.rows,
            cols: problem.cols,
            inputs: problem.inputs,
            added: false,
            experts: None,
        }
        .launch()
    };
    (problem.inputs <= 64).then(|| Prepared {
        launch: launch(),
        weight: packed_bytes(problem),
        others: 2,
    })
}

fn prepare_matmul(problem: &Problem) -> Option<Prepared> {
    let launch = || {
        Matmul {
            weight: weight_kind(problem),
            value: problem.value,
            output: problem.value,
            rows: problem.rows,
            cols: problem.cols,
            inputs: problem.inputs,
            added: false,
        }
        .launch()
    };
    (problem.inputs >= 8).then(|| Prepared {
        launch: launch(),
        weight: packed_bytes(problem),
        others: 1,
    })
}

fn prepare_tensor_matmul(problem: &Problem) -> Option<Prepared> {
    if problem.value == FloatType::F32 {
        return None;
    }
    let weight = TensorWeight::new(problem.packing, FloatType::BF16, problem.rows, problem.cols)?;
    let launch = TensorMatmul {
        weight,
        value: problem.value,
        output: problem.value,
        inputs: problem.inputs,
        added: false,
    }
    .launch();
    Some(Prepared {
        launch,
        weight: vec![weight.tile_bytes(), weight.scale_bytes()],
        others: 1,
    })
}

/// Copy speed, bytes read and written, and read speed, in GB/s.
fn measure_memory<Q: Queue>(queue: &Q) -> anyhow::Result<(f64, f64)> {
    let read = Read {
        threadgroups: 2048,
        turns: (STREAM_BYTES / (2048 * 256 * 4 * 16)) as u32,
    };
    let (from, to) = (queue.allocate(STREAM_BYTES)?, queue.allocate(STREAM_BYTES)?);
    let folded = queue.allocate(read.folded_bytes())?;
    let launch = read.launch();
    let kernel = compile(queue, &launch)?;
    const TURNS: usize = 4;
    let copy = median_time(queue, &mut || {
        (0..TURNS).try_for_each(|_| queue.copy(&from, &to, STREAM_BYTES))
    })?;
    let reading = median_time(queue, &mut || {
        (0..TURNS).try_for_each(|_| {
            let arguments = [
                Argument::Buffer(&from, 0),
                Argument::Buffer(&folded, 0),
                Argument::Value(&launch.constants),
            ];
            queue.launch(&of_launch(&launch, &kernel, &arguments))
        })
    })?;
    let rate = |bytes: f64, time: Duration| TURNS as f64 * bytes / time.as_secs_f64() / 1e9;
    Ok((
        rate(2.0 * STREAM_BYTES as f64, copy),
        rate(read.bytes() as f64, reading),
    ))
}

/// Time of one launch.
fn measure<Q: Queue>(queue: &Q, problem: &Problem, prepared: &Prepared) -> anyhow::Result<Duration> {
    let align = |bytes: usize| bytes.next_multiple_of(256);
    let each: usize = prepared.weight.iter().map(|&bytes| align(bytes)).sum();
    let copies = ROTATED_BYTES.div_ceil(each).max(1);
    let weights = queue.allocate(copies * each)?;
    fill_random(queue, &weights, copies * each)?;
    let bytes = |count: u32| problem.inputs as usize * count as usize * problem.value.size_bytes();
    let input = queue.allocate(bytes(problem.cols))?;
    fill_random(queue, &input, bytes(problem.cols))?;
    let output = queue.allocate(bytes(problem.rows))?;
    let nothing = queue.allocate(256)?;
    let kernel = compile(queue, &prepared.launch)?;
    let mut turn = 0;
    let mut launch = || {
        let mut offset = turn % copies * each;
        turn += 1;
        let mut arguments = Vec::with_capacity(8);
        for &bytes in &prepared.weight {
            arguments.push(Argument::Buffer(&weights, offset));
            offset += align(bytes);
        }
        arguments.push(Argument::Buffer(&input, 0));
        arguments.extend((0..prepared.others).map(|_| Argument::Buffer(&nothing, 0)));
        arguments.push(Argument::Buffer(&output, 0));
        arguments.push(Argument::Value(&prepared.launch.constants));
        queue.launch(&of_launch(&prepared.launch, &kernel, &arguments))
    };
    // How many fill a pass.
    launch()?;
    queue.wait()?;
    let start = Instant::now();
    (0..8).try_for_each(|_| launch())?;
    queue.wait()?;
    let one = start.elapsed() / 8;
    let launches = (PASS_TIME.as_nanos() / one.as_nanos().max(1)).clamp(4, MOST_LAUNCHES as u128) as usize;
    // Whole turns, so that every pass is the same and is recorded once.
    let launches = launches.next_multiple_of(copies);
    let pass = median_time(queue, &mut || (0..launches).try_for_each(|_| launch()))?;
    Ok(pass / launches as u32)
}

/// The median over passes, two unmeasured ones first.
fn median_time<Q: Queue>(
    queue: &Q,
    pass: &mut dyn FnMut() -> Result<(), planish_gpu::Error>,
) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for index in 0..PASSES + 2 {
        let start = Instant::now();
        pass()?;
        queue.wait()?;
        if index >= 2 {
            times.push(start.elapsed());
        }
    }
    times.sort();
    Ok(times[times.len() / 2])
}

fn compile<Q: Queue>(queue: &Q, launch: &Launch) -> anyhow::Result<Q::Kernel> {
    let text = launch.program.text(queue.dialect());
    Ok(queue.compile(&Source {
        name: launch.program.file.name,
        text: &text,
        entry: launch.kernel,
    })?)
}

fn of_launch<'a, Q: Queue>(
    launch: &Launch,
    kernel: &'a Q::Kernel,
    arguments: &'a [Argument<'a, Q>],
) -> planish_gpu::Launch<'a, Q> {
    planish_gpu::Launch {
        kernel,
        grid: launch.threadgroups,
        threads: [launch.threads, 1, 1],
        threadgroup_bytes: launch.shared_bytes,
        arguments,
        beside: false,
    }
}

/// Small floats, whichever 16-bit type reads them; as codes, most of their bits are random.
fn fill_random<Q: Queue>(queue: &Q, buffer: &Q::Buffer, bytes: usize) -> anyhow::Result<()> {
    const PIECE: usize = 16 << 20;
    let mut state = 1u64;
    let words = (0..PIECE.min(bytes).div_ceil(8)).map(|_| {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 0x81ff_81ff_81ff_81ff) | 0x3e00_3e00_3e00_3e00
    });
    let piece: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    for start in (0..bytes).step_by(PIECE) {
        queue.upload(&piece[..PIECE.min(bytes - start)], buffer, start)?;
    }
    Ok(())
}

fn describe(name: &str, problem: &Problem, prepared: &Prepared, time: Duration, read_gb_per_s: f64) -> Value {
    let seconds = time.as_secs_f64();
    let weight_bytes: usize = prepared.weight.iter().sum();
    let activations = problem.inputs as usize * (problem.rows + problem.cols) as usize * problem.value.size_bytes();
    let gb_per_s = (weight_bytes + activations) as f64 / seconds / 1e9;
    let operations = 2.0 * f64::from(problem.rows) * f64::from(problem.cols) * f64::from(problem.inputs);
    json!({
        "kernel": name,
        "rows": problem.rows,
        "cols": problem.cols,
        "inputs": problem.inputs,
        "us": seconds * 1e6,
        "gb_per_s": gb_per_s,
        "of_read_speed": gb_per_s / read_gb_per_s,
        "tflop_per_s": operations / seconds / 1e12,
    })
}

fn print_table(result: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    println!(
        "{}: copy {:.0} GB/s, read {:.0} GB/s; {} bits, groups of {}, {}",
        result["device"].as_str().unwrap_or(""),
        number(&result["copy_gb_per_s"]),
        number(&result["read_gb_per_s"]),
        result["bits"],
        result["group"],
        result["values"].as_str().unwrap_or(""),
    );
    println!("     rows x cols  inputs  kernel               us    GB/s  of read  TFLOP/s");
    for row in result["kernels"].as_array().into_iter().flatten() {
        println!(
            "{:>9} x {:<5} {:>6}  {:14} {:8.1} {:7.0} {:6.0} % {:8.1}",
            number(&row["rows"]),
            number(&row["cols"]),
            number(&row["inputs"]),
            row["kernel"].as_str().unwrap_or(""),
            number(&row["us"]),
            number(&row["gb_per_s"]),
            100.0 * number(&row["of_read_speed"]),
            number(&row["tflop_per_s"]),
        );
    }
}
