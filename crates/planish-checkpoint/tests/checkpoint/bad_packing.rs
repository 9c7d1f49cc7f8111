//! Packed tensors that contradict each other or config.json.

use serde_json::{Value, json};

use crate::sample::{Given, Sample, given, packed};

#[track_caller]
fn refusal(config: Value, tensors: &[Given]) -> String {
    let sample = Sample::new();
    sample.config(config);
    sample.tensors(tensors);
    sample.refusal()
}

fn mlx(bits: u32, group: usize) -> Value {
    json!({"quantization": {"bits": bits, "group_size": group}})
}

#[test]
fn widths() {
    // 64 columns: 8 words at 4 bits.
    assert_eq!(
        refusal(mlx(8, 32), &packed("a", "biases", [2, 64], [4, 32])),
        "DIR/model.safetensors: tensor `a.weight`: expected 16 words in a row (2 groups in `a.scales`, and config.json says \
         8 bits in groups of 32), found 8"
    );
    assert_eq!(
        refusal(mlx(4, 64), &packed("a", "biases", [2, 64], [4, 32])),
        "DIR/model.safetensors: tensor `a.weight`: expected 16 words in a row (2 groups in `a.scales`, and config.json says \
         4 bits in groups of 64), found 8"
    );
    // 8 columns at 3 bits are 24 bits: no whole word.
    assert_eq!(
        refusal(
            mlx(3, 8),
            &[
                given("a.weight", "U32", &[1, 0]),
                given("a.scales", "F16", &[1, 1]),
                given("a.biases", "F16", &[1, 1]),
            ]
        ),
        "DIR/model.safetensors: tensor `a.weight`: a row of 8 codes of 3 bits does not fill whole 32-bit words"
    );
}

#[test]
fn shapes_of_the_parts() {
    let parts = |weight: &[usize], scales: &[usize], biases: &[usize]| {
        [
            given("a.weight", "U32", weight),
            given("a.scales", "F16", scales),
            given("a.biases", "F16", biases),
        ]
    };
    assert_eq!(
        refusal(mlx(4, 32), &parts(&[2, 8], &[3, 2], &[3, 2])),
        "DIR/model.safetensors: tensor `a.scales`: expected shape [.., rows, cols / 32] with the rows of `a.weight` [2, 8], \
         found [3, 2]"
    );
    assert_eq!(
        refusal(mlx(4, 32), &parts(&[2, 8], &[2, 2], &[2, 1])),
        "DIR/model.safetensors: tensor `a.biases`: expected F16 [2, 2] as `a.scales`, found F16 [2, 1]"
    );
    assert_eq!(
        refusal(mlx(4, 32), &parts(&[8], &[2], &[2])),
        "DIR/model.safetensors: tensor `a.weight`: expected at least 2 sizes, found [8]"
    );
    assert_eq!(
        refusal(mlx(4, 32), &parts(&[], &[], &[])),
        "DIR/model.safetensors: tensor `a.weight`: expected at least 2 sizes, found []"
    );
    let huge = usize::MAX / 8;
    assert_eq!(
        refusal(mlx(4, 32), &parts(&[0, 8], &[0, huge], &[0, huge])),
        format!(
            "DIR/model.safetensors: tensor `a.weight`: expected fewer words in a row ({huge} groups in `a.scales`, and \
             config.json says 4 bits in groups of 32), found 8"
        )
    );
}

#[test]
fn types_of_the_parts() {
    let parts = |weight, scales, biases| {
        [
            given("a.weight", weight, &[2, 8]),
            given("a.scales", scales, &[2, 2]),
            given("a.biases", biases, &[2, 2]),
        ]
    };
    assert_eq!(
        refusal(mlx(4, 32), &parts("F32", "F16", "F16")),
        "DIR/model.safetensors: tensor `a.weight`: expected U32 words, because there is a tensor `a.scales`; found F32"
    );
    assert_eq!(
        refusal(mlx(4, 32), &parts("U32", "U8", "U8")),
        "DIR/model.safetensors: tensor `a.scales`: expected F32, F16 or BF16, found U8"
    );
    assert_eq!(
        refusal(mlx(4, 32), &parts("U32", "F16", "BF16")),
        "DIR/model.safetensors: tensor `a.biases`: expected F16 [2, 2] as `a.scales`, found BF16 [2, 2]"
    );
}

#[test]
fn missing_parts() {
    let metal = json!({"quantization_config": {"quant_method": "metal", "group_size": 32}});
    assert_eq!(
        refusal(metal.clone(), &packed("a", "biases", [2, 64], [4, 32])),
        "DIR/model.safetensors: tensor `a.scales` has no tensor `a.qbiases` beside it; found `a.biases`, \
         a name of the other dialect: correct config.json"
    );
    assert_eq!(
        refusal(metal, &packed("a", "qbiases", [2, 64], [4, 32])[..1]),
        "DIR/model.safetensors: tensor `a.weight` is packed, but there is no tensor `a.scales`"
    );
    assert_eq!(
        refusal(mlx(4, 32), &packed("a", "biases", [2, 64], [4, 32])[..2]),
        "DIR/model.safetensors: tensor `a.scales` has no tensor `a.biases` beside it"
    );
    assert_eq!(
        refusal(
            json!({"quantization": {"bits": 4, "group_size": 32, "a": {"bits": 8, "group_size": 32}}}),
            &[given("a.weight", "F16", &[2, 64])]
        ),
        "DIR/model.safetensors: tensor `a.weight` is packed, but there is no tensor `a.scales`"
    );
}

#[test]
fn packed_but_said_to_be_plain() {
    let tensors = packed("a", "biases", [2, 64], [4, 32]);
    assert_eq!(
        refusal(
            json!({"quantization": {"bits": 4, "group_size": 32, "a": false}}),
            &tensors
        ),
        "DIR/config.json: `quantization` says that `a` is plain (false), but tensor `a.weight` is packed: U32 with `a.scales`"
    );
    assert_eq!(
        refusal(json!({}), &tensors),
        "DIR/config.json: it has no `quantization_config` or `quantization` that says so, but tensor `a.weight` is packed: \
         U32 with `a.scales`"
    );
}
