//! Damaged and contradictory checkpoints: one clear message, exit code 1, nothing left behind.

mod support;

use planish_format::FloatType;
use serde_json::{Value, json};
use support::{Scratch, plain, safetensors};

/// Every command that only needs a checkpoint to start with names the fault.
fn refused(scratch: &Scratch, model: &str, parts: &[&str]) {
    for arguments in [
        &["inspect", model][..],
        &["quantize", model, "--out", "out"],
        &["dequantize", model, "--out", "out"],
        &["convert", model, "--to", "mlx", "--out", "out"],
    ] {
        let message = scratch.fail(arguments);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {part:?} is not in: {message}");
        }
    }
}

#[test]
fn missing_and_unknown_files() {
    let scratch = Scratch::new();
    refused(&scratch, "./nowhere", &["./nowhere"]);
    std::fs::write(scratch.path("notes.txt"), "text").unwrap();
    refused(&scratch, "notes.txt", &["notes.txt", ".gguf"]);
    std::fs::create_dir(scratch.path("empty")).unwrap();
    refused(&scratch, "empty", &["empty"]);
    scratch.llama("source");
    std::fs::remove_file(scratch.path("source/config.json")).unwrap();
    refused(&scratch, "source", &["config.json"]);
    std::fs::write(scratch.path("a.gguf"), "").unwrap();
    refused(&scratch, "a.gguf", &["a.gguf", "ends"]);
    std::fs::write(scratch.path("b.gguf"), "GGUF\x03").unwrap();
    refused(&scratch, "b.gguf", &["b.gguf"]);
}

#[test]
fn damaged_safetensors() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let path = scratch.path("source/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = "{\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}";
    let with = |from: &str, to: &str, bytes: usize| safetensors(&header.replace(from, to), &vec![0; bytes]);
    for (what, bytes) in [
        ("cut in the data", whole[..whole.len() - 1].to_vec()),
        ("cut in the header", whole[..100].to_vec()),
        ("cut in the length", whole[..4].to_vec()),
        ("empty", Vec::new()),
        ("overlong", [&whole[..], &[0; 8]].concat()),
        ("header longer than the file", u64::MAX.to_le_bytes().to_vec()),
        ("header that is not JSON", safetensors("{not json", &[])),
        (
            "overflowing shape",
            with("[2,2]", "[4611686018427387904,4611686018427387904]", 16),
        ),
        ("size that contradicts the shape", with("[2,2]", "[3,2]", 16)),
        ("range beyond the data", with("[0,16]", "[0,1600]", 16)),
        ("range backwards", with("[0,16]", "[16,0]", 16)),
        ("unknown type", with("F32", "F33", 16)),
        ("overlap", {
            let second = "},\"b.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]}}";
            safetensors(&header.replace("}}", second), &[0; 24])
        }),
    ] {
        std::fs::write(&path, bytes).unwrap();
        eprintln!("{what}");
        refused(&scratch, "source", &["model.safetensors"]);
    }
}

#[test]
fn an_index_that_lies() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let weights = scratch.path("source/model.safetensors");
    std::fs::copy(&weights, scratch.path("outside.safetensors")).unwrap();
    std::fs::rename(&weights, scratch.path("source/model-00001-of-00001.safetensors")).unwrap();
    let outside = scratch.path("outside.safetensors");
    let index = scratch.path("source/model.safetensors.index.json");
    let write = |file: &str| {
        let map = json!({"weight_map": {"model.norm.weight": file}});
        std::fs::write(&index, map.to_string()).unwrap();
    };
    for file in ["../outside.safetensors", outside.to_str().unwrap()] {
        write(file);
        refused(&scratch, "source", &["outside.safetensors"]);
    }
    // A link may lead anywhere; of what an index says wrongly the files are the truth, unless a file with tensors is missing.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, scratch.path("source/link.safetensors")).unwrap();
        write("link.safetensors");
        scratch.succeed(&["inspect", "source"]);
        std::fs::remove_file(scratch.path("source/link.safetensors")).unwrap();
    }
    write("model-00002-of-00002.safetensors");
    scratch.succeed(&["inspect", "source"]);
    let numbered = scratch.path("source/model-00001-of-00001.safetensors");
    std::fs::rename(&numbered, scratch.path("source/other.safetensors")).unwrap();
    refused(&scratch, "source", &["model-00002-of-00002.safetensors"]);
    std::fs::rename(scratch.path("source/other.safetensors"), &numbered).unwrap();
    let shard = "model-00001-of-00001.safetensors";
    let mut map: serde_json::Map<String, Value> = support::llama_tensors()
        .into_iter()
        .map(|tensor| (tensor.name, shard.into()))
        .collect();
    map.insert("model.absent.weight".to_owned(), shard.into());
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    scratch.succeed(&["inspect", "source"]);
    std::fs::write(&index, "[]").unwrap();
    refused(&scratch, "source", &["index.json"]);
}

/// Breaks the config of a packed checkpoint, in the words of one dialect.
fn packed_config(format: &str, edit: impl FnOnce(&mut Value), parts: &[&str]) {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&[
        "quantize",
        "source",
        "--out",
        "packed",
        "--format",
        format,
        "--group-size",
        "32",
    ]);
    let key = if format == "metal" {
        "quantization_config"
    } else {
        "quantization"
    };
    scratch.edit_config("packed", |config| edit(&mut config[key]));
    for arguments in [
        &["inspect", "packed"][..],
        &["dequantize", "packed", "--out", "out"],
        &[
            "convert",
            "packed",
            "--to",
            if format == "metal" { "mlx" } else { "metal" },
            "--out",
            "out",
        ],
    ] {
        let message = scratch.fail(arguments);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {part:?} is not in: {message}");
        }
    }
}

#[test]
fn configs_that_cannot_be() {
    for format in ["metal", "mlx"] {
        for bits in [0, 7, 33] {
            let found = format!("found {bits}");
            packed_config(
                format,
                |section| section["bits"] = json!(bits),
                &["config.json", "bits", &found],
            );
        }
        packed_config(
            format,
            |section| section["group_size"] = json!(0),
            &["config.json", "group_size", "found 0"],
        );
        packed_config(
            format,
            |section| section["bits"] = json!("four"),
            &["config.json", "bits", "\"four\""],
        );
        packed_config(format, |section| section["bits"] = json!(8), &["packed", "8"]);
        packed_config(format, |section| section["group_size"] = json!(24), &["packed", "24"]);
        packed_config(format, |section| section["group_size"] = json!(64), &["packed", "64"]);
    }
    packed_config(
        "mlx",
        |section| drop(section.as_object_mut().unwrap().remove("bits")),
        &["config.json", "bits"],
    );
    packed_config(
        "metal",
        |section| section["quant_method"] = json!("aqlm"),
        &["config.json", "aqlm"],
    );
    packed_config(
        "metal",
        |section| section["quant_method"] = json!("awq"),
        &["config.json", "AWQ", "no weight"],
    );
}

#[test]
fn a_config_that_is_not_json() {
    let scratch = Scratch::new();
    scratch.llama("source");
    for text in ["", "{", "[1]", "null", "\u{0}"] {
        std::fs::write(scratch.path("source/config.json"), text).unwrap();
        refused(&scratch, "source", &["config.json"]);
    }
}

/// `inspect` lists no checkpoint as if it were whole that says more than it holds, and conversions write none.
#[test]
fn layers_that_are_not_there_are_refused_by_all_commands() {
    let scratch = Scratch::new();
    scratch.llama("m");
    scratch.succeed(&["quantize", "m", "--out", "packed"]);
    for layers in [3usize, 1_000_000_000] {
        for model in ["m", "packed"] {
            scratch.edit_config(model, |config| config["num_hidden_layers"] = json!(layers));
        }
        for command in [
            &["inspect", "m"][..],
            &["quantize", "m", "--out", "out"],
            &["dequantize", "packed", "--out", "out"],
            &["convert", "packed", "--to", "mlx", "--out", "out"],
        ] {
            let message = scratch.fail(command);
            assert_eq!(
                message,
                format!(
                    "error: config.json: num_hidden_layers: expected 2 layers, of which there are tensors, found {layers}"
                )
            );
        }
        assert!(!scratch.path("out").exists());
    }
}

/// A name that is wider than any table.
#[test]
fn names_without_bound_are_listed() {
    let scratch = Scratch::new();
    let name = "n".repeat(100_000);
    let tensors = [plain(&name, &[8, 64], &mut 5)];
    scratch.write("m", &json!({"model_type": "llama"}), FloatType::F32, &tensors);
    let listed = String::from_utf8(scratch.run(&["inspect", "m"]).stdout).unwrap();
    assert!(
        listed.contains(&name) && listed.len() < 200_000,
        "{} bytes",
        listed.len()
    );
}

/// A sparse file takes no room, its copy would take all that it says.
#[test]
fn files_without_bound_are_not_copied() {
    let scratch = Scratch::new();
    scratch.llama("m");
    std::fs::write(scratch.path("m/notes.txt"), "x").unwrap();
    let large = std::fs::File::create(scratch.path("m/large.txt")).unwrap();
    large.set_len(64 << 30).unwrap();
    let told = scratch.succeed(&["quantize", "m", "--out", "out"]);
    assert!(
        told.contains("note: not copied, since they have more than 512 MiB: large.txt\n"),
        "{told}"
    );
    assert!(scratch.path("out/notes.txt").exists() && !scratch.path("out/large.txt").exists());
}
