//! CUDA: without a GPU the queue says what is missing; with one it computes, repeats itself as graphs, and reports misuse.
#![cfg(any(target_os = "linux", target_os = "windows"))]

use planish_gpu::{Argument, CodeCache, CudaQueue, Error, Launch, Queue, Source};

/// `output[i] = input[i] + added`, as the kernels of a model look: buffers, then one struct by value.
const TEXT: &str = r#"
struct Problem { unsigned count; float added; };
extern "C" __global__ void add(const float* input, float* output, const __grid_constant__ Problem problem) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < problem.count) output[i] = input[i] + problem.added;
}
"#;
const SOURCE: Source<'static> = Source {
    name: "add",
    text: TEXT,
    entry: "add",
};
const COUNT: usize = 3000;

/// `None` where there is no GPU; what the error says is checked then.
fn queue() -> Option<CudaQueue> {
    let folder = tempfile::tempdir().unwrap();
    match CudaQueue::with_cache(CodeCache::at(&folder.keep())) {
        Ok(queue) => Some(queue),
        Err(error) => {
            assert!(matches!(
                error,
                Error::NoDriver { .. } | Error::NoDevice { .. } | Error::OldDriver { .. }
            ));
            let cure = ["install it", "check that one is visible", "update the driver"];
            assert!(cure.iter().any(|cure| error.to_string().contains(cure)), "{error}");
            None
        }
    }
}

fn problem(count: u32, added: f32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&count.to_le_bytes());
    bytes[4..].copy_from_slice(&added.to_le_bytes());
    bytes
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// Passes of two lengths and grids take turns, each with graphs of its own.
#[test]
fn passes_of_several_sizes_take_turns() {
    let Some(queue) = queue() else { return };
    let kernel = queue.compile(&SOURCE).unwrap();
    let (a, b) = (queue.allocate(4 * COUNT).unwrap(), queue.allocate(4 * COUNT).unwrap());
    let mut expected = [0.0; 2]; // of the first half and of the second
    for pass in 0..12 {
        queue.begin_pass().unwrap();
        let (steps, count) = if pass % 3 == 0 { (140, COUNT / 2) } else { (20, COUNT) };
        for step in 0..steps {
            let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let problem = problem(count as u32, pass as f32);
            let launch = Launch {
                kernel: &kernel,
                grid: [count.div_ceil(128) as u32, 1, 1],
                threads: [128, 1, 1],
                threadgroup_bytes: 0,
                arguments: &[
                    Argument::Buffer(from, 0),
                    Argument::Buffer(to, 0),
                    Argument::Value(&problem),
                ],
                overlaps: false,
            };
            queue.launch(&launch).unwrap();
        }
        expected[0] += (steps * pass) as f32;
        expected[1] += if count == COUNT { (steps * pass) as f32 } else { 0.0 };
    }
    let mut bytes = vec![0; 4 * COUNT];
    queue.download(&a, 0, &mut bytes).unwrap();
    let found = floats(&bytes);
    assert!(found[..COUNT / 2].iter().all(|&value| value == expected[0]));
    assert!(found[COUNT / 2..].iter().all(|&value| value == expected[1]));
}

/// Many short passes over the same buffers: the second pass is recorded as a graph, later ones change its arguments.
#[test]
fn repeated_passes_compute_what_single_launches_do() {
    let Some(queue) = queue() else { return };
    let kernel = queue.compile(&SOURCE).unwrap();
    let (a, b) = (queue.allocate(4 * COUNT).unwrap(), queue.allocate(4 * COUNT).unwrap());
    let mut expected = 0.0;
    for pass in 0..5 {
        for step in 0..101 {
            let added = (pass * 7 + step % 5) as f32;
            let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let problem = problem(COUNT as u32, added);
            queue
                .launch(&Launch {
                    kernel: &kernel,
                    grid: [COUNT.div_ceil(128) as u32, 1, 1],
                    threads: [128, 1, 1],
                    threadgroup_bytes: 0,
                    arguments: &[
                        Argument::Buffer(from, 0),
                        Argument::Buffer(to, 0),
                        Argument::Value(&problem),
                    ],
                    overlaps: false,
                })
                .unwrap();
            expected += added;
        }
        let mut bytes = vec![0; 4 * COUNT];
        queue.download(&b, 0, &mut bytes).unwrap();
        assert!(
            floats(&bytes).iter().all(|&value| value == expected),
            "pass {pass}: {:?}, not {expected}",
            &floats(&bytes)[..4]
        );
        queue.copy(&b, &a, 4 * COUNT).unwrap();
    }
}

#[test]
fn bytes_come_back_as_they_went() {
    let Some(queue) = queue() else { return };
    let bytes: Vec<u8> = (0..20_000_003u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let buffer = queue.allocate(bytes.len() + 5).unwrap();
    queue.upload(&bytes, &buffer, 5).unwrap();
    let mut found = vec![0; bytes.len()];
    queue.download(&buffer, 5, &mut found).unwrap();
    assert!(found == bytes);
}

#[test]
fn what_cannot_work_is_said() {
    let Some(queue) = queue() else { return };
    let text = "extern \"C\" __global__ void broken() { this is no code; }";
    let broken = Source {
        name: "broken",
        text,
        entry: "broken",
    };
    let Err(Error::Compile { name, log, .. }) = queue.compile(&broken) else {
        panic!("it compiled")
    };
    assert!(name == "broken" && log.contains("error"), "{log}");
    let Err(error @ Error::OutOfMemory { .. }) = queue.allocate(1 << 50) else {
        panic!("a petabyte")
    };
    assert!(error.to_string().contains("fewer bits"), "{error}");
}
