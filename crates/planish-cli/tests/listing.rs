//! `planish models`, and what `planish inspect` says of the architecture.

mod support;

use std::path::Path;

use planish_format::FloatType;
use serde_json::{Value, json};
use support::{Scratch, plain};

fn json_of(scratch: &Scratch, arguments: &[&str]) -> Value {
    let output = scratch.run(arguments);
    assert!(output.status.success(), "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text_of(scratch: &Scratch, arguments: &[&str]) -> String {
    String::from_utf8(scratch.run(arguments).stdout).unwrap()
}

#[test]
fn models_lists_families_with_what_is_tested() {
    let scratch = Scratch::new();
    let listing = json_of(&scratch, &["models", "--json"]);
    let families = listing["families"].as_array().unwrap();
    let llama = families.iter().find(|family| family["model_type"] == "llama").unwrap();
    let expected = json!({
        "architecture": "LlamaForCausalLM", "model_type": "llama", "tested": ["plain", "metal", "mlx", "gguf"]
    });
    assert_eq!(*llama, expected);
    let table = text_of(&scratch, &["models"]);
    for family in families {
        assert!(table.contains(family["architecture"].as_str().unwrap()), "{family}");
    }
    assert!(table.contains(&format!("{} families", families.len())), "{table}");
}

/// docs/MODELS.md is what `planish models --markdown` prints, and README.md has the number.
#[test]
fn the_documents_have_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let scratch = Scratch::new();
    let table = text_of(&scratch, &["models", "--markdown"]);
    assert_eq!(read("docs/MODELS.md"), table);
    let families = json_of(&scratch, &["models", "--json"])["families"]
        .as_array()
        .unwrap()
        .len();
    assert!(
        read("README.md").contains(&format!("{families} families")),
        "{families}"
    );
}

#[test]
fn inspect_says_whether_the_architecture_runs() {
    let scratch = Scratch::new();
    scratch.llama("llama");
    scratch.edit_config("llama", |config| {
        config["hidden_act"] = json!("silu");
        config["max_position_embeddings"] = json!(64);
    });
    let listing = json_of(&scratch, &["inspect", "llama", "--json"]);
    assert_eq!(
        (&listing["architecture"], &listing["supported"]),
        (&json!("LlamaForCausalLM"), &json!(true))
    );
    assert_eq!(listing["unsupported_because"], Value::Null);
    assert!(text_of(&scratch, &["inspect", "llama"]).contains("LlamaForCausalLM is supported"));

    // A known family with a word in its config that is not.
    scratch.edit_config("llama", |config| config["hidden_act"] = json!("tangent"));
    let listing = json_of(&scratch, &["inspect", "llama", "--json"]);
    assert_eq!(listing["supported"], json!(false));
    let why = listing["unsupported_because"].as_str().unwrap();
    assert!(why.contains("tangent"), "{why}");
}

#[test]
fn packed_weights_are_measured_against_what_they_were_made_of() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&["quantize", "source", "--out", "packed", "--bits", "2"]);
    let shown = text_of(&scratch, &["inspect", "packed", "--against", "source"]);
    let (_, errors) = shown.split_once("packed weight, worst first").unwrap();
    let percentages = errors.lines().filter_map(|line| {
        let (name, error) = line.trim().split_once(' ')?;
        let error: f64 = error.trim().strip_suffix(" %")?.parse().ok()?;
        Some((name.to_owned(), error))
    });
    let percentages: Vec<(String, f64)> = percentages.collect();
    assert!(percentages.len() >= 10, "{errors}");
    assert!(
        percentages.is_sorted_by(|left, right| left.1 >= right.1),
        "{percentages:?}"
    );
    assert!(
        percentages.iter().all(|(_, error)| (10.0..60.0).contains(error)),
        "{percentages:?}"
    );
    let json = text_of(&scratch, &["inspect", "packed", "--against", "source", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let errors = json["relative_rms_errors"].as_object().unwrap();
    let (worst, error) = &percentages[0];
    assert!(
        (errors[worst].as_f64().unwrap() * 100.0 - error).abs() < 0.01,
        "{worst}"
    );
    let message = scratch.fail(&["inspect", "packed", "--against", "packed/none"]);
    assert!(message.contains("packed/none"), "{message}");
}

/// An encoder, which planish cannot run: its layers are packed and unpacked all the same.
#[test]
fn an_unknown_architecture_is_packed_and_unpacked() {
    let scratch = Scratch::new();
    let mut seed = 7;
    let tensors = [
        ("bert.embeddings.word_embeddings.weight", vec![96, 64]),
        ("bert.encoder.layer.0.attention.self.query.weight", vec![64, 64]),
        ("bert.encoder.layer.0.output.LayerNorm.weight", vec![64]),
        ("classifier.weight", vec![3, 64]),
    ]
    .map(|(name, shape)| plain(name, &shape, &mut seed));
    let config = json!({"architectures": ["BertForSequenceClassification"], "model_type": "bert"});
    scratch.write("source", &config, FloatType::F32, &tensors);
    let shown = text_of(&scratch, &["inspect", "source"]);
    assert!(
        shown.contains("BertForSequenceClassification is not supported"),
        "{shown}"
    );

    scratch.succeed(&["quantize", "source", "--out", "metal", "--bits", "8"]);
    scratch.succeed(&["dequantize", "metal", "--out", "back"]);
    scratch.succeed(&["convert", "metal", "--to", "mlx", "--out", "mlx"]);
    let told = scratch.succeed(&["quantize", "source", "--out", "packed", "--format", "mlx"]);
    assert!(told.contains("mlx-lm 0.32 has no model of the type `bert`"), "{told}");
    let names = |name: &str| -> Vec<(String, Vec<usize>)> {
        let checkpoint = scratch.open(name);
        let entries = checkpoint.entries().iter();
        entries.map(|entry| (entry.name.clone(), entry.shape.clone())).collect()
    };
    assert_eq!(names("source"), names("back"));
    let query = "bert.encoder.layer.0.attention.self.query.weight";
    let packed = scratch.open("metal");
    assert!(packed.entries().iter().any(|entry| entry.name == query));
    assert!(
        packed
            .tensor("bert.encoder.layer.0.attention.self.query.scales")
            .is_ok()
    );
    assert!(packed.tensor("classifier.scales").is_ok());
    assert!(packed.tensor("bert.embeddings.word_embeddings.scales").is_err());
}
