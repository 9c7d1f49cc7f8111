//! Logits equal those of transformers in f32: prefill, step by step, packed and plain.

mod common;
#[path = "common/converted.rs"]
mod converted;
#[path = "common/golden.rs"]
mod golden;

use std::collections::BTreeSet;

use common::{exact, folder, load, try_load};
use golden::{Golden, error, run};
use planish_checkpoint::Checkpoint;
use planish_format::Packing;
use planish_model::{Architecture, BlockSpec, CacheType, Error, LoadOptions, Model};
use planish_quantize::{Method, Output, Recipe, Target, quantize};
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-4;

/// Every case of the script: the folders that it made.
fn cases() -> Vec<String> {
    cases_in("")
}

fn cases_in(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder(path)).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut cases: Vec<String> = folders
        .map(|folder| folder.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// The median over rows of the root mean square difference, relative to the expected values: where values are rounded, a
/// router may choose another expert in single rows.
fn median_error(found: &[f32], expected: &[f32], vocabulary: usize) -> f32 {
    assert!(found.len() == expected.len() && found.iter().all(|value| value.is_finite()));
    let rows = found.chunks_exact(vocabulary).zip(expected.chunks_exact(vocabulary));
    let error = |(found, expected): (&[f32], &[f32])| {
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2));
        let squares = expected.iter().map(|value| value.powi(2));
        (differences.sum::<f32>() / squares.sum::<f32>()).sqrt()
    };
    let mut errors: Vec<f32> = rows.map(error).collect();
    errors.sort_by(f32::total_cmp);
    errors[errors.len() / 2]
}

/// How far results may lie from the golden ones.
#[derive(Clone, Copy)]
struct Tolerance {
    error: fn(&[f32], &[f32], usize) -> f32,
    bound: f32,
}

/// f32 throughout.
const EXACT: Tolerance = Tolerance {
    error: |found, expected, _| error(found, expected),
    bound: TOLERANCE,
};

/// What is wrong with a case, if anything; errors are printed.
fn compare(case: &str, options: LoadOptions, tolerance: Tolerance) -> Option<String> {
    let golden = Golden::read(case);
    let mut model = match try_load(case, options) {
        Ok(model) => model,
        Err(Error::UnknownArchitecture { found, .. }) => return Some(format!("{case}: no family {found}")),
        Err(error) => return Some(format!("{case}: {error}")),
    };
    let (prefill, steps) = run(&mut model, &golden);
    let Tolerance { error, bound } = tolerance;
    let vocabulary = golden.vocabulary;
    let prefill = error(&prefill, &golden.prefill, vocabulary);
    let steps = error(&steps, &golden.steps, vocabulary);
    let line = format!("{case}: prefill differs by {prefill:.1e}, steps by {steps:.1e}");
    println!("{line}");
    (prefill >= bound || steps >= bound).then_some(line)
}

/// Every case in one form, with every way to load it.
fn compare_all(form: &str, ways: &[LoadOptions], tolerance: Tolerance) {
    let mut failures = Vec::new();
    for case in cases() {
        let case = format!("{case}/{form}");
        failures.extend(
            ways.iter()
                .filter_map(|options| compare(&case, options.clone(), tolerance)),
        );
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_architecture_has_a_case() {
    let architectures: BTreeSet<String> = cases()
        .iter()
        .map(|case| {
            let checkpoint = Checkpoint::open(&folder(&format!("{case}/plain"))).unwrap();
            checkpoint.config()["architectures"][0].as_str().unwrap().to_owned()
        })
        .collect();
    let supported = Architecture::supported().into_iter().map(str::to_owned);
    let without: Vec<String> = supported.filter(|name| !architectures.contains(name)).collect();
    assert!(without.is_empty(), "no golden case for {without:?}");
}

#[test]
fn plain_checkpoints_agree_with_transformers() {
    compare_all("plain", &[exact()], EXACT);
}

#[test]
fn metal_checkpoints_agree_with_transformers() {
    let unpacked = LoadOptions {
        dequantize: true,
        ..exact()
    };
    compare_all("metal", &[exact(), unpacked], EXACT);
}

/// Checkpoints that mlx-lm converted: some have names, orders and shapes of its own.
#[test]
fn mlx_checkpoints_agree_with_mlx_lm() {
    let cases = cases_in("../golden_mlx");
    let cases = cases.iter().map(|case| format!("../golden_mlx/{case}"));
    let failures: Vec<String> = cases.filter_map(|case| compare(&case, exact(), EXACT)).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// gpt-oss keeps its experts as 4-bit floats; they are read without loss.
#[test]
fn experts_of_4_bit_floats_agree_with_transformers() {
    let unpacked = LoadOptions {
        dequantize: true,
        ..exact()
    };
    for options in [exact(), unpacked] {
        assert_eq!(compare("../golden_mxfp4/gpt_oss", options, EXACT), None);
    }
}

/// Experts packed while loading compute what the checkpoint does that `planish quantize` writes, in both dialects.
#[test]
fn packing_experts_while_loading_equals_a_packed_checkpoint() {
    for case in ["mixtral", "qwen2_moe", "granitemoe", "gpt_oss", "dots1"] {
        for (target, group) in [(Target::Metal, 8), (Target::Mlx, 32)] {
            let mut recipe = Recipe::new(target, Packing::new(8, group).unwrap());
            recipe.method = Method::Peer(target.default_encoder());
            recipe.include_experts = true;
            let plain = format!("{case}/plain");
            let golden = Golden::read(&plain);
            let written = tempfile::tempdir().unwrap();
            let output = Output::new(written.path().join("packed"));
            quantize(
                &Checkpoint::open(&folder(&plain)).unwrap(),
                &recipe,
                &output,
                &mut |_| (),
            )
            .unwrap();
            let options = LoadOptions {
                quantize: Some(recipe),
                ..exact()
            };
            let loaded = run(&mut load(&plain, options), &golden);
            let stored = run(&mut load(output.folder.to_str().unwrap(), exact()), &golden);
            assert!(error(&loaded.0, &stored.0) < TOLERANCE, "{case}, {target:?}");
            assert!(error(&loaded.1, &stored.1) < TOLERANCE, "{case}, {target:?}");
            let median = median_error(&loaded.0, &golden.prefill, golden.vocabulary);
            // A token whose best experts are nearly as good as the next may get others.
            assert!((1e-6..0.1).contains(&median), "{case}, {target:?}: {median}");
        }
    }
}

/// The same weights in GGUF files, under the names and in the order of llama.cpp.
#[test]
fn gguf_files_agree_with_transformers() {
    let mut failures = Vec::new();
    let items = std::fs::read_dir(folder("../golden_gguf")).unwrap();
    let mut files: Vec<String> = items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    for file in &files {
        let case = file.strip_suffix(".gguf").unwrap();
        let golden = Golden::read(&format!("{case}/plain"));
        let mut model =
            match Checkpoint::open(&folder("../golden_gguf").join(file)).map(|file| Model::load(&file, &exact())) {
                Ok(Ok(model)) => model,
                Ok(Err(error)) => {
                    failures.push(format!("{file}: {error}"));
                    continue;
                }
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
        let (prefill, steps) = run(&mut model, &golden);
        let (prefill, steps) = (error(&prefill, &golden.prefill), error(&steps, &golden.steps));
        if prefill >= TOLERANCE || steps >= TOLERANCE {
            failures.push(format!(
                "{file}: prefill differs by {prefill:.1e}, steps by {steps:.1e}"
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(files.len() >= 25, "only {} files", files.len());
}

/// What llama.cpp's converter makes of checkpoints computes what they do.
#[test]
fn converted_gguf_files_agree_with_transformers() {
    let mut failures = Vec::new();
    let cases = converted::cases();
    for case in &cases {
        let golden = Golden::read(&format!("{}/plain", case.name));
        let (prefill, steps) = match case.changes() {
            // What the file cannot say: the checkpoint itself, with the config that the file stands for.
            Some(checkpoint) => run(&mut Model::load(&checkpoint, &exact()).unwrap(), &golden),
            None => (golden.prefill.clone(), golden.steps.clone()),
        };
        let found = match case.open().map(|file| Model::load(&file, &exact())) {
            Ok(Ok(mut model)) => run(&mut model, &golden),
            Ok(Err(error)) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        let errors = (error(&found.0, &prefill), error(&found.1, &steps));
        println!(
            "{}: prefill differs by {:.1e}, steps by {:.1e}",
            case.name, errors.0, errors.1
        );
        if errors.0 >= TOLERANCE || errors.1 >= TOLERANCE {
            failures.push(format!(
                "{}: prefill differs by {:.1e}, steps by {:.1e}",
                case.name, errors.0, errors.1
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(cases.len() >= 17, "only {} cases", cases.len());
}

/// The first checkpoints of some families hold the decoder without its name.
#[test]
fn names_without_their_beginning_are_found() {
    for (case, beginning, other) in [("gpt2", "transformer.", ""), ("opt", "model.decoder.", "decoder.")] {
        let original = folder(&format!("{case}/plain"));
        let bytes = std::fs::read(original.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let renamed = file.iter().map(|(name, tensor)| {
            let rest = name.strip_prefix(beginning).unwrap();
            (format!("{other}{rest}"), tensor)
        });
        let copy = tempfile::tempdir().unwrap();
        safetensors::serialize_to_file(renamed, None, &copy.path().join("model.safetensors")).unwrap();
        for name in ["config.json", "golden.safetensors"] {
            std::fs::copy(original.join(name), copy.path().join(name)).unwrap();
        }
        assert_eq!(compare(copy.path().to_str().unwrap(), exact(), EXACT), None);
    }
}

/// The worst value counts, but for two kinds: where a router chooses experts, rounding may turn a choice in single rows, and
/// random weights with Gemma's scaled embeddings amplify it in single values. There it is the median row.
#[test]
fn rounded_activations_stay_close() {
    let strict = Tolerance {
        error: |found, expected, _| error(found, expected),
        bound: 0.1,
    };
    let median = Tolerance {
        error: median_error,
        bound: 0.1,
    };
    let mut failures = Vec::new();
    for case in cases() {
        let case = format!("{case}/metal");
        let checkpoint = Checkpoint::open(&folder(&case)).unwrap();
        let architecture = Architecture::from_config(checkpoint.config()).unwrap();
        let blocks = architecture
            .layers
            .iter()
            .flat_map(|layer| &layer.steps)
            .flat_map(|step| &step.branches);
        let has_router = blocks
            .into_iter()
            .any(|branch| matches!(branch.block, BlockSpec::Experts(_)));
        let single_stray = has_router || architecture.name.starts_with("Gemma");
        let tolerance = if single_stray { median } else { strict };
        failures.extend(compare(&case, LoadOptions::default(), tolerance));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn one_prefill_gives_the_last_logits_of_all() {
    for case in cases() {
        let case = format!("{case}/plain");
        let golden = Golden::read(&case);
        let mut model = load(&case, exact());
        let mut cache = model.cache(golden.tokens.len());
        let last = model.forward(golden.prompt(), &mut cache).unwrap();
        let expected = &golden.prefill[golden.prefill.len() - golden.vocabulary..];
        assert!(error(last, expected) < TOLERANCE, "{case}");
    }
}

#[test]
fn a_truncated_cache_is_as_good_as_a_new_one() {
    let case = "llama_tied/plain";
    let golden = Golden::read(case);
    let mut model = load(case, exact());
    let mut cache = model.cache(golden.tokens.len());
    let half = golden.prompt().len() / 2;
    model.forward(golden.prompt(), &mut cache).unwrap();
    cache.truncate(half);
    model.forward(&golden.prompt()[half..], &mut cache).unwrap();
    let step = model.forward(&golden.following()[..1], &mut cache).unwrap();
    assert!(error(step, &golden.steps[..golden.vocabulary]) < TOLERANCE);
}

/// Layers with a window drop what lies outside of it, but for some positions to go back by.
#[test]
fn a_cache_with_windows_goes_back_as_far_as_it_can() {
    let case = "mistral_window/plain";
    let mut model = load(case, exact());
    let tokens: Vec<u32> = (0..2500).map(|index| index * 7 % 96).collect();
    let mut cache = model.cache(tokens.len());
    model.forward(&tokens, &mut cache).unwrap();
    assert_eq!(cache.truncate(1600), 1600);
    let again = model.forward(&tokens[1600..1700], &mut cache).unwrap().to_vec();
    let mut other = model.cache(tokens.len());
    let expected = model.forward(&tokens[..1700], &mut other).unwrap();
    assert!(error(&again, expected) < TOLERANCE);
    assert_eq!(cache.truncate(300), 0);
    let first = model.forward(&tokens[..1700], &mut cache).unwrap();
    assert!(error(first, &again) < TOLERANCE);
}

/// Position encodings that depend on the length must be those of the whole prompt from its first piece on.
#[test]
fn prompts_in_pieces_equal_prompts_at_once() {
    for case in cases() {
        let case = format!("{case}/plain");
        let golden = Golden::read(&case);
        let mut model = load(&case, exact());
        let mut cache = model.cache(golden.tokens.len());
        assert_eq!(model.announce_length(&mut cache, golden.prompt().len()), 0);
        let mut last = Vec::new();
        for piece in golden.prompt().chunks(5) {
            last = model.forward(piece, &mut cache).unwrap().to_vec();
        }
        let expected = &golden.prefill[golden.prefill.len() - golden.vocabulary..];
        assert!(error(&last, expected) < TOLERANCE, "{case}");
    }
}

#[test]
fn keys_placed_for_a_shorter_sequence_are_forgotten() {
    // Its frequencies change from position 16 on.
    let mut model = load("llama_dynamic/plain", exact());
    let mut cache = model.cache(64);
    model.forward(&[1; 10], &mut cache).unwrap();
    assert_eq!(model.announce_length(&mut cache, 16), 10);
    assert_eq!(model.announce_length(&mut cache, 17), 0);
    assert!(cache.is_empty());
}

#[test]
fn packing_while_loading_equals_a_packed_checkpoint() {
    let golden = Golden::read("llama_llama3_biases/metal");
    let recipe = Recipe::for_loading(Packing::new(4, 16).unwrap(), Vec::new(), Vec::new()).unwrap();
    let options = LoadOptions {
        quantize: Some(recipe),
        ..exact()
    };
    let (prefill, steps) = run(&mut load("llama_llama3_biases/plain", options), &golden);
    assert!(error(&prefill, &golden.prefill) < TOLERANCE);
    assert!(error(&steps, &golden.steps) < TOLERANCE);
}

/// f32 throughout but for the keys and values: 16 bits and 8 bits change the logits as little as they must, and do change them.
#[test]
fn smaller_caches_stay_near_transformers() {
    for case in ["llama_tied", "gemma2_caps", "deepseek_v3", "gpt_oss", "qwen3"] {
        for (cache, least, most) in [(CacheType::Float16, 1e-7, 1e-2), (CacheType::Int8, 1e-5, 2e-2)] {
            let options = LoadOptions {
                cache: Some(cache),
                ..exact()
            };
            let golden = Golden::read(&format!("{case}/plain"));
            let (prefill, steps) = run(&mut load(&format!("{case}/plain"), options), &golden);
            for (found, expected) in [(&prefill, &golden.prefill), (&steps, &golden.steps)] {
                let error = median_error(found, expected, golden.vocabulary);
                assert!((least..most).contains(&error), "{case}, {cache:?}: {error}");
            }
        }
    }
}

/// transformers' frequencies for every scaling, at three lengths.
#[test]
fn rope_frequencies_agree_with_transformers() {
    let text = std::fs::read_to_string(folder("rope.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let checkpoint = Checkpoint::open(&folder("llama_tied/plain")).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 30);
    for row in rows {
        let mut config = checkpoint.config().clone();
        config.extend(row["config"].as_object().unwrap().clone());
        let rope = Architecture::from_config(&config).unwrap().ropes[0].clone();
        let found = rope.frequencies(row["length"].as_u64().unwrap() as usize);
        let expected: Vec<f64> = row["frequencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect();
        assert_eq!(found.len(), expected.len(), "{}", row["name"]);
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(
                difference <= 3e-6 * expected,
                "{} at {}: {found} {expected}",
                row["name"],
                row["length"]
            );
        }
        let factor = row["factor"].as_f64().unwrap();
        assert!(
            (f64::from(rope.attention_factor()) - factor).abs() < 1e-6,
            "{}",
            row["name"]
        );
    }
}
