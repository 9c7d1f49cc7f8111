//! `planish quantize --recipe`, `--budget`: widths by layer on the command line.
#![cfg(feature = "demo-model")]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Scratch, read_json};

/// Bits of each layer of an MLX checkpoint that has others than the rest, and those of the rest.
fn bits(scratch: &Scratch, name: &str) -> (u64, BTreeMap<String, u64>) {
    let config = scratch.config(name);
    let fields = config["quantization"].as_object().unwrap();
    let others = fields
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.get("bits")?.as_u64()?)));
    (fields["bits"].as_u64().unwrap(), others.collect())
}

fn quantize<'a>(out: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let common = [
        "quantize",
        "source",
        "--out",
        out,
        "--format",
        "mlx",
        "--group-size",
        "32",
    ];
    common.into_iter().chain(flags.iter().copied()).collect()
}

#[test]
fn a_recipe_is_a_name_or_a_file_that_can_be_edited() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let told = scratch.succeed(&quantize("named", &["--recipe", "mixed_3_6"]));
    // Of two layers mlx-lm gives the second more bits: 2 / 8 is 0, and 7 * 2 / 8 is 1.
    let more: BTreeMap<String, u64> = ["self_attn.v_proj", "mlp.down_proj"]
        .map(|part| (format!("model.layers.1.{part}"), 6))
        .into();
    assert_eq!(bits(&scratch, "named"), (3, more.clone()));
    assert!(told.contains("layers: 13 in 3 bits, 2 in 6 bits"), "{told}");

    let path = scratch.path("named/allocation.json");
    let mut allocation = read_json(&path);
    assert_eq!(allocation["about"]["recipe"], "mixed_3_6");
    allocation["layers"]["model.embed_tokens"] = json!(8);
    allocation["layers"]["model.layers.0.mlp.up_proj"] = json!("none");
    std::fs::write(scratch.path("edited.json"), allocation.to_string()).unwrap();
    let given = [
        "quantize",
        "source",
        "--out",
        "edited",
        "--format",
        "mlx",
        "--recipe",
        "edited.json",
    ];
    scratch.succeed(&given);
    let (rest, mut found) = bits(&scratch, "edited");
    assert_eq!((rest, found.remove("model.embed_tokens")), (3, Some(8)));
    assert_eq!(found, more);
    assert_eq!(
        scratch.config("edited")["quantization"]["model.layers.0.mlp.up_proj"],
        Value::Bool(false)
    );
    let card = std::fs::read_to_string(scratch.path("edited/README.md")).unwrap();
    assert!(
        card.contains("| bits of each layer | 15 layers in `allocation.json` |"),
        "{card}"
    );

    std::fs::write(
        scratch.path("slip.json"),
        r#"{"bits": 4, "layers": {"model.layers.0.mlp.upproj": 3}}"#,
    )
    .unwrap();
    for (flags, part) in [
        (
            &["--format", "mlx", "--recipe", "slip.json"][..],
            "names `model.layers.0.mlp.upproj`",
        ),
        (
            &["--format", "mlx", "--recipe", "absent.json"],
            "neither one of mixed_2_6, mixed_3_4",
        ),
        (
            &["--format", "mlx", "--recipe", "source/config.json"],
            "`architectures` is no key of it",
        ),
        (
            &["--format", "mlx", "--recipe", "edited.json", "--group-size", "64"],
            "--group-size",
        ),
        (&["--recipe", "mixed_3_6"], "cannot hold --recipe: use --format mlx"),
        (&["--budget", "3"], "cannot hold --budget: use --format mlx"),
        (&["--format", "mlx", "--budget", "9"], "expected 2.500 to 8.500"),
    ] {
        let arguments: Vec<&str> = ["quantize", "source", "--out", "out"]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let message = scratch.fail(&arguments);
        assert!(message.contains(part), "{flags:?}: {message}");
    }
}

#[test]
fn a_budget_is_spent_and_what_was_measured_is_kept() {
    let scratch = Scratch::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    scratch.succeed(&["dequantize", demo, "--out", "source"]);
    let spared = r"layers\.[^7]|self_attn|gate_proj|up_proj=none";
    let flags = |budget, out| {
        let common = [
            "quantize",
            "source",
            "--out",
            out,
            "--format",
            "mlx",
            "--override",
            spared,
        ];
        let budget = [
            "--budget",
            budget,
            "--budget-tokens",
            "40",
            "--sensitivities",
            "measured.json",
        ];
        common.into_iter().chain(budget).collect::<Vec<&str>>()
    };
    scratch.succeed(&flags("2.75", "first"));
    let measured = read_json(&scratch.path("measured.json"));
    let layers = measured["divergence"].as_object().unwrap();
    assert_eq!(layers.len(), 2, "{measured}");
    assert!(
        layers
            .values()
            .all(|widths| widths["2"].as_f64() > Some(0.0) && widths["3"].as_f64() > Some(0.0))
    );
    let before = std::fs::metadata(scratch.path("measured.json"))
        .unwrap()
        .modified()
        .unwrap();
    // Another budget between the same widths measures nothing.
    scratch.succeed(&flags("3.25", "second"));
    let after = std::fs::metadata(scratch.path("measured.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    let about = |name: &str| read_json(&scratch.path(name).join("allocation.json"))["about"].clone();
    for (name, budget) in [("first", 2.75), ("second", 3.25)] {
        let about = about(name);
        assert!(about["bits_per_packed_weight"].as_f64().unwrap() <= budget, "{about}");
        assert!(
            about["measured_on"]
                .as_str()
                .unwrap()
                .contains("40 tokens that it writes itself"),
            "{about}"
        );
    }
}
