//! Folders, files and names as they are: links, unused tensors, tied heads, other tokenizers, the Hub, stale indices.

use planish_checkpoint::Checkpoint;
use planish_format::FloatType;
use serde_json::{Value, json};

use crate::support::scripted::Scripted;
use crate::support::{self, Scratch};
use crate::{said, write};

#[test]
fn tensors_that_nobody_needs_may_be_of_any_type() {
    let scratch = Scratch::new();
    Scripted::circle().write(&scratch, "m");
    let path = scratch.path("m/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let data = &whole[8 + length..];
    header["other.tower.x"] = json!({"dtype": "C64", "shape": [4], "data_offsets": [data.len(), data.len() + 32]});
    let data = [data, &[1; 32]].concat();
    std::fs::write(&path, support::safetensors(&header.to_string(), &data)).unwrap();
    assert_eq!(said(&scratch, "m", &[]), "bcabca");
    scratch.succeed(&["quantize", "m", "--out", "q", "--bits", "8"]);
    let stored = scratch.open("q").tensor("other.tower.x").unwrap();
    assert_eq!(
        (stored.dtype.to_string().as_str(), &stored.data[..]),
        ("C64", &[1; 32][..])
    );
    assert_eq!(said(&scratch, "q", &[]), "bcabca");
}

#[cfg(unix)]
#[test]
fn folders_of_links_are_read_and_not_copied() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new();
    Scripted::circle().write(&scratch, "m");
    std::fs::create_dir(scratch.path("links")).unwrap();
    for item in std::fs::read_dir(scratch.path("m")).unwrap() {
        let path = item.unwrap().path();
        symlink(&path, scratch.path("links").join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(scratch.path("secret"), "private").unwrap();
    symlink(scratch.path("secret"), scratch.path("links/notes.txt")).unwrap();
    assert_eq!(said(&scratch, "links", &[]), "bcabca");
    let notes = scratch.succeed(&["quantize", "links", "--out", "q", "--bits", "8"]);
    assert!(
        notes.contains("not copied, since they are links to files elsewhere: ") && notes.contains("notes.txt"),
        "{notes}"
    );
    assert!(!scratch.path("q/notes.txt").exists() && !scratch.path("q/tokenizer.json").exists());
    scratch.succeed(&["quantize", "links", "--out", "all", "--bits", "8", "--copy-linked"]);
    assert_eq!(std::fs::read(scratch.path("all/notes.txt")).unwrap(), b"private");
    // The output may not be what is read, be it by links.
    for out in ["links", "m"] {
        let message = scratch.fail(&["quantize", "links", "--out", out, "--force"]);
        assert!(message.contains("holds the source itself"), "{message}");
    }
    let message = scratch.fail(&["quantize", "m", "--out", ".", "--force"]);
    assert!(message.contains("holds the source itself"), "{message}");
    assert_eq!(said(&scratch, "m", &[]), "bcabca");
}

/// transformers computes with a head that is stored though it is tied, mlx-lm with the embedding.
#[test]
fn tied_heads_that_are_stored() {
    let scratch = Scratch::new();
    let mut model = Scripted::circle();
    model.config = json!({"tie_word_embeddings": true});
    model.write(&scratch, "other");
    assert_eq!(said(&scratch, "other", &[]), "bcabca");
    let quantize = |from: &str, to: &str, format: &str| {
        scratch.succeed(&[
            "quantize",
            from,
            "--out",
            to,
            "--format",
            format,
            "--bits",
            "8",
            "--group-size",
            "32",
        ]);
    };
    for format in ["mlx", "metal"] {
        let out = format!("other-{format}");
        quantize("other", &out, format);
        assert_eq!(scratch.config(&out)["tie_word_embeddings"], json!(format == "metal"));
        assert_eq!(said(&scratch, &out, &[]), "bcabca");
    }
    // A copy of the embedding need not be kept.
    let mut tensors = model.tensors();
    tensors[1].values = tensors[0].values.clone();
    let config = scratch.config("other");
    scratch.write("same", &config, FloatType::F32, &tensors);
    tensors.remove(1);
    scratch.write("none", &config, FloatType::F32, &tensors);
    for format in ["mlx", "metal"] {
        let bytes = ["same", "none"].map(|name| {
            let out = format!("{name}-{format}");
            quantize(name, &out, format);
            assert_eq!(scratch.config(&out)["tie_word_embeddings"], json!(true));
            std::fs::read(scratch.path(&out).join("model.safetensors")).unwrap()
        });
        assert!(bytes[0] == bytes[1], "{format}");
    }
}

#[test]
fn tokenizers_in_other_formats_are_read_or_named_with_the_cure() {
    let scratch = Scratch::new();
    Scripted::circle().write(&scratch, "m");
    let asked = [
        "generate",
        "m",
        "--raw",
        "--prompt",
        "a",
        "--max-new-tokens",
        "4",
        "--temperature",
        "0",
    ];
    let expected = scratch.succeed(&asked);
    let tokenizer = std::fs::read(scratch.path("m/tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    std::fs::remove_file(scratch.path("m/tokenizer.json")).unwrap();
    std::fs::write(scratch.path("m/vocab.txt"), "a\nb\n").unwrap();
    let message = scratch.fail(&asked);
    assert!(
        message.contains("not read: vocab.txt alone") && message.contains("save_pretrained"),
        "{message}"
    );
    // The same tokens as GPT-2 stores them.
    std::fs::write(scratch.path("m/vocab.json"), tokenizer["model"]["vocab"].to_string()).unwrap();
    std::fs::write(scratch.path("m/merges.txt"), "#version: 0.2\n").unwrap();
    let settings = json!({ "tokenizer_class": "GPT2Tokenizer" });
    std::fs::write(scratch.path("m/tokenizer_config.json"), settings.to_string()).unwrap();
    assert_eq!(scratch.succeed(&asked), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_and_causes_that_are_told_once() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    Scripted::circle().write(&scratch, "m");
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::rename(scratch.path("m"), scratch.folder.path().join(odd)).unwrap();
    let mut command = scratch.command(&["generate", "--raw", "--prompt", "x=a", "--max-new-tokens", "2"]);
    let output = command.arg(odd).output().unwrap();
    assert_eq!(output.stdout, b"bc\n", "{}", String::from_utf8_lossy(&output.stderr));
    Scripted::circle().write(&scratch, "n");
    std::os::unix::fs::symlink(scratch.path("nowhere"), scratch.path("dangling")).unwrap();
    for (out, cause) in [("dangling", "(os error 2)"), ("n/config.json/x", "(os error 20)")] {
        let output = scratch.run(&["quantize", "n", "--out", out]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.matches(cause).count()),
            (Some(1), 1),
            "{stderr}"
        );
    }
}

#[test]
fn models_of_the_hub_by_any_of_their_names() {
    let scratch = Scratch::new();
    let commit = "0123456789012345678901234567890123456789";
    let folder = format!("hub/models--o--n/snapshots/{commit}");
    std::fs::create_dir_all(scratch.path("hub/models--o--n/refs")).unwrap();
    std::fs::create_dir_all(scratch.path(&folder).parent().unwrap()).unwrap();
    std::fs::write(scratch.path("hub/models--o--n/refs/main"), commit).unwrap();
    Scripted::circle().write(&scratch, &folder);
    for (variable, names) in [
        (
            "HF_HUB_CACHE",
            &[
                "o/n",
                "o/n/",
                "hf.co/o/n",
                "https://huggingface.co/o/n",
                "https://huggingface.co/o/n/tree/main",
            ][..],
        ),
        ("HUGGINGFACE_HUB_CACHE", &["o/n"]),
    ] {
        for name in names {
            let mut command = scratch.command(&["generate", name, "--raw", "--prompt", "x=a", "--max-new-tokens", "2"]);
            let output = command.env(variable, scratch.path("hub")).output().unwrap();
            assert_eq!(
                output.stdout,
                b"bc\n",
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[test]
fn an_index_is_a_hint() {
    let scratch = Scratch::new();
    let model = Scripted::circle();
    model.write(&scratch, "m");
    let checkpoint = Checkpoint::open(&scratch.path("m")).unwrap();
    let names: Vec<String> = checkpoint.entries().iter().map(|entry| entry.name.clone()).collect();
    // All tensors in one numbered file, and an index of three.
    std::fs::rename(
        scratch.path("m/model.safetensors"),
        scratch.path("m/model-00001-of-00001.safetensors"),
    )
    .unwrap();
    let file = |index: usize| json!(format!("model-{:05}-of-00003.safetensors", index % 3 + 1));
    let weight_map: serde_json::Map<String, Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (name.clone(), file(index)))
        .collect();
    write(
        &scratch.path("m/model.safetensors.index.json"),
        &json!({"weight_map": weight_map}),
    );
    assert_eq!(said(&scratch, "m", &[]), "bcabca");
}
