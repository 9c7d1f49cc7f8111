//! GGUF files that are written: read again, every weight is the number that it was. llama.cpp has run them (docs/DIALECTS.md says which).

use std::path::{Path, PathBuf};

use planish_checkpoint::{Checkpoint, Error, Weight, cast, write_gguf};
use planish_format::{FloatType, dequantize};
use serde_json::Value;

fn model(name: &str) -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    Checkpoint::open(&path).unwrap()
}

fn golden(case: &str) -> Checkpoint {
    model(&format!("crates/planish-model/tests/golden/{case}"))
}

/// A weight as f32 numbers.
fn floats(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    match checkpoint
        .read(checkpoint.entry(name).unwrap_or_else(|| panic!("{name}")))
        .unwrap()
    {
        Weight::Packed(matrix) => dequantize(&matrix, FloatType::F32),
        Weight::Plain(tensor) => cast(&tensor.data, tensor.dtype.float_type().unwrap(), FloatType::F32),
    }
}

fn written(checkpoint: &Checkpoint, folder: &Path) -> (PathBuf, Checkpoint) {
    let path = folder.join("model.gguf");
    let found = write_gguf(checkpoint, &path, false, &mut |_| true).unwrap().unwrap();
    assert!(found.unpacked.is_empty() && found.notes.is_empty(), "{found:?}");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "a hidden file is left");
    (path.clone(), Checkpoint::open(&path).unwrap())
}

#[test]
fn every_weight_is_the_same_number() {
    let cases = [
        model("models/demo"),
        model("models/demo-float"),
        golden("llama_tied/plain"),
        golden("qwen2_untied/plain"),
        golden("qwen3/plain"),
        golden("granite/plain"),
        golden("smollm3/plain"),
    ];
    for source in cases {
        let folder = tempfile::tempdir().unwrap();
        let (path, found) = written(&source, folder.path());
        for entry in found.entries() {
            assert_eq!(
                floats(&found, &entry.name),
                floats(&source, &entry.name),
                "{}",
                entry.name
            );
        }
        let is_tied = source.config().get("tie_word_embeddings") == Some(&Value::Bool(true));
        let stored = source
            .entries()
            .iter()
            .filter(|entry| !(is_tied && entry.name == "lm_head.weight"));
        assert_eq!(found.entries().len(), stored.count());
        for key in [
            "hidden_size",
            "num_hidden_layers",
            "num_key_value_heads",
            "rms_norm_eps",
            "vocab_size",
        ] {
            assert_eq!(found.config()[key], source.config()[key], "{key}");
        }
        for key in [
            "attention_multiplier",
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
            "no_rope_layers",
        ] {
            let value = |config: &serde_json::Map<String, Value>| {
                let value = config.get(key)?;
                Some(value.as_f64().map_or(value.clone(), Value::from))
            };
            assert_eq!(value(found.config()), value(source.config()), "{key}");
        }
        let again = write_gguf(&source, &path, false, &mut |_| true);
        assert!(matches!(again, Err(Error::OutputExists { .. })));
        write_gguf(&source, &path, true, &mut |_| true).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn the_tokenizer_is_the_same() {
    let source = model("models/demo");
    let folder = tempfile::tempdir().unwrap();
    let (_, found) = written(&source, folder.path());
    let json = |checkpoint: &Checkpoint, name: &str| -> Value {
        serde_json::from_slice(&checkpoint.file(name).unwrap().unwrap()).unwrap()
    };
    let (told, expected) = (json(&found, "tokenizer.json"), json(&source, "tokenizer.json"));
    assert_eq!(told["model"]["vocab"], expected["model"]["vocab"]);
    assert_eq!(told["model"]["merges"], expected["model"]["merges"]);
    assert_eq!(told["pre_tokenizer"], expected["pre_tokenizer"]);
    assert_eq!(told["post_processor"]["single"], expected["post_processor"]["single"]);
    let settings = json(&found, "tokenizer_config.json");
    assert_eq!(settings["eos_token"], "<|end|>");
}

/// The vocabulary that SentencePiece trained, and the ids that it gives, as scripts/golden/gguf_types.py recorded them.
#[test]
fn a_sentencepiece_tokenizer_is_the_same() {
    let source = model("crates/planish-checkpoint/tests/golden/gguf/sentencepiece.gguf");
    let folder = tempfile::tempdir().unwrap();
    let (_, found) = written(&source, folder.path());
    let file = |checkpoint: &Checkpoint| checkpoint.file("tokenizer.json").unwrap().unwrap();
    assert_eq!(file(&found), file(&source));
    let tokenizer = tokenizers::Tokenizer::from_bytes(file(&found)).unwrap();
    let recorded = std::fs::read(source.path().with_file_name("expected.json")).unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    for case in recorded["sentencepiece.gguf"]["encoded"].as_array().unwrap() {
        let ids = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap();
        assert_eq!(Value::from(ids.get_ids()), case["ids"], "{case}");
    }
}

#[test]
fn what_is_not_written_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = write_gguf(&golden("gemma/plain"), &path, false, &mut |_| true);
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("GemmaForCausalLM, which is not written to GGUF"),
        "{message}"
    );
    let stopped = write_gguf(&model("models/demo"), &path, false, &mut |_| false);
    assert!(stopped.unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A tiny model whose config.json is changed.
fn changed(folder: &Path, case: &str, edit: impl FnOnce(&mut Value)) -> Checkpoint {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(case);
    let mut config: Value = serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(source.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    Checkpoint::open(folder).unwrap()
}

#[test]
fn sizes_that_the_tensors_do_not_bear_out_are_refused() {
    for (key, value, expected) in [
        (
            "vocab_size",
            2_000_000_000,
            "`lm_head.weight`: expected the shape [2000000000, ",
        ),
        ("head_dim", 34, "k_proj.bias`: expected the shape [68], found [24]"),
        ("head_dim", 11, "`head_dim`: expected a positive even number, found 11"),
        (
            "num_key_value_heads",
            7,
            "k_proj.bias`: expected the shape [84], found [24]",
        ),
        ("intermediate_size", 8, "expected the shape [48, 8], found [48, 80]"),
        ("num_hidden_layers", 1, "is beyond the 1 layers of `num_hidden_layers`"),
        (
            "num_hidden_layers",
            1_000_000_000,
            "lacks the tensor that is `blk.2.attn_norm.weight`",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = changed(
            folder.path(),
            "crates/planish-model/tests/golden/llama_llama3_biases/plain",
            |config| config[key] = value.into(),
        );
        let path = folder.path().join("out.gguf");
        let message = write_gguf(&source, &path, false, &mut |_| true)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{key}: {message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

/// Scales beyond half precision, in which blocks have them, do not become infinite.
#[test]
fn scales_beyond_half_precision_become_floats() {
    let folder = tempfile::tempdir().unwrap();
    let source = changed(folder.path(), "models/demo", |_| {});
    let (name, path) = ("model.layers.0.mlp.up_proj", folder.path().join("model.safetensors"));
    let entry = source.entry(&format!("{name}.weight")).unwrap();
    let Weight::Packed(matrix) = source.read(entry).unwrap() else {
        panic!("{name} is packed")
    };
    let mut scales = vec![0.0; matrix.scales.len() / matrix.scale_type.size_bytes()];
    matrix.scale_type.decode(&matrix.scales, &mut scales);
    scales.iter_mut().for_each(|scale| *scale *= 1e7);
    let mut bytes = matrix.scales.to_vec();
    matrix.scale_type.encode(&scales, &mut bytes);
    let mut file = std::fs::read(&path).unwrap();
    let at = file
        .windows(bytes.len())
        .position(|window| window == &matrix.scales[..])
        .unwrap();
    file[at..at + bytes.len()].copy_from_slice(&bytes);
    std::fs::write(&path, file).unwrap();

    let source = Checkpoint::open(folder.path()).unwrap();
    let out = folder.path().join("out.gguf");
    let found = write_gguf(&source, &out, false, &mut |_| true).unwrap().unwrap();
    let told = (
        name.to_owned(),
        "half precision does not hold its scales: float32".to_owned(),
    );
    assert!(found.unpacked.contains(&told), "{:?}", found.unpacked);
    let written = Checkpoint::open(&out).unwrap();
    let weight = format!("{name}.weight");
    assert_eq!(floats(&written, &weight), floats(&source, &weight));
}

#[test]
fn a_file_of_another_kind_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "mine").unwrap();
    let found = write_gguf(&model("models/demo"), &path, true, &mut |_| true);
    assert!(found.unwrap_err().to_string().contains("is a file of another kind"));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let found = write_gguf(&model("models/demo"), folder.path(), true, &mut |_| true);
    assert!(found.unwrap_err().to_string().contains("is no file"));
}

/// What a killed run left is removed, and a file that appears meanwhile is not replaced.
#[test]
fn runs_to_one_file_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let left = folder.path().join(".model.gguf.planish-1.part");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("file"), "half").unwrap();
    let mut other = false;
    let found = write_gguf(&model("models/demo"), &path, false, &mut |_| {
        if !std::mem::replace(&mut other, true) {
            std::fs::write(&path, "another run's").unwrap();
        }
        true
    });
    assert!(matches!(found, Err(Error::OutputExists { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"another run's");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
