//! `planish convert`, `planish dequantize`, `planish inspect` on small checkpoints.

mod support;

use std::collections::BTreeMap;

use planish_checkpoint::{Entry, Weight};
use planish_format::{FloatType, dequantize};
use serde_json::{Value, json};
use support::{Scratch, llama_config, llama_tensors, plain};

/// Codes, scales and biases of every packed weight, by name.
fn parts(scratch: &Scratch, name: &str) -> Vec<(String, [Vec<u8>; 3])> {
    let checkpoint = scratch.open(name);
    let mut parts = Vec::new();
    for entry in checkpoint.entries() {
        if let Weight::Packed(matrix) = checkpoint.read(entry).unwrap() {
            parts.push((
                entry.name.clone(),
                [matrix.codes.to_vec(), matrix.scales.to_vec(), matrix.biases.to_vec()],
            ));
        }
    }
    parts
}

/// What every packed weight stands for, in f32.
fn floats(scratch: &Scratch, name: &str) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = scratch.open(name);
    let read = |entry: &Entry| match checkpoint.read(entry).unwrap() {
        Weight::Packed(matrix) => Some((entry.name.clone(), dequantize(&matrix, FloatType::F32))),
        Weight::Plain(_) => None,
    };
    checkpoint.entries().iter().filter_map(read).collect()
}

fn quantize(scratch: &Scratch, flags: &[&str]) {
    let arguments: Vec<&str> = ["quantize", "source", "--out", "packed"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    scratch.succeed(&arguments);
}

#[test]
fn metal_to_mlx_and_back_moves_every_byte() {
    let scratch = Scratch::new();
    scratch.llama("source");
    quantize(&scratch, &[]);
    scratch.succeed(&["convert", "packed", "--to", "mlx", "--out", "mlx"]);
    assert!(!parts(&scratch, "packed").is_empty());
    assert_eq!(parts(&scratch, "mlx"), parts(&scratch, "packed"));
    let config = scratch.config("mlx");
    assert_eq!(config["quantization"], config["quantization_config"]);
    let expected = json!({
        "group_size": 64, "bits": 4, "mode": "affine", "model.embed_tokens": false,
        "model.layers.0.mlp.down_proj": false, "model.layers.1.mlp.down_proj": false
    });
    assert_eq!(config["quantization"], expected);
    assert!(scratch.open("mlx").tensor("model.layers.0.mlp.up_proj.biases").is_ok());

    scratch.succeed(&["convert", "mlx", "--to", "metal", "--out", "back"]);
    assert_eq!(parts(&scratch, "back"), parts(&scratch, "packed"));
    assert_eq!(
        scratch.config("back")["quantization_config"],
        scratch.config("packed")["quantization_config"]
    );
    assert!(
        scratch
            .open("back")
            .tensor("model.layers.0.mlp.up_proj.qbiases")
            .is_ok()
    );
    let weights = |name: &str| std::fs::read(scratch.path(name).join("model.safetensors")).unwrap();
    assert_eq!(weights("back"), weights("packed"));
}

#[test]
fn toward_metal_embeddings_become_plain() {
    let scratch = Scratch::new();
    scratch.llama("source");
    quantize(&scratch, &["--format", "mlx", "--group-size", "32", "--bits", "8"]);
    let told = scratch.succeed(&["convert", "packed", "--to", "metal", "--out", "metal"]);
    assert!(told.contains("plain: model.embed_tokens: unpacked, because the metal format packs linear layers only"));
    let expected = json!({"quant_method": "metal", "bits": 8, "group_size": 32, "modules_to_not_convert": null});
    let config = scratch.config("metal");
    assert_eq!(config["quantization_config"], expected);
    assert!(config.get("quantization").is_none());
    scratch.succeed(&["dequantize", "packed", "--out", "plain"]);
    let embeddings = |name: &str| scratch.open(name).tensor("model.embed_tokens.weight").unwrap().data;
    assert_eq!(embeddings("metal"), embeddings("plain"));
}

#[test]
fn an_untied_packed_head_stays_packed() {
    let scratch = Scratch::new();
    let mut config = llama_config();
    config["tie_word_embeddings"] = json!(false);
    let mut tensors = llama_tensors();
    tensors.push(plain("lm_head.weight", &[128, 64], &mut 99));
    scratch.write("source", &config, FloatType::BF16, &tensors);
    quantize(&scratch, &["--format", "mlx", "--group-size", "32"]);
    scratch.succeed(&["convert", "packed", "--to", "metal", "--out", "metal"]);
    assert_eq!(
        scratch.config("metal")["quantization_config"]["modules_to_not_convert"],
        json!([])
    );
    assert!(
        parts(&scratch, "metal")
            .iter()
            .any(|(name, _)| name == "lm_head.weight")
    );
}

#[test]
fn what_the_other_dialect_cannot_hold_is_refused() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let message = scratch.fail(&["convert", "source", "--to", "mlx", "--out", "out"]);
    assert!(
        message.contains("source is not packed") && message.contains("planish quantize --format mlx"),
        "{message}"
    );
    for (flags, part) in [
        (
            &["--format", "mlx", "--group-size", "32", "--override", "q_proj=4,64"][..],
            "one packing for all layers",
        ),
        (
            &["--format", "mlx", "--group-size", "32", "--override", "proj=none"],
            "no linear layer is packed",
        ),
        (&["--format", "mlx", "--mode", "mxfp8"], "span 18 bits of whole numbers"),
    ] {
        quantize(&scratch, flags);
        let message = scratch.fail(&["convert", "packed", "--to", "metal", "--out", "out"]);
        assert!(
            message.contains(part) && message.contains("planish dequantize"),
            "{message}"
        );
        std::fs::remove_dir_all(scratch.path("packed")).unwrap();
    }
    quantize(&scratch, &["--group-size", "16"]);
    let message = scratch.fail(&["convert", "packed", "--to", "mlx", "--out", "out"]);
    assert!(
        message.contains("groups of 32, 64 and 128") && message.contains("planish dequantize"),
        "{message}"
    );
    let message = scratch.fail(&["convert", "packed", "--to", "metal", "--out", "out"]);
    assert!(message.contains("in the metal format already"), "{message}");
}

/// The metal format has 2, 4 and 8 bits, the same for all layers: other codes are written in more bits, and every weight is the same.
#[test]
fn codes_of_other_bits_become_wider() {
    let scratch = Scratch::new();
    scratch.llama("source");
    for (flags, bits) in [
        (&["--group-size", "32", "--bits", "3"][..], 4),
        (&["--group-size", "32", "--bits", "6"], 8),
        (&["--group-size", "32", "--override", "q_proj=8"], 8),
        (&["--mode", "mxfp4"], 8),
        (&["--mode", "nvfp4"], 8),
    ] {
        quantize(&scratch, &[&["--format", "mlx"], flags].concat());
        let told = scratch.succeed(&["convert", "packed", "--to", "metal", "--out", "metal"]);
        assert!(told.contains(&format!("are written in {bits} bits")), "{told}");
        assert_eq!(scratch.config("metal")["quantization_config"]["bits"], bits);
        let (source, converted) = (floats(&scratch, "packed"), floats(&scratch, "metal"));
        let layers = converted.iter().filter(|(name, _)| name.contains("proj"));
        assert_eq!(layers.count(), converted.len());
        assert!(converted.len() >= 7);
        for (name, values) in &converted {
            assert!(source[name] == *values, "{flags:?}: {name}");
        }
        for folder in ["packed", "metal"] {
            std::fs::remove_dir_all(scratch.path(folder)).unwrap();
        }
    }
}

/// Code by code, as the format defines it: weight = scale * code + bias, in f32, then rounded to the type of the scales.
#[test]
fn dequantize_gives_scale_times_code_plus_bias() {
    let scratch = Scratch::new();
    scratch.llama("source");
    for (bits, dtype, float_type) in [
        (4, "bfloat16", FloatType::BF16),
        (3, "float16", FloatType::F16),
        (8, "float32", FloatType::F32),
    ] {
        let bits_flag = bits.to_string();
        quantize(
            &scratch,
            &[
                "--format",
                "mlx",
                "--group-size",
                "32",
                "--bits",
                &bits_flag,
                "--dtype",
                dtype,
                "--force",
            ],
        );
        scratch.succeed(&["dequantize", "packed", "--out", "plain", "--force"]);
        let (packed, plain) = (scratch.open("packed"), scratch.open("plain"));
        assert_eq!(plain.entries().len(), 20);
        assert!(scratch.config("plain").get("quantization_config").is_none());
        for entry in packed.entries() {
            let tensor = plain.tensor(&entry.name).unwrap();
            assert_eq!(tensor.shape, entry.shape);
            let Weight::Packed(matrix) = packed.read(entry).unwrap() else {
                continue;
            };
            let groups = matrix.scales.len() / float_type.size_bytes();
            let (mut scales, mut biases) = (vec![0.0; groups], vec![0.0; groups]);
            float_type.decode(&matrix.scales, &mut scales);
            float_type.decode(&matrix.biases, &mut biases);
            let code = |index: usize| {
                let position = index * bits;
                let bit = |offset: usize| matrix.codes[(position + offset) / 8] >> ((position + offset) % 8) & 1;
                (0..bits).fold(0u32, |code, offset| code | u32::from(bit(offset)) << offset)
            };
            let weights: Vec<f32> = (0..matrix.rows * matrix.cols)
                .map(|index| scales[index / 32] * code(index) as f32 + biases[index / 32])
                .collect();
            let mut expected = vec![0; weights.len() * float_type.size_bytes()];
            float_type.encode(&weights, &mut expected);
            assert_eq!(tensor.data, expected, "{}, {bits} bits", entry.name);
        }
    }
}

#[test]
fn dequantize_changes_the_type_when_asked() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let message = scratch.fail(&["dequantize", "source", "--out", "out"]);
    assert!(
        message.contains("source is plain already") && message.contains("--dtype"),
        "{message}"
    );
    scratch.succeed(&["dequantize", "source", "--out", "out", "--dtype", "float32"]);
    let checkpoint = scratch.open("out");
    assert!(
        checkpoint
            .entries()
            .iter()
            .all(|entry| { entry.layout == planish_checkpoint::Layout::Plain(planish_checkpoint::Dtype::F32) })
    );
    assert_eq!(scratch.config("out")["torch_dtype"], "float32");
}

#[test]
fn inspect_adds_up() {
    let scratch = Scratch::new();
    scratch.llama("source");
    quantize(&scratch, &["--bits", "2"]);
    for name in ["source", "packed"] {
        let output = scratch.run(&["inspect", name, "--json"]);
        assert!(output.status.success());
        let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tensors = listing["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 20);
        let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
        assert_eq!(listing["bytes"], bytes);
        let weights: u64 = llama_tensors().iter().map(|tensor| tensor.values.len() as u64).sum();
        assert_eq!(listing["weights"], weights);
        let bits = bytes as f64 * 8.0 / weights as f64;
        assert!((listing["bits_per_weight"].as_f64().unwrap() - bits).abs() < 1e-9);
    }
    let table = scratch.run(&["inspect", "packed"]);
    let table = String::from_utf8(table.stdout).unwrap();
    let line = table
        .lines()
        .find(|line| line.starts_with("model.layers.0.mlp.up_proj.weight"))
        .unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    // 96 rows of 64 two-bit codes, with one scale and one bias of 2 bytes each.
    assert_eq!(cells[1..], ["96", "x", "64", "BF16", "2", "64", "1.92", "kB"], "{line}");
}

/// The errors of uniform noise are known: a step of 2 / (2^bits - 1) has the RMS step / sqrt(12), the noise 1 / sqrt(3).
#[test]
fn inspect_measures_what_each_width_would_cost() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let output = scratch.run(&["inspect", "source", "--json"]);
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<f64> = serde_json::from_value(listing["cost"]["relative_rms"].clone()).unwrap();
    for (bits, error) in [2, 3, 4, 5, 6, 8].into_iter().zip(errors) {
        let step = 2.0 / f64::from((1u32 << bits) - 1);
        let expected = step / 12f64.sqrt() / (1.0 / 3f64.sqrt());
        assert!(
            (0.8..1.25).contains(&(error / expected)),
            "{bits} bits: {error} where about {expected} was expected"
        );
    }
    let norm = listing["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|tensor| tensor["name"] == "model.norm.weight");
    assert_eq!(norm.unwrap()["cost"], Value::Null);
}

/// Blocks of 4-bit floats are moved: rounding weights to such floats again would choose other scales.
#[test]
fn experts_of_4_bit_floats_are_moved_to_mlx() {
    let scratch = Scratch::new();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../planish-model/tests/golden_mxfp4/gpt_oss"
    );
    scratch.succeed(&["convert", source, "--to", "mlx", "--out", "moved"]);
    let config = scratch.config("moved");
    let quantization = &config["quantization"];
    assert_eq!(
        [
            &quantization["mode"],
            &quantization["bits"],
            &quantization["group_size"]
        ],
        [&json!("mxfp4"), &json!(4), &json!(32)]
    );
    assert_eq!(quantization["model.layers.0.self_attn.q_proj"], json!(false));
    let modes = ["--format", "mlx", "--mode", "mxfp4"];
    scratch.succeed(&[&["quantize", source, "--out", "packed"], &modes[..]].concat());
    assert!(
        scratch.config("packed")["quantization"]
            .get("model.layers.0.self_attn.q_proj")
            .is_none()
    );
    let floats = |model: &str, out: &str| {
        scratch.succeed(&["dequantize", model, "--dtype", "float32", "--out", out]);
        scratch.open(out)
    };
    let original = floats(source, "a");
    for copy in [floats("moved", "b"), floats("packed", "c")] {
        // MLX has gate and up apart, and outputs before inputs.
        for (part, whole, first, step) in [
            ("gate_proj", "gate_up_proj", 0, 2),
            ("up_proj", "gate_up_proj", 1, 2),
            ("down_proj", "down_proj", 0, 1),
        ] {
            let experts = "model.layers.1.mlp.experts";
            let stored = original.tensor(&format!("{experts}.{whole}")).unwrap();
            let found = copy.tensor(&format!("{experts}.{part}.weight")).unwrap();
            let [stored_values, values] = [&stored.data, &found.data].map(|data| data.as_chunks::<4>().0);
            let &[count, cols, all_rows] = &stored.shape[..] else {
                panic!("a stack")
            };
            let rows = all_rows / step;
            assert_eq!(found.shape, [count, rows, cols]);
            for (index, value) in values.iter().enumerate() {
                let (expert, row, col) = (index / cols / rows, index / cols % rows, index % cols);
                let expected = stored_values[(expert * cols + col) * all_rows + first + row * step];
                assert_eq!(*value, expected, "{part}: expert {expert}, row {row}, column {col}");
            }
        }
    }
    let stored = scratch
        .open("moved")
        .tensor("model.layers.1.mlp.experts.up_proj.weight")
        .unwrap();
    assert_eq!(
        (stored.dtype, stored.shape),
        (planish_checkpoint::Dtype::U32, vec![5, 32, 8])
    );
}
