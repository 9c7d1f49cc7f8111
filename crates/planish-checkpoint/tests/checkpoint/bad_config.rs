//! config.json that is none, or says what cannot be.

use serde_json::{Value, json};

use crate::sample::Sample;

#[track_caller]
fn refusal(config: Value) -> String {
    let sample = Sample::new();
    sample.config(config);
    sample.refusal().replace("DIR/config.json: ", "")
}

fn metal(key: &str, value: Value) -> String {
    refusal(json!({"quantization_config": {"quant_method": "metal", key: value}}))
}

fn mlx(key: &str, value: Value) -> String {
    let mut quantization = json!({"bits": 4, "group_size": 64});
    quantization[key] = value;
    refusal(json!({"quantization": quantization}))
}

#[test]
fn no_config() {
    let sample = Sample::new();
    sample.remove("config.json");
    assert_eq!(
        sample.refusal(),
        "DIR/config.json: not found; a Hugging Face model folder has one"
    );
    sample.write("config.json", b"");
    assert_eq!(
        sample.refusal(),
        "DIR/config.json: expected JSON: EOF while parsing a value at line 1 column 0"
    );
    sample.write("config.json", b"\xff");
    assert_eq!(
        sample.refusal(),
        "DIR/config.json: expected JSON: expected value at line 1 column 1"
    );
    sample.write("config.json", b"null");
    assert_eq!(sample.refusal(), "DIR/config.json: expected a JSON object, found null");
    sample.remove("config.json");
    std::fs::create_dir(sample.folder().join("config.json")).unwrap();
    assert_eq!(
        sample.refusal(),
        "DIR/config.json: expected a file, found something else"
    );
}

#[test]
fn deep_json_is_refused() {
    let sample = Sample::new();
    sample.write("config.json", "[".repeat(100_000).as_bytes());
    assert_eq!(
        sample.refusal(),
        "DIR/config.json: expected JSON: recursion limit exceeded at line 1 column 128"
    );
}

#[test]
fn bits() {
    for bits in [0, 3, 7, 33] {
        assert_eq!(
            metal("bits", bits.into()),
            format!("`quantization_config.bits`: expected 2, 4 or 8, found {bits}")
        );
    }
    for bits in [json!(0), json!(1), json!(7), json!(33), json!(4294967300u64)] {
        assert_eq!(
            mlx("bits", bits.clone()),
            format!("`quantization.bits`: expected 2, 3, 4, 5, 6 or 8, found {bits}")
        );
    }
    for bits in [json!(-4), json!(4.5), json!("4")] {
        assert_eq!(
            mlx("bits", bits.clone()),
            format!("`quantization.bits`: expected a positive integer, found {bits}")
        );
    }
}

#[test]
fn groups() {
    for group in [0, 12] {
        let rest = format!("group_size`: expected a positive multiple of 8, found {group}");
        assert_eq!(
            metal("group_size", group.into()),
            format!("`quantization_config.{rest}")
        );
        assert_eq!(mlx("group_size", group.into()), format!("`quantization.{rest}"));
        assert_eq!(
            mlx("a.b", json!({"group_size": group, "bits": 4})),
            format!("`quantization.a.b.{rest}")
        );
    }
}

#[test]
fn modes() {
    assert_eq!(
        mlx("mode", "ternary".into()),
        "`quantization.mode`: expected affine, mxfp4, mxfp8 or nvfp4, found \"ternary\""
    );
    assert_eq!(
        mlx("mode", "mxfp8".into()),
        "`quantization`: expected 8 bits in groups of 32 with mode mxfp8, found 4 bits in groups of 64"
    );
}

#[test]
fn keys() {
    assert_eq!(
        refusal(json!({"quantization": {"bits": 4}})),
        "`quantization` lacks the key `group_size`"
    );
    assert_eq!(
        refusal(json!({"quantization_config": {}})),
        "`quantization_config` lacks the key `bits`"
    );
    assert_eq!(
        refusal(json!({"quantization": 4})),
        "`quantization`: expected an object, found 4"
    );
    assert_eq!(
        metal("modules_to_not_convert", "lm_head".into()),
        "`quantization_config.modules_to_not_convert`: expected a list of names, found \"lm_head\""
    );
    assert_eq!(
        refusal(json!({"text_config": {"quantization_config": {"quant_method": "metal", "bits": 5}}})),
        "`text_config.quantization_config.bits`: expected 2, 4 or 8, found 5"
    );
}

#[test]
fn other_methods_are_named() {
    for method in ["aqlm", "quip", "eetq", "vptq", "quanto"] {
        assert_eq!(
            refusal(json!({"quantization_config": {"quant_method": method, "bits": 4}})),
            format!(
                "`quantization_config.quant_method` is \"{method}\", which planish does not read; \
                 it reads \"metal\" (transformers), MLX, \"auto-round\", \"awq\", \"bitsandbytes\", \"compressed-tensors\", \
                 \"fbgemm_fp8\", \"fp8\", \"gptq\", \"hqq\", \"modelopt\", \"mxfp4\", \"torchao\" and plain checkpoints"
            )
        );
    }
}
