//! Everything that reads what others wrote, as targets of libFuzzer. README.md says how to run them.

#![no_main]

mod folder;
#[allow(dead_code, reason = "the test that changes whole folders uses the rest")]
mod mutate;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

use mutate::Random;

fuzz_target!(|input: &[u8]| target()(input));

fuzz_mutator!(|input: &mut [u8], size: usize, most: usize, seed: u32| {
    let mut random = Random::new(u64::from(seed));
    if random.below(2) == 0 {
        return fuzzer_mutate(input, size, most);
    }
    let mut data = input[..size].to_vec();
    mutate::change(&mut data, &mut random);
    let size = data.len().min(most);
    input[..size].copy_from_slice(&data[..size]);
    size
});

/// The target that the environment names.
fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("PLANISH_FUZZ").unwrap_or_default();
        let Some((_, target)) = targets::TARGETS.iter().find(|(name, _)| *name == wanted) else {
            let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("PLANISH_FUZZ is {wanted:?}, expected one of {}", names.join(", "));
            std::process::exit(2);
        };
        // Panics in crates of others become errors; libFuzzer's own hook would end the process at them.
        std::panic::set_hook(Box::new(|panic| {
            if !planish_generate::in_foreign_code() {
                eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
                std::process::abort();
            }
        }));
        *target
    })
}
