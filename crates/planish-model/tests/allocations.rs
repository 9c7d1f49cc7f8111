//! A token takes no memory: what a step works with is there after the first ones. Counted in all threads, on the CPU, and on the host
//! of a GPU that computes nothing.

mod common;
mod silent;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{exact, folder, load};
use planish_checkpoint::Checkpoint;
use planish_model::{Cache, Choice, Chunk, Draw, Input, LoadOptions, Model, Want};
use silent::SilentQueue;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: passed on to the system's allocator; what is not defined here comes back to these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Dense, with routed experts, with latent attention, with windows, with states.
const CASES: [&str; 8] = [
    "llama_tied/metal",
    "llama_tied/plain",
    "gemma3_text/metal",
    "mixtral/metal",
    "gpt_oss/metal",
    "deepseek_v2/metal",
    "qwen3_next/metal",
    "falcon_h1/plain",
];
/// Steps of a window. All positions are in the first block of the cache.
const STEPS: usize = 8;
/// Windows after the first. What is taken once may be taken late: by a thread that had no work before, or by the test's own.
const WINDOWS: usize = 5;

/// Steps, and how much memory was taken in them.
fn allocations(model: &mut Model, cache: &mut Cache) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for token in 0..STEPS as u32 {
        assert!(!model.forward(&[token], cache).unwrap().is_empty());
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Sequences of a batch.
const SEQUENCES: usize = 16;

/// Steps of all chunks, the tokens chosen and taken, and how much memory was taken in them.
fn allocations_of_batch(model: &mut Model, chunks: &mut [Chunk<'_>], tokens: &mut Vec<Option<u32>>) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..STEPS {
        let ticket = model.run(chunks, &mut |_| {}).unwrap().unwrap();
        model.take(ticket, tokens).unwrap();
        assert!(tokens.len() == SEQUENCES && tokens.iter().all(Option::is_some));
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

fn a_step_of_a_batch_takes_no_memory(case: &str, name: &str, model: &mut Model) {
    let mut caches: Vec<Cache> = (0..SEQUENCES).map(|_| model.cache(64)).collect();
    let draw = Choice::Drawn(Draw {
        temperature: 1.0,
        top_k: 20,
        top_p: 0.9,
        min_p: 0.01,
        unit: 0.3,
    });
    let choices = [Choice::Likeliest, draw];
    let chunks = caches.iter_mut().zip(choices.iter().cycle());
    let chunks = chunks.map(|(cache, &choice)| Chunk {
        cache,
        input: Input::Tokens(&[3]),
        want: Want::choice(choice),
    });
    let mut chunks: Vec<Chunk<'_>> = chunks.collect();
    let mut tokens = Vec::new();
    let ticket = model.run(&mut chunks, &mut |_| {}).unwrap().unwrap();
    model.take(ticket, &mut tokens).unwrap();
    chunks.iter_mut().for_each(|chunk| chunk.input = Input::Chosen);
    let least = (0..WINDOWS)
        .map(|_| allocations_of_batch(model, &mut chunks, &mut tokens))
        .min();
    assert_eq!(
        least,
        Some(0),
        "{case}, {name}: allocations in {STEPS} steps of a batch"
    );
}

/// Operations become launches without memory of the host: with the kernels of every GPU, and with those of the best.
fn steps_of_a_gpu_take_no_memory() {
    for case in CASES {
        for tensor_cores in [false, true] {
            let name = if tensor_cores { "tensor cores" } else { "any GPU" };
            let checkpoint = Checkpoint::open(&folder(case)).unwrap();
            let mut model = Model::load_on(&checkpoint, &LoadOptions::default(), SilentQueue { tensor_cores }).unwrap();
            let mut cache = model.cache((1 + WINDOWS) * STEPS);
            allocations(&mut model, &mut cache);
            let least = (0..WINDOWS).map(|_| allocations(&mut model, &mut cache)).min();
            assert_eq!(least, Some(0), "{case}, {name}: allocations in {STEPS} steps");
            a_step_of_a_batch_takes_no_memory(case, name, &mut model);
        }
    }
}

/// The only test of this program: others would be counted too.
#[test]
fn a_step_takes_no_memory() {
    for case in CASES {
        for (name, options) in [("exact", exact()), ("rounded", LoadOptions::default())] {
            let mut model = load(case, options);
            let mut cache = model.cache((1 + WINDOWS) * STEPS);
            assert!(
                allocations(&mut model, &mut cache) > 0,
                "{case}, {name}: nothing is counted"
            );
            let least = (0..WINDOWS).map(|_| allocations(&mut model, &mut cache)).min();
            assert_eq!(least, Some(0), "{case}, {name}: allocations in {STEPS} steps");
            a_step_of_a_batch_takes_no_memory(case, name, &mut model);
        }
    }
    steps_of_a_gpu_take_no_memory();
}
