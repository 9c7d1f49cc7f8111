//! Checkpoints of other quantizers that cannot be read, with the message that each gives. Good ones are in planish-model's
//! tests/dialects.rs.

use planish_checkpoint::Weight;
use serde_json::{Value, json};

use crate::sample::{Given, Sample, given};

/// A module of GPTQ, 64 inputs, 32 outputs, 4 bits in groups of 32.
fn gptq() -> Vec<Given> {
    vec![
        given("a.qweight", "I32", &[8, 32]),
        given("a.qzeros", "I32", &[2, 4]),
        given("a.scales", "F16", &[2, 32]),
        index(|input| input / 32),
    ]
}

fn index(group_of: impl Fn(i32) -> i32) -> Given {
    Given {
        data: (0..64).flat_map(|input| group_of(input).to_le_bytes()).collect(),
        ..given("a.g_idx", "I32", &[64])
    }
}

#[track_caller]
fn refusal(section: Value, tensors: &[Given]) -> String {
    let sample = Sample::new();
    sample.config(json!({ "quantization_config": section }));
    sample.tensors(tensors);
    sample.refusal()
}

fn section(method: &str) -> Value {
    json!({"quant_method": method, "bits": 4, "group_size": 32})
}

/// With one tensor in place of the one of its name, or without it.
fn with(mut tensors: Vec<Given>, name: &str, other: Option<Given>) -> Vec<Given> {
    tensors.retain(|tensor| tensor.name != name);
    tensors.extend(other);
    tensors
}

#[test]
fn parts_that_are_missing_or_contradict_each_other() {
    let refused = |name: &str, other: Option<Given>| refusal(section("gptq"), &with(gptq(), name, other));
    let shard = "DIR/model.safetensors: tensor";
    assert_eq!(
        refused("a.scales", None),
        format!("{shard} `a.qweight`: has no tensor `a.scales` beside it")
    );
    assert_eq!(
        refused("a.scales", Some(given("a.scales", "F16", &[2, 16]))),
        format!("{shard} `a.scales`: expected shape [2, 32], found [2, 16]")
    );
    assert_eq!(
        refused("a.scales", Some(given("a.scales", "U8", &[2, 32]))),
        format!("{shard} `a.scales`: expected F32 or F16 or BF16, found U8")
    );
    assert_eq!(
        refused("a.qzeros", Some(given("a.qzeros", "I32", &[2, 5]))),
        format!(
            "{shard} `a.qzeros`: expected zero points of 2, 3, 4 or 8 bits for each of the 2 x 32 in `a.scales`, found [2, 5] words"
        )
    );
    assert_eq!(
        refusal(json!({"quant_method": "gptq", "bits": 8, "group_size": 32}), &gptq()),
        format!("{shard} `a.qweight`: has 4 bits in groups of 32, and config.json says 8 bits in groups of 32")
    );
    let twice = with(gptq(), "", Some(given("a.weight", "F16", &[2, 2])));
    assert_eq!(
        refusal(section("gptq"), &twice),
        format!("{shard} `a.weight`: there is a packed weight of the same name")
    );
}

#[test]
fn groups_whose_inputs_are_scattered() {
    let scattered = refusal(
        section("gptq"),
        &with(gptq(), "a.g_idx", Some(index(|input| input % 2))),
    );
    assert!(
        scattered.contains("tensor `a.g_idx`: inputs of one group do not lie side by side (`desc_act`)"),
        "{scattered}"
    );
    let outside = refusal(section("gptq"), &with(gptq(), "a.g_idx", Some(index(|_| 2))));
    assert!(outside.contains("`a.g_idx`"), "{outside}");
}

#[test]
fn layouts_that_are_not_read_are_named() {
    let refused = |section: Value| refusal(section, &gptq());
    let config = "DIR/config.json: `quantization_config";
    let mut marlin = section("gptq");
    marlin["checkpoint_format"] = json!("marlin");
    assert_eq!(
        refused(marlin),
        format!(
            "{config}.checkpoint_format` is \"marlin\", which planish does not read; it reads \"gptq\" and \"gptq_v2\""
        )
    );
    let mut gemv = section("awq");
    gemv["version"] = json!("gemv");
    assert_eq!(
        refused(gemv),
        format!("{config}.version` is \"gemv\", whose order of codes planish does not read; it reads \"gemm\"")
    );
    let packing = json!({"quant_method": "auto-round", "packing_format": "auto_round:fp8_static"});
    assert!(refused(packing).starts_with(&format!("{config}.packing_format` is \"auto_round:fp8_static\"")));
    let format = json!({"quant_method": "compressed-tensors", "format": "marlin-24"});
    assert!(refused(format).starts_with(&format!("{config}.format` is \"marlin-24\"")));
    assert_eq!(
        refusal(section("awq"), &[given("a.weight", "F16", &[8, 8])]),
        "DIR/config.json: says that weights are stored as AWQ, 4 bits, group 32, and no weight is"
    );
}

#[test]
fn zero_points_that_contradict_the_config_are_told_when_read() {
    let sample = Sample::new();
    let symmetric = json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true});
    sample.config(json!({ "quantization_config": symmetric }));
    sample.tensors(&gptq());
    let checkpoint = sample.open();
    let error = checkpoint.read(checkpoint.entry("a.weight").unwrap()).unwrap_err();
    let message = sample.message(&error);
    assert!(
        message.starts_with("DIR: tensor `a.weight`: a product of scale and zero point is "),
        "{message}"
    );
    assert!(message.ends_with("which F16 does not hold exactly"), "{message}");
}

/// Scales of f32 beside zero points: each bias is the product in f32, as the weights are that libraries compute in f32.
#[test]
fn scales_of_f32_have_biases_of_f32() {
    let sample = Sample::new();
    let section = json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false});
    sample.config(json!({ "quantization_config": section }));
    let scales: Vec<f32> = (0..64).map(|index| 0.1 + 0.003 * index as f32).collect();
    let scales_given = Given {
        data: scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
        ..given("a.scales", "F32", &[2, 32])
    };
    // Stored zero points are one less.
    let zero_points = Given {
        data: [0x66; 32].to_vec(),
        ..given("a.qzeros", "I32", &[2, 4])
    };
    let tensors = with(gptq(), "a.scales", Some(scales_given));
    sample.tensors(&with(tensors, "a.qzeros", Some(zero_points)));
    let checkpoint = sample.open();
    let Weight::Packed(matrix) = checkpoint.read(checkpoint.entry("a.weight").unwrap()).unwrap() else {
        panic!("packed")
    };
    let value = |bytes: &[u8], index: usize| f32::from_le_bytes(bytes[4 * index..][..4].try_into().unwrap());
    for row in 0..32 {
        for group in 0..2 {
            let scale = scales[group * 32 + row];
            assert_eq!(value(&matrix.scales, 2 * row + group), scale);
            assert_eq!(value(&matrix.biases, 2 * row + group), -7.0 * scale);
        }
    }
}
