//! Keys of generation_config that depend on what was said, against transformers' logits processors
//! (tests/golden/generation_keys.json, see scripts/golden/generation_keys.py).

use planish_generate::{Drawer, Files, GenerationConfig, GenerationDefaults, Sampler};
use planish_model::{Choice, Chooser, adjust};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/generation_keys.json")).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn defaults(options: Value) -> GenerationDefaults {
    let files = Files {
        generation_config: Some(options.to_string().into_bytes()),
        ..Files::default()
    };
    GenerationDefaults::read(&files, None, None).unwrap()
}

#[test]
fn the_same_tokens_remain_with_the_same_probabilities_as_in_transformers() {
    let golden = golden();
    let logits: Vec<f32> = golden["logits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|logit| logit.as_f64().unwrap() as f32)
        .collect();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let mut options = case["options"].clone();
        options["do_sample"] = json!(true);
        if options.get("top_k").is_none() {
            options["top_k"] = json!(0);
        }
        let defaults = defaults(options);
        assert!(defaults.notices().is_empty(), "{case}");
        let prompt = ids(&case["prompt"]);
        let config = GenerationConfig {
            max_new_tokens: defaults.max_new_tokens(prompt.len()).unwrap_or(100),
            ..GenerationConfig::default()
        };
        let plan = config.resolve(&defaults).unwrap();
        let mut sampler = Sampler::of(&plan, &prompt, logits.len());
        let mut tokens = prompt.clone();
        // Token by token, as an answer comes: what one choice changes is not to be there at the next.
        for token in ids(&case["answer"]) {
            sampler.next_choice(&tokens);
            tokens.push(token);
            sampler.observe(&[token]);
        }
        let Choice::Drawn(draw) = sampler.next_choice(&tokens) else {
            panic!("a sampler that draws")
        };
        let mut seen = std::collections::HashSet::new();
        assert!(
            sampler
                .adjustments()
                .iter()
                .all(|adjustment| seen.insert(adjustment.token)),
            "at most once"
        );
        let mut processed = logits.clone();
        sampler.process(&tokens, &mut processed);
        let mut on_device = logits.clone();
        adjust(&mut on_device, sampler.adjustments(), sampler.mask());
        assert!(
            processed == on_device || sampler.reads_logits(&tokens),
            "what changes logits otherwise than a device does is not left to one: {case}"
        );
        let mut drawer = Drawer::default();
        let candidates = drawer.candidates(&mut processed, &draw, &plan.sampling.cutoffs);
        let best = candidates
            .iter()
            .map(|candidate| candidate.score)
            .fold(f32::MIN, f32::max);
        let weight = |score: f32| f64::from(score - best).exp();
        let total: f64 = candidates.iter().map(|candidate| weight(candidate.score)).sum();
        let found: Vec<(u32, f64)> = candidates
            .iter()
            .map(|candidate| (candidate.token, weight(candidate.score) / total))
            .filter(|(_, probability)| *probability > 1e-12)
            .collect();
        let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, ids(&case["tokens"]), "{case}");
        for ((_, probability), expected) in found.iter().zip(case["probabilities"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!(
                (probability - expected).abs() < 1e-6 + 1e-5 * expected,
                "{probability} {expected}: {case}"
            );
        }
    }
}

/// Keys with which generating does the same as without them, on one device and one sequence at a time: how much is computed, kept,
/// returned or guessed ahead.
const NO_EFFECT: [&str; 33] = [
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "renormalize_logits",
    "return_dict_in_generate",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
    // Of beams, which have a notice of their own.
    "early_stopping",
    "length_penalty",
];

/// Whatever a key says is obeyed, or named, or without effect: with a value that would change something, one of the three.
#[test]
fn no_key_is_half_obeyed_in_silence() {
    let obeyed = [
        ("bad_words_ids", json!([[3]])),
        ("begin_suppress_tokens", json!([3])),
        ("do_sample", json!(false)),
        ("encoder_no_repeat_ngram_size", json!(2)),
        ("encoder_repetition_penalty", json!(1.5)),
        ("eos_token_id", json!(3)),
        ("epsilon_cutoff", json!(0.1)),
        ("eta_cutoff", json!(0.1)),
        ("exponential_decay_length_penalty", json!([1, 1.1])),
        ("forced_bos_token_id", json!(3)),
        ("forced_eos_token_id", json!(3)),
        ("max_length", json!(7)),
        ("max_new_tokens", json!(7)),
        ("max_time", json!(1.0)),
        ("min_length", json!(7)),
        ("min_new_tokens", json!(7)),
        ("min_p", json!(0.5)),
        ("no_repeat_ngram_size", json!(2)),
        ("repetition_penalty", json!(1.5)),
        ("sequence_bias", json!([[[3], 1.5]])),
        ("stop_strings", json!("x")),
        ("suppress_tokens", json!([3])),
        ("temperature", json!(0.5)),
        ("top_h", json!(0.4)),
        ("top_k", json!(3)),
        ("top_p", json!(0.5)),
        ("typical_p", json!(0.5)),
    ];
    let plan = |options: Value| {
        let config = GenerationConfig {
            do_sample: Some(true).filter(|_| options.get("do_sample").is_none()),
            seed: Some(1),
            ..GenerationConfig::default()
        };
        let defaults = defaults(options);
        let length = defaults.max_new_tokens(3);
        (config.resolve(&defaults).unwrap(), length)
    };
    let named = [
        ("constraints", json!([1])),
        ("diversity_penalty", json!(0.5)),
        ("dola_layers", json!("high")),
        ("force_words_ids", json!([[1]])),
        ("guidance_scale", json!(2.0)),
        ("num_beam_groups", json!(2)),
        ("num_beams", json!(4)),
        ("num_return_sequences", json!(2)),
        ("penalty_alpha", json!(0.6)),
        ("remove_invalid_values", json!(true)),
        ("token_healing", json!(true)),
        ("watermarking_config", json!({"bias": 2.5})),
    ];
    let golden = golden();
    let keys: Vec<&str> = golden["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    assert!(keys.len() > 60);
    for key in &keys {
        let is = [
            obeyed.iter().any(|(name, _)| name == key),
            named.iter().any(|(name, _)| name == key),
            NO_EFFECT.contains(key),
        ];
        assert_eq!(is.iter().filter(|is| **is).count(), 1, "{key}: {is:?}");
    }
    let silent = plan(json!({}));
    for (key, value) in obeyed {
        assert!(keys.contains(&key), "{key}");
        assert_ne!(plan(json!({ key: value })), silent, "{key}");
        assert_eq!(defaults(json!({ key: value })).notices().len(), 0, "{key}");
    }
    for (key, value) in named {
        assert!(keys.contains(&key), "{key}");
        let defaults = defaults(json!({ key: value }));
        assert!(defaults.notices().iter().any(|notice| notice.contains(key)), "{key}");
    }
}

#[test]
fn values_that_make_no_sense_are_named() {
    for (options, expected) in [
        (json!({"sequence_bias": [[3, 1.5]]}), ""),
        (
            json!({"sequence_bias": [[[], 1.5]]}),
            "generation_config.json: sequence_bias is [[[],1.5]], expected a list of pairs",
        ),
        (
            json!({"sequence_bias": {"3": 1.5}}),
            "generation_config.json: sequence_bias is {\"3\":1.5}, expected a list of pairs",
        ),
        (
            json!({"encoder_repetition_penalty": 0}),
            "encoder_repetition_penalty is 0, expected a number above 0",
        ),
        (
            json!({"top_h": 1.5, "do_sample": true}),
            "top_h is 1.5, expected a number above 0, at most 1",
        ),
        (
            json!({"typical_p": 0, "do_sample": true}),
            "typical_p is 0, expected a number above 0",
        ),
        // Not looked at without sampling.
        (json!({"typical_p": 0, "top_h": "x"}), ""),
        // As in transformers: outside of (0, 1) they cut nothing.
        (json!({"epsilon_cutoff": 1.5, "eta_cutoff": -1, "do_sample": true}), ""),
        (
            json!({"exponential_decay_length_penalty": 1.1}),
            "generation_config.json: exponential_decay_length_penalty is 1.1, expected a list of",
        ),
        (
            json!({"max_time": "1 s"}),
            "generation_config.json: max_time is \"1 s\", expected a number",
        ),
        (
            json!({"forced_bos_token_id": "x"}),
            "generation_config.json: forced_bos_token_id is \"x\", expected a token",
        ),
    ] {
        let found = GenerationConfig::default().resolve(&defaults(options.clone()));
        let found = found.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(
            found.starts_with(expected) && found.is_empty() == expected.is_empty(),
            "{options}: {found}"
        );
    }
}

/// So small a temperature leaves the likeliest token alone, and a division by it nothing.
#[test]
fn a_temperature_near_nothing_takes_the_likeliest() {
    for temperature in [1e-31, 1e-38, 1e-45, 0.0] {
        let config = GenerationConfig {
            temperature: Some(temperature),
            seed: Some(3),
            ..GenerationConfig::default()
        };
        let plan = config.resolve(&GenerationDefaults::default()).unwrap();
        let mut sampler = Sampler::of(&plan, &[1], 40);
        assert_eq!(sampler.next_choice(&[1]), Choice::Likeliest, "{temperature:e}");
    }
    let least = GenerationConfig {
        temperature: Some(1e-30),
        seed: Some(3),
        ..GenerationConfig::default()
    };
    let plan = least.resolve(&GenerationDefaults::default()).unwrap();
    let choice = Sampler::of(&plan, &[1], 40).next_choice(&[1]);
    assert!(matches!(choice, Choice::Drawn(_)));
    assert_eq!(Chooser::default().choose(&[3e4, 2e4, -3e4], &choice), Some(0));
}
