//! Whole models on an NVIDIA GPU, which tests ask for by name:
//! `cargo test -p planish-model --test gpu -- --ignored cuda::golden_models`.

use planish_checkpoint::Checkpoint;
use planish_model::{Device, LoadOptions, Model};

use crate::common::{exact, folder};
use crate::golden::error;
use crate::logits::{likeliest, logits_at_once, mean_error};
use crate::{PACKED, choose_by_logits, compare_packed, compare_sequences, errors, golden_folders};

/// Beside transformers in f32 and in 16 bits, the cases that `PLANISH_CASES` names. In 16 bits a router may choose otherwise in single rows, so that only the f32 ones are judged.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn golden_models_agree_on_cuda() {
    let named = std::env::var("PLANISH_CASES").unwrap_or_else(|_| "llama_tied/metal mixtral/metal".to_owned());
    for case in named.split_whitespace() {
        let on_cuda = |options: LoadOptions| {
            let device = Device::Cuda;
            let options = LoadOptions { device, ..options };
            let checkpoint = Checkpoint::open(&folder(case)).unwrap();
            errors(&mut Model::load(&checkpoint, &options).unwrap(), case)
        };
        let (single, half) = (on_cuda(exact()), on_cuda(LoadOptions::default()));
        println!(
            "{case}: f32 {:.1e} {:.1e}, bf16 {:.1e} {:.1e}",
            single.0, single.1, half.0, half.1
        );
        assert!(single.0 < 1e-4 && single.1 < 1e-4, "{case}: {single:?}");
    }
}

/// Choices that are told before a pass and after it has begun.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn chosen_tokens_are_those_of_the_logits_on_cuda() {
    let checkpoint = Checkpoint::open(&folder("llama_tied/metal")).unwrap();
    let device = Device::Cuda;
    let options = LoadOptions { device, ..exact() };
    for late in [false, true] {
        choose_by_logits(Model::load(&checkpoint, &options).unwrap(), late);
    }
}

/// A real checkpoint beside the processor in f32: 64 tokens by greedy choice, which must be the same, then the logits
/// of all tokens, in f32 at once, in bf16 also one and two at a time. `PLANISH_MODEL` names its folder, `PLANISH_PROMPT` the prompt's tokens.
#[test]
#[ignore = "needs an NVIDIA GPU and a checkpoint"]
fn a_checkpoint_agrees_with_the_processor_on_cuda() {
    const STEPS: usize = 64;
    let named = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let checkpoint = Checkpoint::open(named("PLANISH_MODEL").as_ref()).unwrap();
    let prompt: Vec<u32> = named("PLANISH_PROMPT")
        .split_whitespace()
        .map(|token| token.parse().unwrap())
        .collect();
    let load = |device, options| Model::load(&checkpoint, &LoadOptions { device, ..options }).unwrap();

    let mut expected = load(Device::Cpu, exact());
    let (tokens, steps) = greedy(&mut expected, &prompt, STEPS);
    let all = logits_at_once(&mut expected, &tokens, tokens.len());
    let mut single = load(Device::Cuda, exact());
    let (found, found_steps) = greedy(&mut single, &prompt, STEPS);
    assert_eq!(found, tokens, "f32 chooses other tokens");
    let single = [
        error(&found_steps, &steps),
        error(&logits_at_once(&mut single, &tokens, tokens.len()), &all),
    ];
    println!(
        "f32: {STEPS} tokens alike; largest error of the largest logit {:.1e} in steps, {:.1e} at once",
        single[0], single[1]
    );
    let mut half = load(Device::Cuda, LoadOptions::default());
    let half = [1, 2, tokens.len()].map(|at_once| {
        let found = logits_at_once(&mut half, &tokens, at_once);
        let (largest, mean) = (error(&found, &all), mean_error(&found, &all));
        println!(
            "bf16, {at_once} at once: root mean square {mean:.1e}; largest error of the largest logit {largest:.1e}"
        );
        mean
    });
    assert!(single.iter().all(|&error| error < 1e-4), "{single:?}");
    assert!(half.iter().all(|&error| error < 2e-2), "{half:?}");
}

/// The prompt with the likeliest tokens after it, and the logits by which each was chosen. // (steps, vocabulary)
fn greedy(model: &mut Model, prompt: &[u32], steps: usize) -> (Vec<u32>, Vec<f32>) {
    let mut cache = model.cache(prompt.len() + steps);
    let (mut tokens, mut all, mut done) = (prompt.to_vec(), Vec::new(), 0);
    for _ in 0..steps {
        let logits = model.forward(&tokens[done..], &mut cache).unwrap();
        all.extend_from_slice(logits);
        done = tokens.len();
        tokens.push(likeliest(logits));
    }
    (tokens, all)
}

/// Random schedules of several sequences on every golden family, in f32, each sequence beside itself alone on the processor.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn sequences_in_one_pass_agree_on_cuda() {
    for (seed, name) in golden_folders().into_iter().enumerate() {
        for case in [format!("{name}/plain"), format!("{name}/metal")] {
            if !folder(&case).join("config.json").is_file() {
                continue;
            }
            let device = Device::Cuda;
            let options = LoadOptions { device, ..exact() };
            let model = Model::load(&Checkpoint::open(&folder(&case)).unwrap(), &options).unwrap();
            compare_sequences(model, &case, 24, seed as u64);
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn packing_on_cuda_equals_packing_on_the_host() {
    for (case, target, bits, group) in PACKED {
        compare_packed(case, (target, bits, group), |options| {
            let device = Device::Cuda;
            let options = LoadOptions {
                device,
                ..options.clone()
            };
            Model::load(&Checkpoint::open(&folder(case)).unwrap(), &options).unwrap()
        });
    }
}
