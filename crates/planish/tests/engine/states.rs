//! Models whose layers remember a state that cannot go back.

use std::path::Path;
use std::time::{Duration, Instant};

use planish::{AutoModelForCausalLM, CausalLM, Device, Engine, EngineOptions, GenerationConfig, TextAnswer};

use super::{alone, answer, config, request, wait_until_idle};

/// A golden model with states that cannot go back, for prompts of `context` tokens. What it says means nothing.
fn recurrent(family: &str, context: usize) -> (CausalLM, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = root.join("planish-model/tests/golden").join(family).join("metal");
    let demo = root.join("../models/demo");
    for (from, name) in [
        (&golden, "model.safetensors"),
        (&demo, "tokenizer.json"),
        (&demo, "tokenizer_config.json"),
    ] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(golden.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = context.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let builder = AutoModelForCausalLM::from_pretrained(folder.path().to_str().unwrap()).device(Device::Cpu);
    (builder.load().unwrap(), folder)
}

/// A state remembers one position: the one before an answer's opening, for the next turn, and now and then one on the way.
#[test]
fn turns_of_models_with_states_go_on_where_the_last_prompt_ended() {
    for family in ["lfm2", "granitemoehybrid"] {
        let (model, _folder) = recurrent(family, 2048);
        let tokens = |count: usize, step: usize| -> Vec<u32> {
            (0..count).map(|at| ((at * step + at / 7) % 60) as u32).collect()
        };
        let endless = GenerationConfig {
            eos_token_id: Some(Vec::new()),
            ..config(9, None)
        };
        let (first, other) = (tokens(150, 7), tokens(60, 11));
        // The opening of the answer is not repeated in the next turn, which has an answer of its own.
        let turn = [&first[..146], &other].concat();
        let long = tokens(1100, 13);
        let ask = |engine: &Engine, prompts: &[&Vec<u32>], cached: &[usize]| {
            let (requests, receivers): (Vec<_>, Vec<_>) =
                prompts.iter().map(|prompt| request(prompt, &endless)).unzip();
            engine.submit(requests).unwrap();
            for (index, (receiver, prompt)) in receivers.iter().zip(prompts).enumerate() {
                let (answer, found) = answer(receiver);
                assert_eq!(
                    answer.answer.tokens,
                    alone(&model, prompt, &endless).answer.tokens,
                    "{family}"
                );
                assert!(
                    cached.is_empty() || found == cached[index],
                    "{family}: {found} of {cached:?}, {index}"
                );
            }
            wait_until_idle(engine)
        };
        let engine = Engine::start(&model, EngineOptions::default());
        // All answers to one prompt come from one reading of it, but for its end.
        ask(&engine, &[&first; 3], &[0, 128, 128]);
        ask(&engine, &[&turn], &[128]);
        ask(&engine, &[&turn], &[192]);
        let status = ask(&engine, &[&long, &first], &[0, 128]);
        let whole = [&long[..1060], &other].concat();
        ask(&engine, &[&whole], &[1024]);
        // Bytes are bounded: what was not used for the longest time goes.
        let limit = status.cache_bytes / 2;
        let options = EngineOptions {
            cache_bytes: Some(limit),
            ..EngineOptions::default()
        };
        let small = Engine::start(&model, options);
        for prompt in [&first, &turn, &long, &whole, &first, &turn] {
            ask(&small, &[prompt], &[]);
            // It is forgotten once the answer has ended.
            let start = Instant::now();
            while small.status().cache_bytes > limit {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{family}: {:?}",
                    small.status()
                );
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        ask(&small, &[&turn, &first, &turn, &long], &[]);
    }
}

/// Answers that pause for want of memory lose their states, and go on as they would have.
#[test]
fn answers_of_models_with_states_pause() {
    for family in ["lfm2", "granitemoehybrid"] {
        let (model, _folder) = recurrent(family, 512);
        let endless = GenerationConfig {
            eos_token_id: Some(Vec::new()),
            ..config(150, None)
        };
        let asked: Vec<Vec<u32>> = (0..4)
            .map(|index| (0..40).map(|at| at * (7 + 2 * index) % 60).collect())
            .collect();
        let alone: Vec<TextAnswer> = asked.iter().map(|prompt| alone(&model, prompt, &endless)).collect();
        let answer_all = |cache_bytes: Option<u64>, count: usize| {
            let options = EngineOptions {
                cache_bytes,
                ..EngineOptions::default()
            };
            let engine = Engine::start(&model, options);
            let asked = asked[..count].iter();
            let (requests, receivers): (Vec<_>, Vec<_>) = asked.map(|prompt| request(prompt, &endless)).unzip();
            engine.submit(requests).unwrap();
            for (receiver, alone) in receivers.iter().zip(&alone) {
                assert_eq!(answer(receiver).0.answer.tokens, alone.answer.tokens, "{family}");
            }
            wait_until_idle(&engine)
        };
        let one = answer_all(None, 1).cache_bytes;
        // Room for several beginnings, and not for as many ends.
        let pauses: u64 = (4..16)
            .map(|quarters| answer_all(Some(one * quarters / 4), 4).pauses)
            .sum();
        assert!(pauses > 0, "{family}");
    }
}
