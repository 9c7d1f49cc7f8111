//! What valid folders give.

use planish_checkpoint::{Checkpoint, Dialect, Dtype, Layout, Override, Scheme, Weight};
use planish_format::{FloatType, Packing};
use serde_json::json;

use crate::sample::{Sample, given, packed, safetensors};

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.entries().iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn a_plain_folder() {
    let checkpoint = Sample::new().open();
    assert_eq!(names(&checkpoint), ["lm_head.weight", "model.norm.weight"]);
    assert_eq!(checkpoint.dialect(), &Dialect::Plain);
    assert_eq!(checkpoint.config()["model_type"], "llama");
    let entry = checkpoint.entry("lm_head.weight").unwrap();
    assert_eq!((entry.rows_cols(), entry.stored_bytes), ((2, 8), 64));
    assert_eq!(entry.layout, Layout::Plain(Dtype::F32));
    let Weight::Plain(tensor) = checkpoint.read(entry).unwrap() else {
        panic!("packed")
    };
    assert_eq!(tensor.data, given("", "F32", &[2, 8]).data);
    assert!(checkpoint.entry("lm_head").is_none());
}

#[test]
fn numbers_that_only_python_writes() {
    let sample = Sample::new();
    sample.write(
        "config.json",
        br#"{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}"#,
    );
    let infinity = json!({"__float__": "Infinity"});
    assert_eq!(sample.open().config()["time_step_limit"], json!([0.0, infinity]));
}

#[test]
fn shards_with_an_index() {
    let sample = Sample::new();
    sample.remove("model.safetensors");
    sample.write(
        "model-00001-of-00002.safetensors",
        &safetensors(&[given("a", "F32", &[2])]),
    );
    sample.write(
        "model-00002-of-00002.safetensors",
        &safetensors(&[given("b", "F32", &[3]), given("c", "U8", &[1])]),
    );
    assert_eq!(
        names(&sample.open()),
        ["a", "b", "c"],
        "a whole set of shards needs no index"
    );
    let weight_map = json!({
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors",
    });
    sample.write(
        "model.safetensors.index.json",
        json!({"weight_map": weight_map}).to_string().as_bytes(),
    );
    let checkpoint = sample.open();
    assert_eq!(names(&checkpoint), ["a", "b", "c"]);
    assert_eq!(checkpoint.tensor("b").unwrap().shape, [3]);
}

#[test]
fn the_only_file_may_have_another_name() {
    let sample = Sample::new();
    std::fs::rename(
        sample.folder().join("model.safetensors"),
        sample.folder().join("weights.safetensors"),
    )
    .unwrap();
    assert_eq!(sample.open().entries().len(), 2);
}

#[test]
fn an_index_left_beside_a_single_file_does_not_count() {
    let sample = Sample::new();
    sample.write(
        "model.safetensors.index.json",
        br#"{"weight_map": {"old": "model-00001-of-00009.safetensors"}}"#,
    );
    assert_eq!(sample.open().entries().len(), 2);
}

#[test]
fn metal_modules() {
    let sample = Sample::new();
    sample.config(json!({"quantization_config": {
        "quant_method": "metal", "bits": 8, "group_size": 32, "modules_to_not_convert": ["lm_head"]}}));
    let mut tensors = packed("p", "qbiases", [3, 64], [8, 32]);
    tensors.push(given("p.bias", "BF16", &[3]));
    tensors.push(given("lm_head.weight", "BF16", &[3, 64]));
    sample.tensors(&tensors);
    let checkpoint = sample.open();
    let packing = Packing::new(8, 32).unwrap();
    let modules_to_not_convert = Some(vec!["lm_head".to_string()]);
    assert_eq!(
        checkpoint.dialect(),
        &Dialect::Metal {
            packing,
            modules_to_not_convert
        }
    );
    assert_eq!(names(&checkpoint), ["lm_head.weight", "p.bias", "p.weight"]);
    let entry = checkpoint.entry("p.weight").unwrap();
    assert_eq!(
        (&entry.shape[..], entry.stored_bytes),
        (&[3, 64][..], 3 * 64 + 2 * 3 * 2 * 2)
    );
    assert_eq!(
        entry.layout,
        Layout::Packed {
            packing,
            scale_type: FloatType::BF16
        }
    );
    let Weight::Packed(matrix) = checkpoint.read(entry).unwrap() else {
        panic!("plain")
    };
    assert_eq!((matrix.rows, matrix.cols), (3, 64));
    assert_eq!(matrix.codes, tensors[0].data);
    assert_eq!(matrix.scales, tensors[1].data);
    assert_eq!(matrix.biases, tensors[2].data);
    checkpoint.release(entry);
    assert_eq!(matrix.codes, tensors[0].data, "released pages come back");
}

#[test]
fn metal_defaults_are_those_of_transformers() {
    let sample = Sample::new();
    sample.config(json!({"quantization_config": {"quant_method": "metal"}}));
    let packing = Packing::new(4, 64).unwrap();
    assert_eq!(
        sample.open().dialect(),
        &Dialect::Metal {
            packing,
            modules_to_not_convert: None
        }
    );
}

#[test]
fn mlx_modules_with_overrides() {
    let sample = Sample::new();
    let mut quantization = json!({"group_size": null, "bits": 4, "tool": "some", "b": {"bits": 6, "group_size": 32},
        "c": false, "d": true, "gone": {"bits": 8}});
    sample.config(json!({"quantization": quantization, "quantization_config": quantization}));
    let mut tensors = packed("a", "biases", [2, 64], [4, 64]);
    tensors.extend(packed("b", "biases", [2, 64], [6, 32]));
    tensors.push(given("c.weight", "F16", &[2, 64]));
    tensors.extend(packed("d", "biases", [2, 64], [4, 64]));
    sample.tensors(&tensors);
    let checkpoint = sample.open();
    let scheme = |bits, group| Scheme::affine(Packing::new(bits, group).unwrap());
    let overrides = vec![
        ("b".to_string(), Override::Packed(scheme(6, 32))),
        ("c".to_string(), Override::Plain),
        ("d".to_string(), Override::Default),
        ("gone".to_string(), Override::Packed(scheme(8, 64))),
    ];
    assert_eq!(
        checkpoint.dialect(),
        &Dialect::Mlx {
            default: scheme(4, 64),
            overrides
        }
    );
    let found: Vec<_> = checkpoint
        .entries()
        .iter()
        .map(|entry| (&entry.name[..], entry.rows_cols(), bits(entry)))
        .collect();
    assert_eq!(
        found,
        [
            ("a.weight", (2, 64), Some(4)),
            ("b.weight", (2, 64), Some(6)),
            ("c.weight", (2, 64), None),
            ("d.weight", (2, 64), Some(4)),
        ]
    );
    // Written again: the same, with the mode spelled out and the null resolved.
    let mut config = checkpoint.config().clone();
    checkpoint.dialect().write_config(&mut config);
    quantization = json!({"group_size": 64, "bits": 4, "mode": "affine",
        "b": {"group_size": 32, "bits": 6, "mode": "affine"}, "c": false, "d": true,
        "gone": {"group_size": 64, "bits": 8, "mode": "affine"}});
    assert_eq!(config["quantization"], quantization);
    assert_eq!(config["quantization_config"], quantization);
    assert_eq!(
        Dialect::from_config(&config, "config.json".as_ref()).unwrap(),
        *checkpoint.dialect()
    );
}

fn bits(entry: &planish_checkpoint::Entry) -> Option<u32> {
    match entry.layout {
        Layout::Packed { packing, .. } => Some(packing.bits()),
        _ => None,
    }
}

#[test]
fn every_width_in_both_dialects() {
    for (bits, group) in [(2, 32), (3, 32), (4, 128), (5, 64), (6, 64), (8, 32)] {
        let sample = Sample::new();
        sample.config(json!({"quantization_config": {"bits": bits, "group_size": group}}));
        sample.tensors(&packed("a", "biases", [2, 128], [bits, group]));
        let checkpoint = sample.open();
        let Weight::Packed(matrix) = checkpoint.read(&checkpoint.entries()[0]).unwrap() else {
            panic!("plain")
        };
        assert_eq!(
            (matrix.cols, matrix.packing),
            (128, Packing::new(bits as u32, group).unwrap())
        );
    }
}

#[test]
fn stacked_experts_keep_their_leading_sizes() {
    let sample = Sample::new();
    sample.config(json!({"quantization": {"bits": 4, "group_size": 32}}));
    sample.tensors(&[
        given("experts.weight", "U32", &[5, 3, 8]),
        given("experts.scales", "F16", &[5, 3, 2]),
        given("experts.biases", "F16", &[5, 3, 2]),
    ]);
    let checkpoint = sample.open();
    let entry = &checkpoint.entries()[0];
    assert_eq!((&entry.shape[..], entry.rows_cols()), (&[5, 3, 64][..], (15, 64)));
    let Weight::Packed(matrix) = checkpoint.read(entry).unwrap() else {
        panic!("plain")
    };
    assert_eq!(matrix.rows, 15);
}

/// By the definition: two 4-bit floats in a byte, the first low, times a power of two for each 32.
#[test]
fn floats_of_four_bits_become_codes_of_five() {
    let sample = Sample::new();
    sample.config(json!({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}));
    let tensors = [given("a.weight", "U32", &[2, 8]), given("a.scales", "U8", &[2, 2])];
    sample.tensors(&tensors);
    let checkpoint = sample.open();
    let entry = &checkpoint.entries()[0];
    assert_eq!((&entry.shape[..], checkpoint.entries().len()), (&[2, 64][..], 1));
    let Weight::Packed(matrix) = checkpoint.read(entry).unwrap() else {
        panic!("plain")
    };
    assert_eq!((matrix.packing.bits(), matrix.packing.group()), (5, 32));
    for row in 0..2 {
        let mut found = vec![0.0; 64];
        matrix.dequantize_row(row, &mut found);
        for (col, found) in found.into_iter().enumerate() {
            let byte = tensors[0].data[row * 32 + col / 2];
            let code = byte >> (4 * (col % 2)) & 15;
            let size = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
            let sign = if code < 8 { 1.0 } else { -1.0 };
            let scale = 2f64.powi(i32::from(tensors[1].data[row * 2 + col / 32]) - 127);
            assert_eq!(f64::from(found), sign * size * scale, "row {row}, column {col}");
        }
    }
}

#[test]
fn scales_of_small_floats_are_bytes() {
    let sample = Sample::new();
    sample.config(json!({"quantization": {"bits": 4, "group_size": 16, "mode": "nvfp4"}}));
    sample.tensors(&[given("a.weight", "U32", &[2, 8]), given("a.scales", "BF16", &[2, 4])]);
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: tensor `a.scales`: expected U8, found BF16"
    );
}

#[test]
fn data_at_odd_positions_is_aligned() {
    let sample = Sample::new();
    sample.config(json!({"quantization": {"bits": 4, "group_size": 32}}));
    let mut tensors = vec![given("odd", "U8", &[1])];
    tensors.extend(packed("a", "biases", [2, 32], [4, 32]));
    sample.tensors(&tensors);
    let checkpoint = sample.open();
    let Weight::Packed(matrix) = checkpoint.read(checkpoint.entry("a.weight").unwrap()).unwrap() else {
        panic!("plain")
    };
    for (part, align) in [(&matrix.codes, 4), (&matrix.scales, 2), (&matrix.biases, 2)] {
        assert_eq!(part.as_ptr().align_offset(align), 0);
    }
    assert_eq!(matrix.codes, tensors[1].data);
}

#[test]
fn carried_files() {
    let sample = Sample::new();
    for name in [
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "LICENSE",
        "README.md",
        "modeling.py",
        ".gitattributes",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model.safetensors.index.json",
        "model.Q4.gguf",
        "onnx/model.onnx",
        "onnx/config.json",
        "1_Pooling/config.json",
        "additional_chat_templates/tool.jinja",
        ".cache/huggingface/download/x.lock",
        "original/params.json",
    ] {
        sample.write(name, name.as_bytes());
    }
    let checkpoint = sample.open();
    assert_eq!(
        checkpoint.files(),
        [
            "1_Pooling/config.json",
            "LICENSE",
            "additional_chat_templates/tool.jinja",
            "chat_template.jinja",
            "modeling.py",
            "tokenizer.json",
            "tokenizer.model",
        ]
    );
    for name in ["1_Pooling/config.json", "README.md"] {
        assert_eq!(checkpoint.file(name).unwrap().unwrap(), name.as_bytes());
    }
    assert!(checkpoint.file("vocab.json").unwrap().is_none());
    sample.write("vocab.json", b"");
    assert!(checkpoint.file("vocab.json").unwrap().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn links_of_a_hub_cache() {
    use std::os::unix::fs::symlink;
    let sample = Sample::at("models--org--name/snapshots/0123");
    sample.write("../../blobs/abc", &safetensors(&[given("a", "F32", &[1])]));
    sample.remove("model.safetensors");
    symlink("../../blobs/abc", sample.folder().join("model.safetensors")).unwrap();
    assert_eq!(names(&sample.open()), ["a"]);
}

/// Bytes of the mappings of a file that are resident now: other tests map files in this process meanwhile.
#[cfg(target_os = "linux")]
fn resident_bytes(path: &std::path::Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.to_str().unwrap();
    let (mut of_file, mut bytes) = (false, 0);
    for line in maps.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) if of_file => bytes += size.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024,
            Some(_) => {}
            // A mapping begins with its addresses, and ends in its file.
            None if line.split(' ').next().is_some_and(|word| word.contains('-')) => of_file = line.ends_with(path),
            None => {}
        }
    }
    bytes
}

#[cfg(target_os = "linux")]
#[test]
fn released_entries_do_not_add_up() {
    let sample = Sample::new();
    let (count, size) = (2048, 100_000);
    let info = |index| {
        format!(
            r#""{index}": {{"dtype": "U8", "shape": [{size}], "data_offsets": [{}, {}]}}"#,
            index * size,
            (index + 1) * size
        )
    };
    let header = format!("{{{}}}", (0..count).map(info).collect::<Vec<_>>().join(", "));
    sample.write(
        "model.safetensors",
        &crate::sample::file(&header, &vec![1; count * size]),
    );
    let checkpoint = sample.open();
    let path = sample.folder().join("model.safetensors").canonicalize().unwrap();
    for entry in checkpoint.entries() {
        let Weight::Plain(tensor) = checkpoint.read(entry).unwrap() else {
            panic!("packed")
        };
        assert_eq!(tensor.data.iter().map(|&byte| byte as usize).sum::<usize>(), size);
        assert!(
            entry.name != "0" || resident_bytes(&path) >= size,
            "a mapping of {}",
            path.display()
        );
        checkpoint.release(entry);
    }
    let grown = resident_bytes(&path);
    assert!(grown < 32 << 20, "{grown} of {} bytes stayed", count * size);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let sample = Sample::new();
    sample.remove("model.safetensors");
    let pipe = sample.folder().join("model.safetensors");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        sample.refusal(),
        "DIR/model.safetensors: expected a file, found something else"
    );
}

/// Touching what was cut off does not end the process; whoever asks is told.
#[cfg(unix)]
#[test]
fn a_file_that_is_cut_while_it_is_mapped() {
    planish_checkpoint::watch_mappings();
    let sample = Sample::new();
    let tensor = given("lm_head.weight", "F32", &[1 << 14, 16]);
    sample.tensors(std::slice::from_ref(&tensor));
    let checkpoint = sample.open();
    let files = checkpoint.files_read();
    let stored = checkpoint.tensor("lm_head.weight").unwrap();
    checkpoint.check_unchanged().unwrap();
    files.check().unwrap();
    let path = sample.folder().join("model.safetensors");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 16)
        .unwrap();
    assert_eq!(stored.data[stored.data.len() - 1], 0);
    assert!(stored.data[1 << 19..].iter().all(|&byte| byte == 0));
    assert_eq!(stored.data[..1000], tensor.data[..1000], "what is left is still read");
    for error in [files.check().unwrap_err(), checkpoint.check_unchanged().unwrap_err()] {
        let message = "DIR/model.safetensors: changed while it was read: it was cut short";
        assert_eq!(sample.message(&error), message);
    }
    drop((stored, checkpoint, files));

    let sample = Sample::new();
    let checkpoint = sample.open();
    let path = sample.folder().join("model.safetensors");
    let mut longer = std::fs::read(&path).unwrap();
    longer.push(0);
    std::fs::write(&path, longer).unwrap();
    let message = sample.message(&checkpoint.check_unchanged().unwrap_err());
    assert!(
        message.starts_with("DIR/model.safetensors: changed while it was read: it had "),
        "{message}"
    );
}

#[test]
fn side_files_of_any_size_are_not_read() {
    let sample = Sample::new();
    for name in ["tokenizer.json", "config.json"] {
        sample.write(name, b"{}");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(sample.folder().join(name))
            .unwrap();
        file.set_len(64 << 30).unwrap();
        let error = match name {
            "config.json" => sample.refusal(),
            name => sample.message(&sample.open().file(name).unwrap_err()),
        };
        assert_eq!(
            error,
            format!("DIR/{name}: expected at most 536870912 bytes, found 68719476736")
        );
    }
}
