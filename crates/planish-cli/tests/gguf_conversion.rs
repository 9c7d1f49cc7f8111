//! GGUF files through `planish dequantize` and `planish quantize`: values of gguf-py, files of a Hugging Face folder.

mod support;

use planish_checkpoint::Layout;
use planish_format::FloatType;
use serde_json::Value;
use support::{Scratch, read_json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../planish-checkpoint/tests/golden/gguf");

#[test]
fn dequantize_gives_the_values_of_gguf_py() {
    let expected = read_json(format!("{GOLDEN}/expected.json").as_ref());
    for file in ["types.gguf", "sentencepiece.gguf"] {
        let scratch = Scratch::new();
        scratch.succeed(&[
            "dequantize",
            &format!("{GOLDEN}/{file}"),
            "--out",
            "plain",
            "--dtype",
            "float32",
        ]);
        let tensors = expected[file]["tensors"].as_object().unwrap();
        let checkpoint = scratch.open("plain");
        assert_eq!(checkpoint.entries().len(), tensors.len());
        for (name, expected) in tensors {
            let tensor = checkpoint.tensor(name).unwrap();
            let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
            let first: Vec<f32> = serde_json::from_value(expected["first"].clone()).unwrap();
            let mut found = vec![0.0; tensor.data.len() / 4];
            FloatType::F32.decode(&tensor.data, &mut found);
            assert_eq!((&tensor.shape, &found[..4]), (&shape, &first[..]), "{name} of {file}");
        }
        let names = scratch.open("plain").files().to_vec();
        assert!(names.contains(&"tokenizer.json".to_owned()), "{names:?}");
        assert_eq!(scratch.config("plain")["torch_dtype"], "float32");
    }
}

#[test]
fn a_gguf_file_becomes_one_type_unless_asked() {
    let scratch = Scratch::new();
    let told = scratch.succeed(&["dequantize", &format!("{GOLDEN}/types.gguf"), "--out", "plain"]);
    let dtype = scratch.config("plain")["torch_dtype"].as_str().unwrap().to_owned();
    assert!(told.contains(&format!("every float tensor is {dtype}")), "{told}");
    let layouts: Vec<Layout> = scratch
        .open("plain")
        .entries()
        .iter()
        .map(|entry| entry.layout.clone())
        .collect();
    assert!(layouts.iter().all(|layout| *layout == layouts[0]), "{layouts:?}");
}

#[test]
fn quantize_packs_what_the_blocks_hold() {
    let scratch = Scratch::new();
    let source = format!("{GOLDEN}/types.gguf");
    scratch.succeed(&[
        "quantize",
        &source,
        "--out",
        "packed",
        "--format",
        "mlx",
        "--bits",
        "8",
        "--group-size",
        "32",
    ]);
    scratch.succeed(&["dequantize", &source, "--out", "plain", "--dtype", "float32"]);
    scratch.succeed(&["dequantize", "packed", "--out", "unpacked", "--dtype", "float32"]);
    let (plain, unpacked) = (scratch.open("plain"), scratch.open("unpacked"));
    for entry in plain.entries() {
        let decode = |checkpoint: &planish_checkpoint::Checkpoint| {
            let bytes = checkpoint.tensor(&entry.name).unwrap().data;
            let mut values = vec![0.0; bytes.len() / 4];
            FloatType::F32.decode(&bytes, &mut values);
            values
        };
        let (expected, found) = (decode(&plain), decode(&unpacked));
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
        let error = square(&mut expected.iter().zip(&found).map(|(a, b)| a - b));
        let relative = (error / square(&mut expected.iter().copied())).sqrt();
        assert!(relative < 0.02, "{}: {relative}", entry.name);
    }
    let inspected = scratch.run(&["inspect", &source, "--json"]);
    let listing: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(listing["format"], "GGUF");
}
