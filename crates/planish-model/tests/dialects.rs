//! Checkpoints of other quantizers, made by scripts/golden/dialects.py: each weight is the number that the quantizer's own code makes
//! of it, logits are transformers' with these, and conversions keep every weight as it is in f32.

#[path = "common/files.rs"]
mod common;
#[path = "common/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::exact;
use golden::{Golden, error, run};
use planish_checkpoint::{Checkpoint, Dialect, Layout, Tensor, Weight};
use planish_format::{FloatType, Packing};
use planish_model::Model;
use planish_quantize::{Output, Recipe, Report, Target, convert, dequantize, inspect, quantize};
use serde_json::Value;
use sha2::{Digest, Sha256};

const TOLERANCE: f32 = 1e-4;

fn folder(case: &str) -> PathBuf {
    common::folder("../golden_dialects").join(case)
}

fn cases() -> Vec<String> {
    let folders = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut cases: Vec<String> = folders.map(|name| name.into_string().unwrap()).collect();
    cases.sort();
    assert!(cases.len() >= 9, "{cases:?}");
    cases
}

fn open(case: &str) -> Checkpoint {
    Checkpoint::open(&folder(case)).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Every weight as f32, zeros without sign.
fn floats(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<f32>> {
    let floats = |weight: Weight| -> Vec<f32> {
        let tensor = match weight {
            Weight::Packed(matrix) => Tensor::unpacked(&matrix, FloatType::F32),
            Weight::Plain(tensor) => tensor,
        };
        let float_type = tensor.dtype.float_type().unwrap();
        let mut values = vec![0.0; tensor.data.len() / float_type.size_bytes()];
        float_type.decode(&tensor.data, &mut values);
        values.into_iter().map(|value| value + 0.0).collect()
    };
    let entries = checkpoint.entries().iter();
    entries
        .map(|entry| (entry.name.clone(), floats(checkpoint.read(entry).unwrap())))
        .collect()
}

#[test]
fn weights_are_those_of_the_quantizers_own_code() {
    for case in cases() {
        let checkpoint = open(&case);
        let expected: Value = serde_json::from_slice(&checkpoint.file("weights.json").unwrap().unwrap()).unwrap();
        let found = floats(&checkpoint);
        let names: Vec<&String> = found.keys().filter(|name| name.ends_with("_proj.weight")).collect();
        let compared = ["sha256", "rows"].map(|key| expected[key].as_object().map_or(0, |weights| weights.len()));
        assert_eq!(names.len(), compared.iter().sum::<usize>(), "{case}");
        for name in names {
            let values = &found[name];
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let hash: String = Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            if let Some(row) = expected["rows"][name].as_array() {
                let row: Vec<f32> = row.iter().map(|value| value.as_f64().unwrap() as f32).collect();
                let error = error(&values[..row.len()], &row);
                assert!(error < 1e-6, "{case}: {name} differs by {error:e}");
            } else {
                assert_eq!(
                    expected["sha256"][name],
                    hash,
                    "{case}: {name} begins with {:?}",
                    &values[..8]
                );
            }
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for case in cases() {
        let golden = Golden::read(&format!("../golden_dialects/{case}"));
        let mut model = Model::load(&open(&case), &exact()).unwrap_or_else(|error| panic!("{case}: {error}"));
        let (prefill, steps) = run(&mut model, &golden);
        let errors = [error(&prefill, &golden.prefill), error(&steps, &golden.steps)];
        println!(
            "{case}: prefill differs by {:.1e}, steps by {:.1e}",
            errors[0], errors[1]
        );
        assert!(errors.iter().all(|error| *error < TOLERANCE), "{case}: {errors:?}");
    }
}

/// What a conversion makes of a case.
fn made(case: &str, how: impl Fn(&Checkpoint, &Output) -> Result<Report, planish_quantize::Error>) -> Checkpoint {
    let parent = tempfile::tempdir().unwrap();
    let output = Output::new(parent.path().join("made"));
    how(&open(case), &output).unwrap_or_else(|error| panic!("{case}: {error}"));
    // What is mapped outlives the folder's name.
    Checkpoint::open(&output.folder).unwrap()
}

#[test]
fn conversions_keep_every_weight() {
    for case in cases() {
        let checkpoint = open(&case);
        let expected = floats(&checkpoint);
        let packings = checkpoint.entries().iter().filter_map(|entry| match entry.layout {
            Layout::Packed { packing, .. } => Some(packing),
            _ => None,
        });
        let packings: Vec<Packing> = packings.collect();
        let dequantized = made(&case, |from, output| {
            dequantize(from, Some(FloatType::F32), output, &mut |_| {})
        });
        assert!(floats(&dequantized) == expected, "{case}: dequantized");
        for target in [Target::Mlx, Target::Metal] {
            // Packed in MLX's own words already.
            let is_there = target == Target::Mlx && matches!(checkpoint.dialect(), Dialect::Mlx { .. });
            let holds = |packing: &Packing| target == Target::Metal || packing.group() >= 32 && !is_there;
            if packings.is_empty() || !packings.iter().all(holds) {
                let parent = tempfile::tempdir().unwrap();
                let refused = convert(
                    &checkpoint,
                    target,
                    &Output::new(parent.path().join("made")),
                    &mut |_| {},
                );
                assert!(refused.is_err(), "{case}: {target:?}");
                continue;
            }
            let converted = made(&case, |from, output| convert(from, target, output, &mut |_| {}));
            assert!(floats(&converted) == expected, "{case}: {target:?}");
        }
        if matches!(checkpoint.dialect(), Dialect::Mlx { .. }) {
            continue;
        }
        let recipe = Recipe::new(Target::Mlx, Packing::new(8, 32).unwrap());
        let quantized = made(&case, |from, output| quantize(from, &recipe, output, &mut |_| {}));
        for (name, values) in floats(&quantized) {
            let error = error(&values, &expected[&name]);
            assert!(error < 0.02, "{case}: {name} quantized differs by {error}");
        }
        let listed = inspect(&checkpoint, 32, &mut |_| {}).unwrap();
        assert_ne!(listed.format, "plain", "{case}");
        assert_eq!(
            listed.tensors.iter().filter(|tensor| tensor.bits.is_some()).count(),
            packings.len()
        );
    }
}

/// gpt-oss's 4-bit floats: unpacked they give the logits of transformers, packed anew nearly.
#[test]
fn gpt_oss_is_converted_like_any_other() {
    let case = "../golden_mxfp4/gpt_oss";
    let golden = Golden::read(case);
    let recipe = |target| Recipe {
        include_experts: true,
        ..Recipe::new(target, Packing::new(8, 32).unwrap())
    };
    let written = |target: Option<Target>| {
        let how = |from: &Checkpoint, output: &Output| match target {
            None => dequantize(from, Some(FloatType::F32), output, &mut |_| {}),
            Some(target) => quantize(from, &recipe(target), output, &mut |_| {}),
        };
        made(case, how)
    };
    for (target, bound) in [(None, TOLERANCE), (Some(Target::Mlx), 0.1), (Some(Target::Metal), 0.1)] {
        let checkpoint = written(target);
        assert_eq!(
            checkpoint
                .packed_part("model.layers.0.mlp.experts.down_proj_blocks")
                .map(|entry| &entry.name),
            None
        );
        let (prefill, steps) = run(&mut Model::load(&checkpoint, &exact()).unwrap(), &golden);
        let errors = [error(&prefill, &golden.prefill), error(&steps, &golden.steps)];
        println!("{target:?}: {errors:?}");
        assert!(errors.iter().all(|error| *error < bound), "{target:?}: {errors:?}");
    }
}
