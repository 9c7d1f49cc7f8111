//! Times launches on a queue: memory for their buffers, turns over it that no cache can hold, medians.

use std::time::{Duration, Instant};

use anyhow::Context;
use planish_gpu::{Argument, Queue, Source};
use planish_kernels::launch::{Launch, Read};

/// All buffers lie in it. The second-level cache of the largest GPUs is smaller by far.
const POOL_BYTES: usize = 1 << 30;
/// Memory that one round of turns passes over, where a set of buffers is smaller.
const ROTATED_BYTES: usize = 512 << 20;
/// What is so small lies in the cache in models too, and more turns than a queue remembers would measure its host.
const MOST_COPIES: usize = 512;
const ALIGNMENT: usize = 256;
const PASSES: usize = 5;
const UNMEASURED: usize = 2;
const PASS_TIME: Duration = Duration::from_millis(4);
const MOST_LAUNCHES: usize = 4096;

/// Launches in order over one set of buffers.
pub struct Work {
    /// Bytes of each buffer of the set.
    pub buffers: Vec<usize>,
    /// What further buffers hold, the same in all sets: numbers that kernels find their way by. Numbered after `buffers`.
    pub fixed: Vec<Vec<u32>>,
    pub steps: Vec<Step>,
}

/// A launch with the numbers of its buffers in the set.
pub struct Step {
    pub launch: Launch,
    pub buffers: Vec<usize>,
}

/// A queue, its memory, and the speed of that memory in GB/s.
pub struct Bench<Q: Queue> {
    pub queue: Q,
    /// Copies count bytes read and written.
    pub copy_gb_per_s: f64,
    pub read_gb_per_s: f64,
    pool: Q::Buffer,
    pool_bytes: usize,
}

impl<Q: Queue> Bench<Q> {
    pub fn new(queue: Q) -> anyhow::Result<Bench<Q>> {
        let free = queue.memory()?.free_bytes;
        // A copy needs it twice.
        let pool_bytes = POOL_BYTES.min((free / 4) as usize / ALIGNMENT * ALIGNMENT);
        let pool = queue.allocate(pool_bytes)?;
        fill_random(&queue, &pool, pool_bytes)?;
        let mut bench = Bench {
            queue,
            copy_gb_per_s: 0.0,
            read_gb_per_s: 0.0,
            pool,
            pool_bytes,
        };
        bench.measure_memory()?;
        Ok(bench)
    }

    fn measure_memory(&mut self) -> anyhow::Result<()> {
        const TURNS: usize = 4;
        let read = Read {
            threadgroups: 2048,
            turns: (self.pool_bytes / (2048 * 256 * 4 * 16)) as u32,
        };
        anyhow::ensure!(read.turns > 0, "too little memory of the device is free to measure it");
        let (to, folded) = (
            self.queue.allocate(self.pool_bytes)?,
            self.queue.allocate(read.folded_bytes())?,
        );
        let launch = read.launch();
        let kernel = self.compile(&launch)?;
        let queue = &self.queue;
        let copy = median_time(queue, &mut || {
            (0..TURNS).try_for_each(|_| queue.copy(&self.pool, &to, self.pool_bytes))
        })?;
        let arguments = [
            Argument::Buffer(&self.pool, 0),
            Argument::Buffer(&folded, 0),
            Argument::Value(&launch.constants),
        ];
        let reading = median_time(queue, &mut || {
            (0..TURNS).try_for_each(|_| queue.launch(&of_launch(&launch, &kernel, &arguments)))
        })?;
        let rate = |bytes: f64, time: Duration| TURNS as f64 * bytes / time.as_secs_f64() / 1e9;
        self.copy_gb_per_s = rate(2.0 * self.pool_bytes as f64, copy);
        self.read_gb_per_s = rate(read.bytes() as f64, reading);
        Ok(())
    }

    /// Time of the launches once; `None` where their buffers are larger than the memory set aside.
    pub fn time(&self, work: &Work) -> anyhow::Result<Option<Duration>> {
        let align = |bytes: usize| bytes.max(1).next_multiple_of(ALIGNMENT);
        let offsets: Vec<usize> = work
            .buffers
            .iter()
            .scan(0, |end, &bytes| {
                let start = *end;
                *end += align(bytes);
                Some(start)
            })
            .collect();
        let each: usize = work.buffers.iter().map(|&bytes| align(bytes)).sum();
        if each > self.pool_bytes {
            return Ok(None);
        }
        let copies = ROTATED_BYTES
            .min(self.pool_bytes)
            .div_ceil(each)
            .min(MOST_COPIES)
            .min(self.pool_bytes / each)
            .max(1);
        let kernels: Vec<Q::Kernel> = work
            .steps
            .iter()
            .map(|step| self.compile(&step.launch))
            .collect::<Result<_, _>>()?;
        let fixed: Vec<Q::Buffer> = work
            .fixed
            .iter()
            .map(|words| {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                let buffer = self.queue.allocate(bytes.len())?;
                self.queue.upload(&bytes, &buffer, 0)?;
                Ok(buffer)
            })
            .collect::<Result<_, planish_gpu::Error>>()?;
        let mut turn = 0;
        let mut once = || {
            let start = turn % copies * each;
            turn += 1;
            work.steps.iter().zip(&kernels).try_for_each(|(step, kernel)| {
                let buffers = step.buffers.iter();
                let arguments = buffers.map(|&index| match offsets.get(index) {
                    Some(offset) => Argument::Buffer(&self.pool, start + offset),
                    None => Argument::Buffer(&fixed[index - offsets.len()], 0),
                });
                let arguments: Vec<Argument<'_, Q>> =
                    arguments.chain([Argument::Value(&step.launch.constants)]).collect();
                self.queue.launch(&of_launch(&step.launch, kernel, &arguments))
            })
        };
        // How many fill a pass.
        once()?;
        self.queue.wait()?;
        let start = Instant::now();
        (0..8).try_for_each(|_| once())?;
        self.queue.wait()?;
        let one = start.elapsed() / 8;
        let turns = (PASS_TIME.as_nanos() / one.as_nanos().max(1)).clamp(4, MOST_LAUNCHES as u128) as usize;
        // Whole rounds, so that every pass is the same and is recorded once.
        let turns = turns.next_multiple_of(copies);
        let pass = median_time(&self.queue, &mut || (0..turns).try_for_each(|_| once()))?;
        Ok(Some(pass / turns as u32))
    }

    fn compile(&self, launch: &Launch) -> anyhow::Result<Q::Kernel> {
        let text = launch.program.text(self.queue.language());
        let source = Source {
            name: launch.program.file.name(),
            text: &text,
            entry: launch.kernel,
        };
        self.queue
            .compile(&source)
            .with_context(|| format!("compiling {}", launch.kernel))
    }
}

/// The median over passes, after some unmeasured ones.
fn median_time<Q: Queue>(
    queue: &Q,
    pass: &mut dyn FnMut() -> Result<(), planish_gpu::Error>,
) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for index in 0..UNMEASURED + PASSES {
        let start = Instant::now();
        pass()?;
        queue.wait()?;
        if index >= UNMEASURED {
            times.push(start.elapsed());
        }
    }
    times.sort();
    Ok(times[times.len() / 2])
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
        overlaps: false,
    }
}

/// Small floats, whichever type reads them; as codes, most of their bits are random.
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
