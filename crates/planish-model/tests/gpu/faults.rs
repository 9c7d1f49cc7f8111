//! A device that runs out of memory in the middle of a call: nothing of the call stays, and the next one gives the values that it
//! would have given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use planish_checkpoint::Checkpoint;
use planish_gpu::{Argument, Error, Features, KernelLanguage, Launch, Memory, Queue, Source};
use planish_model::{Cache, Choice, Chunk, Input, Model, Want};

use crate::common::{exact, folder};
use crate::emulated::{EmulatedQueue, HostBuffer, HostKernel};

/// Allocations that still succeed before one fails; those after it succeed again.
type Left = Arc<AtomicUsize>;

/// The emulation, with memory that is short once.
struct FaultyQueue(Left);

impl Queue for FaultyQueue {
    type Buffer = HostBuffer;
    type Kernel = Arc<HostKernel>;
    type Ticket = Vec<u8>;

    fn language(&self) -> KernelLanguage {
        EmulatedQueue.language()
    }

    fn device(&self) -> &str {
        "faulty"
    }

    fn features(&self) -> Features {
        EmulatedQueue.features()
    }

    fn memory(&self) -> Result<Memory, Error> {
        EmulatedQueue.memory()
    }

    fn allocate(&self, bytes: usize) -> Result<HostBuffer, Error> {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(Error::OutOfMemory {
                device: "faulty".to_owned(),
                needed_bytes: bytes as u64,
                free_bytes: 0,
                total_bytes: 0,
            });
        }
        EmulatedQueue.allocate(bytes)
    }

    fn place(&self, bytes: &Bytes) -> Result<(HostBuffer, usize), Error> {
        EmulatedQueue.place(bytes)
    }

    fn upload(&self, bytes: &[u8], buffer: &HostBuffer, offset: usize) -> Result<(), Error> {
        EmulatedQueue.upload(bytes, buffer, offset)
    }

    fn copy(&self, from: &HostBuffer, to: &HostBuffer, bytes: usize) -> Result<(), Error> {
        EmulatedQueue.copy(from, to, bytes)
    }

    fn download(&self, buffer: &HostBuffer, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        EmulatedQueue.download(buffer, offset, bytes)
    }

    fn begin_download(&self, buffer: &HostBuffer, offset: usize, bytes: usize) -> Result<Vec<u8>, Error> {
        EmulatedQueue.begin_download(buffer, offset, bytes)
    }

    fn finish_download(&self, ticket: Vec<u8>, bytes: &mut [u8]) -> Result<(), Error> {
        EmulatedQueue.finish_download(ticket, bytes)
    }

    fn compile(&self, source: &Source<'_>) -> Result<Arc<HostKernel>, Error> {
        EmulatedQueue.compile(source)
    }

    fn launch(&self, launch: &Launch<'_, FaultyQueue>) -> Result<(), Error> {
        let arguments = launch.arguments.iter().map(|argument| match *argument {
            Argument::Buffer(buffer, offset) => Argument::Buffer(buffer, offset),
            Argument::Value(bytes) => Argument::Value(bytes),
        });
        let arguments: Vec<Argument<'_, EmulatedQueue>> = arguments.collect();
        EmulatedQueue.launch(&Launch {
            kernel: launch.kernel,
            grid: launch.grid,
            threads: launch.threads,
            threadgroup_bytes: launch.threadgroup_bytes,
            arguments: &arguments,
            overlaps: launch.overlaps,
        })
    }

    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// What three forks of one sequence share.
const PROMPT: [u32; 20] = [5; 20];
/// More than a block of 64 positions.
const LONG: [u32; 66] = [7; 66];

/// Three forks, which share a block that is partly full, and a sequence that is empty.
fn sequences(model: &mut Model) -> [Cache; 4] {
    let mut first = model.cache(128);
    model.forward(&PROMPT, &mut first).unwrap();
    let [second, third] = [0, 1].map(|_| model.fork(&first).unwrap());
    [first, second, third, model.cache(128)]
}

/// What a call found: the tokens of the long chunk and of the first fork, the logits of the others.
#[derive(Debug, PartialEq)]
struct Found {
    tokens: Vec<Option<u32>>,
    logits: Vec<Vec<f32>>,
}

/// One call of two groups: the long sequence, then a token of every fork.
fn step(model: &mut Model, caches: &mut [Cache; 4]) -> Result<Found, planish_model::Error> {
    let [first, second, third, long] = caches;
    let wants = [Want::choice(Choice::Likeliest), Want::Logits, Want::Logits];
    let forks = [first, second, third].into_iter().zip([&[1u32], &[2], &[3]]);
    let forks = forks.zip(wants).map(|((cache, tokens), want)| Chunk {
        cache,
        input: Input::Tokens(tokens),
        want,
    });
    let mut chunks: Vec<Chunk<'_>> = forks.collect();
    chunks.push(Chunk {
        cache: long,
        input: Input::Tokens(&LONG),
        want: Want::choice(Choice::Likeliest),
    });
    let mut logits = Vec::new();
    let ticket = model.run(&mut chunks, &mut |row| logits.push(row.logits.to_vec()))?;
    let mut tokens = Vec::new();
    model.take(ticket.expect("two choices"), &mut tokens)?;
    Ok(Found { tokens, logits })
}

/// Lets every allocation of the call fail in its turn. Some failures the device keeps, as it does what goes wrong in a launch; after
/// the others the same call must succeed.
#[test]
fn a_call_that_failed_leaves_nothing_behind() {
    for case in ["llama_tied/metal", "lfm2/metal"] {
        let checkpoint = Checkpoint::open(&folder(case)).unwrap();
        let left = Left::new(AtomicUsize::new(usize::MAX));
        let load = || {
            left.store(usize::MAX, Ordering::Relaxed);
            Model::load_on(&checkpoint, &exact(), FaultyQueue(Arc::clone(&left))).unwrap()
        };
        let mut model = load();
        let mut caches = sequences(&mut model);
        let expected = step(&mut model, &mut caches).unwrap();
        let (mut recovered, mut kept) = (0, 0);
        for allocation in 0.. {
            let mut model = load();
            let mut caches = sequences(&mut model);
            left.store(allocation, Ordering::Relaxed);
            let first = step(&mut model, &mut caches);
            left.store(usize::MAX, Ordering::Relaxed);
            if let Ok(found) = first {
                assert_eq!(found, expected, "{case}");
                break;
            }
            // As long as before, or empty where states cannot go back.
            for cache in &mut caches[..3] {
                let whole = cache.len() == PROMPT.len();
                assert!(
                    whole || (!cache.can_truncate() && cache.is_empty()),
                    "{case}, {allocation}"
                );
                if !whole && model.forward(&PROMPT, cache).is_err() {
                    break;
                }
            }
            assert!(caches[3].is_empty(), "{case}, {allocation}");
            match step(&mut model, &mut caches) {
                Ok(found) => {
                    assert_eq!(found, expected, "{case}, allocation {allocation}");
                    recovered += 1;
                }
                Err(_) => kept += 1,
            }
        }
        println!("{case}: {recovered} failures left nothing behind, {kept} were kept");
        assert!(recovered > 3, "{case}: {recovered} of {kept}");
    }
}
