//! Whole tiny models through the GPU's kernels, emulated on the processor: logits equal those of transformers.

mod calibrated;
#[path = "../common/files.rs"]
mod common;
mod cuda;
mod emulated;
mod faults;
#[path = "../common/golden.rs"]
mod golden;
mod layers;
mod logits;
#[path = "../common/schedule.rs"]
mod schedule;
mod search;

use std::path::Path;

use common::{exact, folder};
use emulated::EmulatedQueue;
use golden::{Golden, error, run};
use logits::{likeliest, logits_at_once, mean_error};
use planish_checkpoint::Checkpoint;
use planish_format::Packing;
use planish_model::{
    Adjustment, Cache, Choice, Chunk, Device, Draw, Error, Input, LateChoice, LoadOptions, Model, Ticket, Want,
};
use planish_ops::choose_reference;
use planish_quantize::{Method, Recipe, Target};
use safetensors::SafeTensors;
use schedule::{Event, schedule};

/// Between them: softmax, sigmoid and SparseMixer routers, weights divided by their sum or not, shared experts with and without a
/// gate, bias vectors and clamped SwiGLU, inputs that are weighed.
const EXPERTS: [&str; 7] = [
    "mixtral/metal",
    "phimoe/metal",
    "qwen2_moe/metal",
    "gpt_oss/metal",
    "ernie4_5_moe/plain",
    "llama4/plain",
    "qwen3_next/metal",
];

/// With and without reduced queries; routers with corrections and groups.
const LATENT: [&str; 3] = ["deepseek_v2/metal", "deepseek_v2_groups/plain", "deepseek_v3/metal"];

/// Experts, latent attention, both dialects' rules.
const PACKED: [(&str, Target, u32, usize); 2] = [
    ("gpt_oss/plain", Target::Metal, 4, 8),
    ("deepseek_v2/plain", Target::Mlx, 6, 32),
];

/// Plain attention, windows and caps, several hidden states, learned positions, latent attention, all kinds of state.
const SEVERAL: [&str; 8] = [
    "llama_tied/metal",
    "gemma2_caps/metal",
    "gemma3n_text/metal",
    "gpt2/plain",
    "deepseek_v2/metal",
    "lfm2/metal",
    "falcon_h1/metal",
    "falcon_mamba/metal",
];

fn load(case: &str, options: &LoadOptions) -> Result<Model, Error> {
    Model::load_on(&Checkpoint::open(&folder(case)).unwrap(), options, EmulatedQueue)
}

fn compare(case: &str, options: &LoadOptions, tolerance: f32) {
    let (prefill, steps) = errors(&mut load(case, options).unwrap(), case);
    println!("{case}: prefill differs by {prefill:.1e}, steps by {steps:.1e}");
    assert!(prefill < tolerance && steps < tolerance, "{case}: {prefill} {steps}");
}

/// Of the logits of the prompt, and of those of single tokens.
fn errors(model: &mut Model, case: &str) -> (f32, f32) {
    let golden = Golden::read(case);
    let (prefill, steps) = run(model, &golden);
    (error(&prefill, &golden.prefill), error(&steps, &golden.steps))
}

#[test]
fn llama_agrees_with_transformers() {
    compare("llama_tied/plain", &exact(), 1e-4);
    compare("llama_tied/metal", &exact(), 1e-4);
    compare("llama_llama3_biases/metal", &exact(), 1e-4);
}

#[test]
fn layers_with_a_state_agree_with_transformers() {
    for case in [
        "lfm2/metal",
        "lfm2_biases/plain",
        "granitemoehybrid/metal",
        "falcon_h1/metal",
        "falcon_h1_biases/plain",
        "qwen3_next_dense/metal",
    ] {
        compare(case, &exact(), 1e-4);
    }
}

/// LoRA and DoRA beside packed weights.
#[test]
fn adapters_agree_with_peft() {
    for case in ["lora", "dora"] {
        let adapter = format!("../golden_adapters/{case}");
        let golden = Golden::read_file(&adapter, "golden_metal");
        let checkpoint = Checkpoint::open(&folder("llama_llama3_biases/metal")).unwrap();
        let checkpoint = checkpoint.adapted(&folder(&adapter)).unwrap();
        let (prefill, steps) = run(
            &mut Model::load_on(&checkpoint, &exact(), EmulatedQueue).unwrap(),
            &golden,
        );
        let (prefill, steps) = (error(&prefill, &golden.prefill), error(&steps, &golden.steps));
        println!("{case}: prefill differs by {prefill:.1e}, steps by {steps:.1e}");
        assert!(prefill < 1e-4 && steps < 1e-4, "{case}: {prefill} {steps}");
    }
}

/// Windows, caps and GELU; layer norms, neighbours and parallel blocks; learned positions; norms of heads.
#[test]
fn other_families_agree_with_transformers() {
    for case in ["gemma2_caps/metal", "cohere/metal", "gpt2/plain", "qwen3/metal"] {
        compare(case, &exact(), 1e-4);
    }
}

/// Every way to route, few rows and many; latent attention.
#[test]
fn experts_agree_with_transformers() {
    for case in EXPERTS {
        compare(case, &exact(), 1e-4);
    }
}

#[test]
fn latent_attention_agrees_with_transformers() {
    for case in LATENT {
        compare(case, &exact(), 1e-4);
    }
}

#[test]
fn narrow_activations_stay_close() {
    compare("llama_tied/metal", &LoadOptions::default(), 2e-2);
}

/// Weights in the order of tensor cores, which the shapes of golden models do not allow: the kernels for one and two inputs, for few and for
/// warpgroups in 16 bits, and those for f32.
#[test]
fn the_story_model_agrees_with_the_processor() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let tokens: Vec<u32> = (0..18).map(|index| 5 + index * 211 % 4000).collect();
    let on_processor = LoadOptions {
        device: Device::Cpu,
        ..exact()
    };
    let expected = logits_at_once(
        &mut Model::load(&checkpoint, &on_processor).unwrap(),
        &tokens,
        tokens.len(),
    );
    let mut narrow = Model::load_on(&checkpoint, &LoadOptions::default(), EmulatedQueue).unwrap();
    for at_once in [1, 2, 5, 9, 18] {
        let error = mean_error(&logits_at_once(&mut narrow, &tokens, at_once), &expected);
        println!("bf16, {at_once} at once: root mean square {error:.1e}");
        assert!(error < 2e-2, "{at_once} at once: {error:.1e}");
    }
    let mut single = Model::load_on(&checkpoint, &exact(), EmulatedQueue).unwrap();
    let error = error(&logits_at_once(&mut single, &tokens, 9), &expected);
    println!("f32: {error:.1e}");
    assert!(error < 1e-4, "{error:.1e}");
}

/// Weights that are packed while loading become the same codes on the device as on the host.
#[test]
fn packing_on_the_device_equals_packing_on_the_host() {
    for (case, target, bits, group) in PACKED {
        compare_packed(case, (target, bits, group), |options| load(case, options).unwrap());
    }
    assert!(emulated::has_compiled("quantize"));
}

/// Loads with these bits on a device and on the processor, and plain.
fn compare_packed(
    case: &str,
    (target, bits, group): (Target, u32, usize),
    load_on_device: impl Fn(&LoadOptions) -> Model,
) {
    let mut recipe = Recipe::new(target, Packing::new(bits, group).unwrap());
    recipe.include_experts = true;
    recipe.method = Method::Peer(target.default_encoder());
    let options = LoadOptions {
        quantize: Some(recipe),
        ..exact()
    };
    let (golden, checkpoint) = (Golden::read(case), Checkpoint::open(&folder(case)).unwrap());
    let on_host = LoadOptions {
        device: Device::Cpu,
        ..options.clone()
    };
    let expected = run(&mut Model::load(&checkpoint, &on_host).unwrap(), &golden);
    let found = run(&mut load_on_device(&options), &golden);
    let (prefill, steps) = (error(&found.0, &expected.0), error(&found.1, &expected.1));
    println!("{case} in {bits} bits: prefill differs by {prefill:.1e}, steps by {steps:.1e}");
    assert!(prefill < 1e-5 && steps < 1e-5, "{case}: {prefill} {steps}");
    assert!(error(&golden.prefill, &expected.0) > 1e-4, "{case}: nothing was packed");
}

#[test]
fn a_weight_that_is_not_finite_is_refused_by_name() {
    const NAME: &str = "model.layers.0.mlp.down_proj.weight";
    let original = folder("llama_tied/plain");
    let mut bytes = std::fs::read(original.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let start = file.tensor(NAME).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let copy = tempfile::tempdir().unwrap();
    std::fs::write(copy.path().join("model.safetensors"), bytes).unwrap();
    std::fs::copy(original.join("config.json"), copy.path().join("config.json")).unwrap();
    let options = LoadOptions {
        quantize: Some(Recipe::for_loading(Packing::new(4, 8).unwrap(), Vec::new(), Vec::new()).unwrap()),
        ..exact()
    };
    let Err(error) = load(copy.path().to_str().unwrap(), &options) else {
        panic!("NaN cannot be packed")
    };
    assert!(error.to_string().contains(NAME), "{error}");
}

/// The folders of all golden checkpoints, in order.
fn golden_folders() -> Vec<String> {
    let entries = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut cases: Vec<String> = folders
        .map(|folder| folder.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    cases
}

/// All golden checkpoints, or those that `PLANISH_CASES` names, which takes minutes: `cargo test -p planish-model --test gpu --
/// --ignored every_family`.
#[test]
#[ignore = "takes minutes"]
fn every_family_agrees_with_transformers() {
    let named = std::env::var("PLANISH_CASES").ok();
    let wanted = |case: &String| {
        named
            .as_ref()
            .is_none_or(|named| named.split(' ').any(|name| name == case))
    };
    for case in golden_folders().into_iter().filter(wanted) {
        compare(&format!("{case}/metal"), &exact(), 1e-4);
        compare(&format!("{case}/plain"), &exact(), 1e-4);
    }
}

/// Every way to share blocks and states: whatever the schedule, a sequence gives what the processor makes of it alone. Pieces that
/// attention takes by tiles, rows of several sequences, latent attention, windows, states, positions.
#[test]
fn sequences_in_one_pass_agree_with_each_alone() {
    for (seed, case) in SEVERAL.into_iter().enumerate() {
        compare_sequences(load(case, &exact()).unwrap(), case, 9, seed as u64);
    }
}

/// A random schedule of so many calls on a device, and each of its sequences alone on the processor.
fn compare_sequences(mut model: Model, case: &str, calls: usize, seed: u64) {
    const CAPACITY: usize = 100;
    let architecture = model.architecture();
    let positions = architecture.embedding.positions.as_ref();
    let known = positions.map_or(CAPACITY, |table| table.rows - table.offset);
    let capacity = CAPACITY.min(architecture.context).min(known);
    let histories = schedule(&mut model, capacity, calls, seed);
    let on_processor = LoadOptions {
        device: Device::Cpu,
        ..exact()
    };
    let checkpoint = Checkpoint::open(&folder(case)).unwrap();
    let mut alone = Model::load(&checkpoint, &on_processor).unwrap();
    let (mut worst, mut compared) = (0.0f32, 0);
    for events in &histories {
        let mut cache = alone.cache(capacity);
        for event in events {
            match event {
                Event::Cut(length) => {
                    cache.truncate(*length);
                }
                Event::Ran(tokens, found) => {
                    let expected = alone.forward(tokens, &mut cache).unwrap();
                    if let Some(found) = found {
                        worst = worst.max(error(found, expected));
                        compared += 1;
                    }
                }
            }
        }
    }
    let sequences = histories.len();
    println!("{case}: {compared} logits of {sequences} sequences differ by {worst:.1e}");
    assert!(compared >= calls && worst < 1e-4, "{case}: {worst:.1e} of {compared}");
}

/// How one of several sequences chooses.
struct Chooser {
    prompt: &'static [u32],
    choice: Choice,
    adjustments: Vec<Adjustment>,
    mask: Option<Vec<u32>>,
}

impl Chooser {
    fn plain(prompt: &'static [u32], choice: Choice) -> Chooser {
        Chooser {
            prompt,
            choice,
            adjustments: Vec::new(),
            mask: None,
        }
    }

    fn want(&self) -> Want<'_> {
        Want::Choice {
            choice: self.choice,
            adjustments: &self.adjustments,
            mask: self.mask.as_deref(),
            report: false,
        }
    }

    /// By the formula.
    fn token(&self, logits: &[f32]) -> u32 {
        let mut logits = logits.to_vec();
        for adjustment in &self.adjustments {
            let logit = &mut logits[adjustment.token as usize];
            *logit = adjustment.of(*logit);
        }
        for (token, logit) in logits.iter_mut().enumerate() {
            if self
                .mask
                .as_ref()
                .is_some_and(|mask| mask[token / 32] >> (token % 32) & 1 == 0)
            {
                *logit = f32::NEG_INFINITY;
            }
        }
        match self.choice {
            Choice::Drawn(draw) => choose_reference(&logits, &draw).unwrap() as u32,
            Choice::Likeliest => likeliest(&logits),
        }
    }
}

/// Tokens chosen by the kernels are those of the logits that the same model computes, each row by its own settings, also where a step
/// begins before the tokens before it are known.
#[test]
fn chosen_tokens_are_those_of_the_logits() {
    choose_by_logits(load("llama_tied/metal", &exact()).unwrap(), false);
}

/// The same where it is told how tokens are chosen once the tokens before them are known.
#[test]
fn tokens_chosen_late_are_those_of_the_logits() {
    choose_by_logits(load("llama_tied/metal", &exact()).unwrap(), true);
}

/// A prompt of one token joins an answer whose last token is not known yet, in a slot behind all for which there was ever a choice.
#[test]
fn prompts_join_answers_in_new_slots() {
    const SLOTS: usize = 64;
    let mut model = load("llama_tied/metal", &exact()).unwrap();
    let mut kept: Vec<Cache> = (0..SLOTS).map(|_| model.cache(4)).collect();
    for cache in &mut kept {
        model.forward(&[1], cache).unwrap();
    }
    let mut joining = model.cache(4);
    let mut run = |model: &mut Model, inputs: &[(usize, Input<'_>)]| {
        let caches = kept[..1].iter_mut().chain([&mut joining]);
        let chunks = caches.enumerate().filter_map(|(index, cache)| {
            let (_, input) = inputs.iter().find(|(of, _)| *of == index)?;
            let choice = Choice::Likeliest;
            let (adjustments, mask, report): (&[Adjustment], _, _) = (&[], None, false);
            let want = Want::Choice {
                choice,
                adjustments,
                mask,
                report,
            };
            let input = *input;
            Some(Chunk { cache, input, want })
        });
        let mut chunks: Vec<Chunk<'_>> = chunks.collect();
        model.run(&mut chunks, &mut |_| panic!("no logits")).unwrap().unwrap()
    };
    let first = run(&mut model, &[(0, Input::Tokens(&[5]))]);
    let second = run(&mut model, &[(0, Input::Chosen), (1, Input::Tokens(&[7]))]);
    let (mut answered, mut joined) = (Vec::new(), Vec::new());
    model.take(first, &mut answered).unwrap();
    model.take(second, &mut joined).unwrap();
    let mut likeliest_after = |tokens: &[u32]| Some(likeliest(model.forward(tokens, &mut model.cache(4)).unwrap()));
    let answer = likeliest_after(&[1, 5]);
    assert_eq!(answered, [answer]);
    assert_eq!(
        joined,
        [likeliest_after(&[1, 5, answer.unwrap()]), likeliest_after(&[7])]
    );
}

fn choose_by_logits(mut model: Model, late: bool) {
    const STEPS: usize = 5;
    let draw = Draw {
        temperature: 0.9,
        top_k: 20,
        top_p: 0.95,
        min_p: 0.0,
        unit: 0.4,
    };
    let vocabulary = model.architecture().vocabulary;
    let adjustments = (0..40).map(|token| Adjustment {
        token,
        penalty: 1.3,
        bias: if token % 3 == 0 { -0.5 } else { 0.25 },
    });
    let every_third = (0..vocabulary.div_ceil(32) as u32).map(|word| 0x4924_9249u32.rotate_left(word));
    let choosers = [
        Chooser::plain(&[5, 9, 2, 40], Choice::Likeliest),
        Chooser::plain(&[7], Choice::Drawn(draw)),
        Chooser {
            adjustments: adjustments.collect(),
            ..Chooser::plain(
                &[3, 3, 60, 8, 1, 2, 12, 9, 30, 31],
                Choice::Drawn(Draw { top_k: 0, ..draw }),
            )
        },
        Chooser {
            mask: Some(every_third.collect()),
            ..Chooser::plain(&[11, 12], Choice::Likeliest)
        },
    ];
    let mut caches: Vec<Cache> = choosers.iter().map(|_| model.cache(20)).collect();
    let mut step = |model: &mut Model, before: Option<Ticket>| {
        let input = |chooser: &Chooser| match before {
            None => Input::Tokens(chooser.prompt),
            Some(_) => Input::Chosen,
        };
        let chunks = choosers.iter().zip(&mut caches).map(|(chooser, cache)| Chunk {
            cache,
            input: input(chooser),
            want: if late { Want::Later } else { chooser.want() },
        });
        let mut chunks: Vec<Chunk<'_>> = chunks.collect();
        let ticket = model.run(&mut chunks, &mut |_| panic!("no logits")).unwrap();
        assert_eq!(ticket.is_none(), late);
        let mut tokens = Vec::new();
        if let Some(before) = before {
            model.take(before, &mut tokens).unwrap();
        }
        let next = match ticket {
            Some(ticket) => ticket,
            None => {
                let choices = choosers.iter().zip(&caches).map(|(chooser, cache)| LateChoice {
                    cache,
                    choice: chooser.choice,
                    adjustments: &chooser.adjustments,
                    mask: chooser.mask.as_deref(),
                });
                model.choose(&choices.collect::<Vec<_>>()).unwrap()
            }
        };
        (next, tokens)
    };
    let (mut ticket, _) = step(&mut model, None);
    let mut found = vec![Vec::new(); choosers.len()];
    for _ in 0..STEPS {
        let (next, tokens) = step(&mut model, Some(ticket));
        ticket = next;
        found
            .iter_mut()
            .zip(tokens)
            .for_each(|(found, token)| found.push(token.unwrap()));
    }
    for (index, chooser) in choosers.iter().enumerate() {
        let (mut cache, mut input) = (model.cache(20), chooser.prompt.to_vec());
        for &token in &found[index] {
            let logits = model.forward(&input, &mut cache).unwrap();
            assert_eq!(token, chooser.token(logits), "sequence {index}");
            input = vec![token];
        }
    }
}
