//! Adapters that PEFT and mlx-lm saved, made by scripts/golden/adapters.py: logits with them are those libraries'. What is not an adapter
//! of the model is refused by name.

#[path = "common/files.rs"]
mod common;
#[path = "common/golden.rs"]
mod golden;

use std::path::{Path, PathBuf};

use common::{exact, folder};
use golden::{Golden, error, run};
use planish_checkpoint::{Checkpoint, Layout, Weight};
use planish_format::FloatType;
use planish_model::{LoadOptions, Model};
use planish_quantize::{Output, dequantize};
use serde_json::{Value, json};

const BASE: &str = "llama_llama3_biases/plain";

fn adapter(case: &str) -> PathBuf {
    folder("../golden_adapters").join(case)
}

fn open(base: &str, adapter: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(&folder(base)).unwrap();
    checkpoint.adapted(adapter).unwrap_or_else(|error| panic!("{error}"))
}

/// A case's error, once merged while loading and once written merged.
fn errors(case: &str) -> [f32; 4] {
    let golden = Golden::read(&format!("../golden_adapters/{case}"));
    let checkpoint = open(BASE, &adapter(case));
    let parent = tempfile::tempdir().unwrap();
    let output = Output::new(parent.path().join("merged"));
    dequantize(&checkpoint, Some(FloatType::F32), &output, &mut |_| {}).unwrap();
    let merged = Checkpoint::open(&output.folder).unwrap();
    let mut errors = Vec::new();
    for checkpoint in [&checkpoint, &merged] {
        let mut model = Model::load(checkpoint, &exact()).unwrap();
        let (prefill, steps) = run(&mut model, &golden);
        errors.extend([error(&prefill, &golden.prefill), error(&steps, &golden.steps)]);
    }
    println!("{case}: {errors:?}");
    errors.try_into().unwrap()
}

#[test]
fn logits_are_those_of_peft_and_mlx_lm() {
    let plain = Checkpoint::open(&folder(BASE)).unwrap();
    for case in ["lora", "rslora", "dora", "mlx_lora", "mlx_dora"] {
        assert!(errors(case).iter().all(|error| *error < 1e-4), "{case}");
        // An adapter that does nothing would pass with one that is hardly anything.
        let golden = Golden::read(&format!("../golden_adapters/{case}"));
        let (without, _) = run(&mut Model::load(&plain, &exact()).unwrap(), &golden);
        assert!(error(&without, &golden.prefill) > 1e-2, "{case}");
    }
}

const METAL: &str = "llama_llama3_biases/metal";
const MLX: &str = "../golden_adapters/mlx_base";

/// What PEFT (for mlx-lm's adapters, mlx-lm) computes with packed weights, and what a model computes that keeps them packed.
#[test]
fn adapters_beside_packed_weights_agree_with_peft_and_mlx_lm() {
    for (base, case, file) in [
        (METAL, "lora", "golden_metal"),
        (METAL, "dora", "golden_metal"),
        (MLX, "peft_on_mlx", "golden"),
        (MLX, "mlx_on_mlx", "golden"),
        (MLX, "mlx_dora_on_mlx", "golden"),
    ] {
        let golden = Golden::read_file(&format!("../golden_adapters/{case}"), file);
        let logits = |checkpoint: &Checkpoint, options| run(&mut Model::load(checkpoint, &options).unwrap(), &golden);
        let error_of =
            |(prefill, steps): (Vec<f32>, Vec<f32>)| error(&prefill, &golden.prefill).max(error(&steps, &golden.steps));
        let adapted = open(base, &adapter(case));
        let exactly = error_of(logits(&adapted, exact()));
        let rounded = error_of(logits(&adapted, LoadOptions::default()));
        println!("{case} on {base}: {exactly:.1e}, rounded {rounded:.1e}");
        assert!(exactly < 1e-4, "{case}: {exactly}");
        assert!(rounded < 0.05, "{case}: {rounded}");
        let without = Checkpoint::open(&folder(base)).unwrap();
        assert!(error_of(logits(&without, exact())) > 1e-2, "{case}");
    }
}

/// No weight that was packed is held as floats: the codes are those of the file, in its mapping.
#[test]
fn packed_weights_beside_an_adapter_are_those_of_the_file() {
    for (base, case, scaled) in [
        (METAL, "lora", false),
        (METAL, "dora", true),
        (MLX, "mlx_on_mlx", false),
    ] {
        let (adapted, stored) = (open(base, &adapter(case)), Checkpoint::open(&folder(base)).unwrap());
        let mut found = 0;
        for entry in adapted.entries() {
            let Some(beside) = adapted.read_beside(entry).unwrap() else {
                continue;
            };
            found += 1;
            let Weight::Packed(matrix) = stored.read(stored.entry(&entry.name).unwrap()).unwrap() else {
                panic!("{}: a packed weight", entry.name)
            };
            assert_eq!(beside.weight.codes, matrix.codes);
            assert_eq!(beside.weight.scales == matrix.scales, !scaled);
            let rank = beside.low_rank.a.shape[0];
            assert_eq!(beside.low_rank.a.shape, [rank, matrix.cols]);
            assert_eq!(beside.low_rank.b.shape, [matrix.rows, rank]);
        }
        assert!(found >= 4, "{case}: {found}");
    }
}

/// Weights of packed modules are unpacked where they are read merged, and no others.
#[test]
fn packed_weights_that_an_adapter_changes_become_plain() {
    let base = METAL;
    let stored = Checkpoint::open(&folder(base)).unwrap();
    let adapted = open(base, &adapter("lora"));
    let plain = open(BASE, &adapter("lora"));
    let floats = |checkpoint: &Checkpoint, name: &str| -> Vec<f32> {
        let tensor = match checkpoint.read(checkpoint.entry(name).unwrap()).unwrap() {
            Weight::Plain(tensor) => tensor,
            Weight::Packed(matrix) => planish_checkpoint::Tensor::unpacked(&matrix, FloatType::F32),
        };
        let float_type = tensor.dtype.float_type().unwrap();
        let mut values = vec![0.0; tensor.data.len() / float_type.size_bytes()];
        float_type.decode(&tensor.data, &mut values);
        values
    };
    let unadapted = Checkpoint::open(&folder(BASE)).unwrap();
    let mut changed = 0;
    for (entry, before) in adapted.entries().iter().zip(stored.entries()) {
        if entry.layout == before.layout {
            continue;
        }
        changed += 1;
        assert!(matches!(entry.layout, Layout::Plain(_)), "{}", entry.name);
        let name = &entry.name;
        let (found, base) = (floats(&adapted, name), floats(&stored, name));
        let (with, without) = (floats(&plain, name), floats(&unadapted, name));
        // The same is added to the packed weight as to the plain one.
        let expected: Vec<f32> = base
            .iter()
            .zip(with.iter().zip(&without))
            .map(|(base, (with, without))| base + with - without)
            .collect();
        assert!(error(&found, &expected) < 0.01, "{name}");
    }
    assert_eq!(changed, 6);
}

/// A copy of an adapter with other settings.
fn edited(case: &str, edit: impl Fn(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(adapter(case)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let path = copy.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    copy
}

fn refusal(base: &str, adapter: &Path) -> String {
    match Checkpoint::open(&folder(base)).unwrap().adapted(adapter) {
        Ok(_) => panic!("expected a refusal"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let set = |key: &'static str, value: Value| {
        let copy = edited("lora", |config| config[key] = value.clone());
        refusal(BASE, copy.path())
    };
    for (found, expected) in [
        (refusal("qwen3/plain", &adapter("lora")), "expected shape"),
        (refusal("gpt2/plain", &adapter("lora")), "it is for another model"),
        (
            refusal(BASE, &folder(BASE)),
            "adapter_config.json: not found; an adapter folder has one",
        ),
        (set("r", json!(5)), "expected shape [5, "),
        (
            set("use_dora", json!(true)),
            "the adapter lacks the tensor of magnitudes of",
        ),
        (set("peft_type", json!("LOHA")), "`adapter.peft_type` is \"LOHA\""),
        (set("bias", json!("all")), "`adapter.bias` is \"all\""),
        (
            set("modules_to_save", json!(["lm_head"])),
            "`adapter.modules_to_save` is [\"lm_head\"]",
        ),
        (set("fan_in_fan_out", json!(true)), "`adapter.fan_in_fan_out` is true"),
        (set("r", json!("four")), "`adapter.r`: expected a rank, found \"four\""),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let full = edited("mlx_lora", |config| config["fine_tune_type"] = json!("full"));
    assert!(refusal(BASE, full.path()).contains("`adapter.fine_tune_type` is \"full\""));
}
