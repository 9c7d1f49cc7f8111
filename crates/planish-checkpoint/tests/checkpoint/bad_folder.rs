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
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    sample.write("model-00002-of-00003.safetensors", &other);
    assert_eq!(
        sample.refusal(),
        "DIR/model-00002-of-00003.safetensors: tensor `a` is also in DIR/model-00001-of-00003.safetensors, with other values"
    );
    sample.write("model-00002-of-00003.safetensors", &content);
    let checkpoint = sample.open();
    assert_eq!(checkpoint.entries().len(), 1);
    assert_eq!(
        checkpoint.notices(),
        ["2 tensors are stored more than once, with the same values"]
    );
}

/// The headers are the truth, the index is a hint.
#[test]
fn index_against_shards() {
    let names = |sample: &Sample| -> Vec<String> {
        let checkpoint = sample.open();
        let names = checkpoint.entries().iter().map(|entry| entry.name.clone());
        names.collect()
    };
    let notices = |sample: &Sample| sample.open().notices().join("; ");
    let fits = indexed(json!({"a": SHARD, "b": SHARD}));
    assert_eq!(notices(&fits), "");
    for (weight_map, wrong, unlisted) in [
        (json!({"a": SHARD}), 0, 1),
        (json!({}), 0, 2),
        (json!({"a": SHARD, "b": SHARD, "c": SHARD}), 1, 0),
        (
            json!({"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors"}),
            2,
            0,
        ),
    ] {
        let sample = indexed(weight_map.clone());
        assert_eq!(names(&sample), ["a", "b"], "{weight_map}");
        let expected = format!(
            "model.safetensors.index.json does not fit the files: {wrong} of its tensors are not where it says, {unlisted} tensors \
             are not in it"
        );
        assert_eq!(notices(&sample), expected, "{weight_map}");
    }
    // Two files, each listed for what the other has.
    let swapped = indexed(json!({"a": "two.safetensors", "b": "two.safetensors", "c": SHARD}));
    swapped.write("two.safetensors", &safetensors(&[given("c", "F32", &[1])]));
    assert_eq!(names(&swapped), ["a", "b", "c"]);
    // A shard that nothing else replaces.
    let gone = indexed(json!({"a": "one.safetensors", "c": "gone.safetensors"}));
    gone.remove(SHARD);
    gone.write("one.safetensors", &safetensors(&[given("a", "F32", &[1])]));
    assert_eq!(
        gone.refusal(),
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

/// Weights and the small files are read wherever links lead; what lies elsewhere is no file of the folder that a conversion copies.
#[cfg(unix)]
#[test]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let outside = Sample::new();
    let outside_file = outside.folder().join("model.safetensors");
    outside.write("tokenizer.json", b"{}");
    outside.write("notes.txt", b"private");

    let sample = indexed(json!({"a": "link.safetensors", "b": "sub/model.safetensors"}));
    sample.remove(SHARD);
    sample.write("elsewhere", &safetensors(&[given("a", "F32", &[1])]));
    symlink("elsewhere", sample.folder().join("link.safetensors")).unwrap();
    symlink(outside.folder(), sample.folder().join("sub")).unwrap();
    let checkpoint = sample.open();
    assert!(checkpoint.entry("a").is_some() && checkpoint.entry("lm_head.weight").is_some());

    let sample = Sample::new();
    sample.remove("model.safetensors");
    sample.write("own.txt", b"mine");
    symlink(&outside_file, sample.folder().join("model.safetensors")).unwrap();
    symlink("own.txt", sample.folder().join("again.txt")).unwrap();
    for name in ["tokenizer.json", "notes.txt"] {
        symlink(outside.folder().join(name), sample.folder().join(name)).unwrap();
    }
    let checkpoint = sample.open();
    assert!(checkpoint.entry("lm_head.weight").is_some());
    assert_eq!(checkpoint.file("tokenizer.json").unwrap().unwrap(), "{}");
    assert_eq!(checkpoint.files(), ["again.txt", "own.txt"]);
    assert_eq!(checkpoint.linked_files(), ["notes.txt", "tokenizer.json"]);

    // Of the Hub's cache everything may be copied, also from another folder of links.
    let cache = Sample::at("models--org--name/snapshots/0123");
    cache.write("../../blobs/abc", b"{}");
    symlink("../../blobs/abc", cache.folder().join("tokenizer.json")).unwrap();
    let sample = Sample::new();
    symlink(
        cache.folder().join("tokenizer.json"),
        sample.folder().join("tokenizer.json"),
    )
    .unwrap();
    for opened in [cache.open(), sample.open()] {
        assert_eq!(opened.files(), ["tokenizer.json"]);
        assert!(opened.linked_files().is_empty());
    }
}

#[test]
fn folders_that_hold_what_is_read() {
    let sample = Sample::new();
    let checkpoint = sample.open();
    assert!(checkpoint.is_in(sample.folder()));
    assert!(checkpoint.is_in(sample.folder().parent().unwrap()));
    assert!(!checkpoint.is_in(&sample.folder().join("sub")));
    let other = Sample::new();
    assert!(!checkpoint.is_in(other.folder()));
    #[cfg(unix)]
    {
        other.remove("model.safetensors");
        let file = sample.folder().join("model.safetensors");
        std::os::unix::fs::symlink(file, other.folder().join("model.safetensors")).unwrap();
        assert!(other.open().is_in(sample.folder()), "its weights lie there");
    }
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
    assert_eq!(checkpoint.file("secret").unwrap().unwrap(), "x");
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
