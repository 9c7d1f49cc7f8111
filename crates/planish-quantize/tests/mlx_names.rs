//! Checkpoints of every family packed for MLX, where mlx-lm's names and stacks differ from Hugging Face's, and unpacked again:
//! each tensor must be back under its name, in its shape and, but for 8-bit rounding, with its values.

use std::path::{Path, PathBuf};

use planish_checkpoint::{Checkpoint, Layout, Weight};
use planish_format::{FloatType, Packing, dequantize as unpack};
use planish_quantize::{Output, Recipe, Target, convert, dequantize, quantize};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The plain checkpoints of the families' golden files.
fn sources() -> Vec<(String, PathBuf)> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../planish-model/tests/golden");
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(golden)
        .unwrap()
        .map(|item| item.unwrap())
        .map(|item| (item.file_name().into_string().unwrap(), item.path().join("plain")))
        .filter(|(_, plain)| plain.is_dir())
        .collect();
    found.sort();
    found
}

fn open(scratch: &TempDir, name: &str) -> Checkpoint {
    Checkpoint::open(&scratch.path().join(name)).unwrap()
}

fn output(scratch: &TempDir, name: &str) -> Output {
    Output {
        force: true,
        ..Output::new(scratch.path().join(name))
    }
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let entry = checkpoint.entry(name).unwrap();
    let (bytes, float_type) = match checkpoint.read(entry).unwrap() {
        Weight::Plain(tensor) => (tensor.data, tensor.dtype.float_type().unwrap()),
        Weight::Packed(matrix) => (unpack(&matrix, FloatType::F32).into(), FloatType::F32),
    };
    let mut values = vec![0.0; bytes.len() / float_type.size_bytes()];
    float_type.decode(&bytes, &mut values);
    values
}

fn assert_same(case: &str, source: &Checkpoint, back: &Checkpoint) {
    let names = |checkpoint: &Checkpoint| -> Vec<(String, Vec<usize>)> {
        let entries = checkpoint.entries().iter();
        // mlx-lm's MiniCPM has a head of its own always.
        let entries = entries.filter(|entry| entry.name != "lm_head.weight" || source.entry(&entry.name).is_some());
        let mut names: Vec<_> = entries.map(|entry| (entry.name.clone(), entry.shape.clone())).collect();
        names.sort();
        names
    };
    assert_eq!(names(source), names(back), "{case}");
    for entry in source.entries() {
        let (before, after) = (values(source, &entry.name), values(back, &entry.name));
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
        let error = square(&mut before.iter().zip(&after).map(|(before, after)| before - after));
        let size = square(&mut before.iter().copied());
        assert!(error <= 1e-4 * size, "{case}: {}: {error} of {size}", entry.name);
    }
}

#[test]
fn every_tensor_comes_back() {
    let scratch = TempDir::new().unwrap();
    let recipe = Recipe {
        dtype: Some(FloatType::F32),
        ..Recipe::new(Target::Mlx, Packing::new(8, 32).unwrap())
    };
    let mut compared = 0;
    for (case, folder) in sources() {
        let source = Checkpoint::open(&folder).unwrap();
        let model_type = source.config()["model_type"].as_str().unwrap();
        let made = quantize(&source, &recipe, &output(&scratch, "mlx"), &mut |_| {});
        if let Err(error) = made {
            let message = error.to_string();
            let too_small = message.starts_with("none of the");
            let folded = model_type == "falcon_h1" && message.contains("mlx-lm multiplies");
            assert!(too_small || folded, "{case}: {message}");
            continue;
        }
        let packed = open(&scratch, "mlx");
        if model_type == "gpt_oss" {
            continue; // its stacks keep the names of MLX
        }
        dequantize(&packed, None, &output(&scratch, "back"), &mut |_| {}).unwrap();
        assert_same(&case, &source, &open(&scratch, "back"));
        compared += 1;
    }
    assert!(compared >= 30, "only {compared} checkpoints were compared");
}

/// One expert each is packed for metal; converted, all of them are one stack, word for word, and back.
#[test]
fn packed_experts_move_between_the_dialects() {
    let scratch = TempDir::new().unwrap();
    let (_, folder) = sources().into_iter().find(|(case, _)| case == "mixtral").unwrap();
    let source = Checkpoint::open(&folder).unwrap();
    let recipe = Recipe {
        include_experts: true,
        ..Recipe::new(Target::Metal, Packing::new(4, 32).unwrap())
    };
    let report = quantize(&source, &recipe, &output(&scratch, "metal"), &mut |_| {}).unwrap();
    assert!(
        report.notes.iter().any(|note| note.contains("experts")),
        "{:?}",
        report.notes
    );
    let metal = open(&scratch, "metal");
    convert(&metal, Target::Mlx, &output(&scratch, "mlx"), &mut |_| {}).unwrap();
    let mlx = open(&scratch, "mlx");
    let name = "model.layers.1.block_sparse_moe.experts.3.w1.weight";
    assert!(matches!(metal.entry(name).unwrap().layout, Layout::Packed { .. }));
    let stack = mlx
        .tensor("model.layers.1.block_sparse_moe.switch_mlp.gate_proj.weight")
        .unwrap();
    let experts = source.config()["num_local_experts"].as_u64().unwrap() as usize;
    assert_eq!(stack.shape[0], experts);
    convert(&mlx, Target::Metal, &output(&scratch, "back"), &mut |_| {}).unwrap();
    let back = open(&scratch, "back");
    for entry in metal.entries() {
        let [before, during, after] = [&metal, &mlx, &back].map(|checkpoint| values(checkpoint, &entry.name));
        assert!(before == during && before == after, "{}", entry.name);
    }
}

/// The golden checkpoint of a case with a tensor more, in bf16.
fn with_tensor(case: &str, folder: &Path, name: &str, [rows, cols]: [usize; 2]) -> Checkpoint {
    let (_, source) = sources().into_iter().find(|(found, _)| found == case).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(source.join("config.json"), folder.join("config.json")).unwrap();
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    let start = data.len();
    let value = |index: usize| (0x3e80 + (index * 37 % 200) as u16).to_le_bytes();
    data.extend((0..rows * cols).flat_map(value));
    let tensor = json!({"dtype": "BF16", "shape": [rows, cols], "data_offsets": [start, data.len()]});
    header.insert(name.to_owned(), tensor);
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    let whole = [&length[..], &header, &data].concat();
    std::fs::write(folder.join("model.safetensors"), whole).unwrap();
    Checkpoint::open(folder).unwrap()
}

/// Heads for tokens after the next stand beside the decoder, or as a layer after its last. mlx-lm stumbles over those of Qwen 3 Next, whose
/// tensors it takes for the layout of Hugging Face.
#[test]
fn heads_for_further_tokens_are_kept() {
    let scratch = TempDir::new().unwrap();
    for (case, name, in_mlx) in [
        ("qwen3_next", "mtp.fc.weight", false),
        ("glm4_moe", "model.layers.9.eh_proj.weight", true),
        ("qwen3_5", "mtp.layers.0.self_attn.q_proj.weight", true),
    ] {
        let source = with_tensor(case, &scratch.path().join(case), name, [32, 64]);
        let before = values(&source, name);
        for (target, kept) in [(Target::Metal, true), (Target::Mlx, in_mlx)] {
            let recipe = Recipe::new(target, Packing::new(8, 32).unwrap());
            let report = quantize(&source, &recipe, &output(&scratch, "packed"), &mut |_| {}).unwrap();
            let packed = open(&scratch, "packed");
            assert_eq!(packed.entry(name).is_some(), kept, "{case}");
            let told = format!("not written, since the target's loader drops it: {name}");
            assert_eq!(report.notes.contains(&told), !kept, "{case}: {:?}", report.notes);
            if !kept {
                continue;
            }
            dequantize(&packed, None, &output(&scratch, "back"), &mut |_| {}).unwrap();
            let other = if target == Target::Metal {
                Target::Mlx
            } else {
                Target::Metal
            };
            convert(&packed, other, &output(&scratch, "other"), &mut |_| {}).unwrap();
            let others: &[&str] = if in_mlx {
                &["packed", "back", "other"]
            } else {
                &["packed", "back"]
            };
            for folder in others {
                let after = values(&open(&scratch, folder), name);
                let near = before
                    .iter()
                    .zip(&after)
                    .all(|(before, after)| (before - after).abs() < 0.02 * before.abs());
                assert!(near, "{case}: {folder}");
            }
        }
    }
}
