//! Folders that lack files, and names and links that lead out of them.

use std::path::Path;

use planish_checkpoint::Checkpoint;
use serde_json::{Value, json};

use crate::sample::{Sample, given, safetensors};

const SHARD: &str = "model-00001-of-00001.safetensors";

/// A folder with one shard of tensor `a`, and an index of this weight map.
fn indexed(weight_map: Value) -> Sample {
    let sample = Sample::new();
    sample.remove("model.safetensors");
    sample.write(SHARD, &safetensors(&[given("a", "F32", &[1]), given("b", "F32", &[1])]));
    sample.write(
        "model.safetensors.index.json",
        json!({"weight_map": weight_map}).to_string().as_bytes(),
    );
    sample
}

#[test]
fn nothing_there() {
    let message = |path: &str| Checkpoint::open(Path::new(path)).err().unwrap().to_string();
    assert_eq!(
        message("/no/such/model"),
        "/no/such/model: not found; expected a model folder or a .gguf file"
    );
    let sample = Sample::new();
    let file = sample.folder().join("model.safetensors");
    assert_eq!(
        sample.message(&Checkpoint::open(&file).err().unwrap()),
        "DIR/model.safetensors: expected a model folder or a .gguf file, found another file (for safetensors pass the folder)"
    );
}

#[test]
fn no_weights() {
    let sample = Sample::new();
    sample.remove("model.safetensors");
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: not found; the folder holds no weights"
    );
    sample.write("model.Q4_0.gguf", b"");
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: not found; found model.Q4_0.gguf: pass that file itself"
    );
    sample.remove("model.Q4_0.gguf");
    sample.write("pytorch_model.bin", b"");
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: not found; found pytorch_model.bin, a format that planish does not read: \
         convert it to safetensors first"
    );
}

#[test]
fn ambiguous_or_incomplete_weights() {
    let sample = Sample::new();
    sample.remove("model.safetensors");
    let content = safetensors(&[given("a", "F32", &[1])]);
    sample.write("one.safetensors", &content);
    sample.write("two.safetensors", &content);
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: not found; expected model.safetensors or model.safetensors.index.json; \
         found one.safetensors, two.safetensors"
    );
    sample.write("model-00001-of-00003.safetensors", &content);
    sample.write("model-00003-of-00003.safetensors", &content);
    assert_eq!(
        sample.refusal(),
        "DIR/model-00002-of-00003.safetensors: not found; \
         found model-00001-of-00003.safetensors, model-00003-of-00003.safetensors"
    );
    sample.write("model-00002-of-00003.safetensors", &content);
    assert_eq!(
        sample.refusal(),
        "DIR/model-00002-of-00003.safetensors: tensor `a` is also in DIR/model-00001-of-00003.safetensors"
    );
}

#[test]
fn index_against_shards() {
    assert_eq!(
        indexed(json!({"a": SHARD})).refusal(),
        format!("DIR/model.safetensors.index.json: tensor `b` of {SHARD} is not listed in `weight_map`")
    );
    assert_eq!(
        indexed(json!({"a": SHARD, "b": SHARD, "c": SHARD})).refusal(),
        format!("DIR/{SHARD}: tensor `c` is not there, but model.safetensors.index.json lists it for this file")
    );
    assert_eq!(
        indexed(json!({"a": SHARD, "b": SHARD, "c": "gone.safetensors"})).refusal(),
        "DIR/gone.safetensors: not found; model.safetensors.index.json lists it as a shard"
    );
}

#[test]
fn index_that_is_no_index() {
    let index = "DIR/model.safetensors.index.json";
    assert_eq!(
        indexed(json!([1])).refusal(),
        format!("{index}: expected an object under `weight_map`")
    );
    assert_eq!(
        indexed(json!({"a": 1})).refusal(),
        format!("{index}: `weight_map.a`: expected the name of a file, found 1")
    );
    let sample = indexed(json!({}));
    sample.write("model.safetensors.index.json", b"[]");
    assert_eq!(
        sample.refusal(),
        format!("{index}: expected a JSON object, found an array")
    );
    sample.write("model.safetensors.index.json", b"{");
    assert_eq!(
        sample.refusal(),
        format!("{index}: expected JSON: EOF while parsing an object at line 1 column 1")
    );
}

#[test]
fn index_that_names_files_outside() {
    for name in [
        "../model/model-00001-of-00001.safetensors",
        "/etc/passwd",
        "..",
        "",
        "sub/../../x",
        "./x",
    ] {
        assert_eq!(
            indexed(json!({"a": name})).refusal(),
            format!(
                "DIR/model.safetensors.index.json: `weight_map`: `{name}` is not the name of a file in this folder"
            )
        );
    }
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_folder() {
    use std::os::unix::fs::symlink;
    let outside = Sample::new();
    let outside_file = outside.folder().join("model.safetensors");
    let shown = outside_file.canonicalize().unwrap();
    let leaves = format!(
        "expected a file in this folder, found a link to {}, which is outside",
        shown.display()
    );

    let sample = indexed(json!({"a": "link.safetensors"}));
    symlink(&outside_file, sample.folder().join("link.safetensors")).unwrap();
    assert_eq!(sample.refusal(), format!("DIR/link.safetensors: {leaves}"));

    let sample = Sample::new();
    symlink(&outside_file, sample.folder().join("tokenizer.json")).unwrap();
    assert_eq!(sample.refusal(), format!("DIR/tokenizer.json: {leaves}"));

    let sample = indexed(json!({"a": "sub/model.safetensors"}));
    symlink(outside.folder(), sample.folder().join("sub")).unwrap();
    assert_eq!(sample.refusal(), format!("DIR/sub/model.safetensors: {leaves}"));

    // The cache of one Hub model is not that of another.
    let sample = Sample::at("models--org--name/snapshots/0123");
    sample.write(
        "../../../models--org--other/blobs/abc",
        &safetensors(&[given("a", "F32", &[1])]),
    );
    sample.remove("model.safetensors");
    symlink(
        "../../../models--org--other/blobs/abc",
        sample.folder().join("model.safetensors"),
    )
    .unwrap();
    assert!(sample.refusal().contains("which is outside"));
}

#[cfg(unix)]
#[test]
fn files_asked_by_name_stay_inside() {
    let sample = Sample::new();
    sample.write("../secret", b"x");
    let checkpoint = sample.open();
    for name in ["../secret", "/etc/passwd", ""] {
        let error = checkpoint.file(name).unwrap_err();
        assert_eq!(
            sample.message(&error),
            format!("DIR: `{name}` is not the name of a file in this folder")
        );
    }
    std::os::unix::fs::symlink("../secret", sample.folder().join("secret")).unwrap();
    assert!(
        checkpoint
            .file("secret")
            .unwrap_err()
            .to_string()
            .contains("which is outside")
    );
}

#[test]
fn an_absent_tensor() {
    let sample = Sample::new();
    let error = sample.open().tensor("model.embed_tokens.weight").unwrap_err();
    assert_eq!(
        sample.message(&error),
        "DIR: not found; the checkpoint has no tensor `model.embed_tokens.weight`"
    );
}
