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
        let again = write_gguf(&source, &path, false, &mut |_| true);
        assert!(matches!(again, Err(Error::Output { .. })));
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
