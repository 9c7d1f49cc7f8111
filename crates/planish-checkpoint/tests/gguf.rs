//! GGUF files against gguf-py, transformers, the tokenizers library and SentencePiece, whose results
//! scripts/golden/gguf_types.py recorded in golden/gguf/expected.json.

use std::path::{Path, PathBuf};

use planish_checkpoint::{Checkpoint, Layout, Weight};
use planish_format::{FloatType, dequantize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/gguf")
        .join(name)
}

fn expected(file: &str) -> Value {
    let text = std::fs::read(golden("expected.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()[file].clone()
}

/// All weights as f32, negative zeros made positive. // (rows, cols)
fn as_f32(weight: &Weight) -> Vec<f32> {
    let (float_type, bytes) = match weight {
        Weight::Plain(tensor) => (tensor.dtype.float_type().unwrap(), tensor.data.to_vec()),
        Weight::Packed(matrix) => (FloatType::F32, dequantize(matrix, FloatType::F32)),
    };
    let mut values = vec![0.0; bytes.len() / float_type.size_bytes()];
    float_type.decode(&bytes, &mut values);
    values.iter_mut().for_each(|value| *value += 0.0);
    values
}

/// Names, shapes, layouts, row order and every value of a file.
fn check_weights(file: &str) {
    let checkpoint = Checkpoint::open(&golden(file)).unwrap();
    let expected = expected(&file.replace("-00001-of-00003", ""));
    let tensors = expected["tensors"].as_object().unwrap();
    assert_eq!(checkpoint.entries().len(), tensors.len());
    for (name, tensor) in tensors {
        let entry = checkpoint.entry(name).unwrap_or_else(|| panic!("no entry {name}"));
        assert_eq!(json!(entry.shape), tensor["shape"], "{name}");
        let weight = checkpoint.read(entry).unwrap();
        let as_listed = match (&weight, &entry.layout) {
            (Weight::Plain(read), Layout::Plain(dtype)) => read.dtype == *dtype && read.shape == entry.shape,
            (Weight::Packed(read), Layout::Packed { packing, scale_type }) => {
                read.packing == *packing
                    && read.scale_type == *scale_type
                    && (read.rows, read.cols) == entry.rows_cols()
            }
            _ => false,
        };
        assert!(as_listed, "{name}: read as {weight:?}, listed as {:?}", entry.layout);
        let values = as_f32(&weight);
        let first: Vec<f32> = serde_json::from_value(tensor["first"].clone()).unwrap();
        let kind = &tensor["type"];
        assert_eq!(values[..4], first, "{name} {kind}");
        let digest = Sha256::digest(bytemuck::cast_slice(&values));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digest,
            tensor["sha256"].as_str().unwrap(),
            "{name} {kind}: values differ after the first four"
        );
        checkpoint.release(entry);
    }
}

#[test]
fn every_tensor_type_gives_the_values_of_gguf_py() {
    check_weights("types.gguf");
}

#[test]
fn codes_of_tables_and_three_values_give_the_values_of_gguf_py() {
    check_weights("coded-00001-of-00003.gguf");
}

/// Copies of some of the parts of a split model, with their names.
fn parts(names: &[(usize, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (part, name) in names {
        let from = golden(&format!("coded-{part:05}-of-00003.gguf"));
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let first = folder.path().join(names[0].1);
    (folder, first)
}

#[test]
fn parts_that_are_missing_or_mixed_up_are_named() {
    let [first, second, third] = [1, 2, 3].map(|part| {
        (
            part,
            [
                "a-00001-of-00003.gguf",
                "a-00002-of-00003.gguf",
                "a-00003-of-00003.gguf",
            ][part - 1],
        )
    });
    for (names, expected) in [
        (
            &[first, second][..],
            "a-00003-of-00003.gguf: not found; part 3 of 3 of a split model",
        ),
        (
            &[second, first, third],
            "a-00002-of-00003.gguf: part 2 of 3 of a split model: give the first",
        ),
        (
            &[(1, "model.gguf"), second, third],
            "expected a name that ends in -00001-of-00003.gguf",
        ),
        (
            &[first, (3, second.1), third],
            "a-00002-of-00003.gguf: expected part 2 of 3, found part 3 of 3",
        ),
    ] {
        let (_folder, path) = parts(names);
        let error = Checkpoint::open(&path).err().unwrap().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn version_2_and_another_alignment_are_read() {
    check_weights("sentencepiece.gguf");
}

#[test]
fn an_architecture_without_a_tokenizer() {
    check_weights("qwen3.gguf");
    let checkpoint = Checkpoint::open(&golden("qwen3.gguf")).unwrap();
    let config = checkpoint.config();
    let scaling = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024 });
    assert_eq!(
        (&config["model_type"], &config["rope_scaling"]),
        (&json!("qwen3"), &scaling)
    );
    assert_eq!(
        (&config["torch_dtype"], &config["eos_token_id"]),
        (&json!("bfloat16"), &Value::Null)
    );
    assert_eq!(config.get("attention_bias"), None);
    assert!(checkpoint.files().is_empty());
    assert_eq!(checkpoint.file("tokenizer.json").unwrap(), None);
}

#[test]
fn the_parts_of_a_packed_weight_are_tensors() {
    let checkpoint = Checkpoint::open(&golden("types.gguf")).unwrap();
    let module = "model.layers.0.self_attn.q_proj";
    let Weight::Packed(matrix) = checkpoint
        .read(checkpoint.entry(&format!("{module}.weight")).unwrap())
        .unwrap()
    else {
        panic!("{module} is not packed");
    };
    assert_eq!(
        checkpoint.tensor(&format!("{module}.weight")).unwrap().data,
        matrix.codes
    );
    assert_eq!(
        checkpoint.tensor(&format!("{module}.scales")).unwrap().data,
        matrix.scales
    );
    let biases = checkpoint.tensor(&format!("{module}.biases")).unwrap();
    assert_eq!((biases.data, biases.shape), (matrix.biases, vec![32, 8]));
    assert!(checkpoint.tensor("model.norm.scales").is_err());
}

#[test]
fn the_config_is_that_of_a_hugging_face_folder() {
    let checkpoint = Checkpoint::open(&golden("types.gguf")).unwrap();
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 340, "hidden_size": 256,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": false, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2, "torch_dtype": "float32", "use_cache": true,
    });
    assert_eq!(Value::Object(checkpoint.config().clone()), expected);

    let checkpoint = Checkpoint::open(&golden("sentencepiece.gguf")).unwrap();
    let scaling = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let config = checkpoint.config();
    assert_eq!(
        (&config["rope_scaling"], &config["rms_norm_eps"]),
        (&scaling, &json!(1e-6))
    );
    assert_eq!(
        (&config["tie_word_embeddings"], &config["torch_dtype"]),
        (&json!(false), &json!("float16"))
    );
    assert_eq!(
        (&config["head_dim"], &config["num_key_value_heads"]),
        (&json!(16), &json!(2))
    );
}

fn json_file(checkpoint: &Checkpoint, name: &str) -> Value {
    let content = checkpoint.file(name).unwrap().unwrap_or_else(|| panic!("no {name}"));
    serde_json::from_slice(&content).unwrap()
}

#[test]
fn tokenizers_give_the_recorded_ids() {
    for file in ["types.gguf", "sentencepiece.gguf"] {
        let checkpoint = Checkpoint::open(&golden(file)).unwrap();
        let content = checkpoint.file("tokenizer.json").unwrap().unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(&content).unwrap();
        let expected = expected(&file.replace("-00001-of-00003", ""));
        for case in expected["encoded"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(json!(encoding.get_ids()), case["ids"], "{file}: {text:?}");
            assert_eq!(
                tokenizer.decode(encoding.get_ids(), true).unwrap(),
                without_control(text),
                "{file}"
            );
        }
        assert_eq!(json!(tokenizer.get_vocab_size(true)), expected["tokens"]);
    }
}

fn without_control(text: &str) -> String {
    text.replace("<|im_start|>", "").replace("<|im_end|>", "")
}

#[test]
fn settings_name_special_tokens_and_ends() {
    let checkpoint = Checkpoint::open(&golden("types.gguf")).unwrap();
    assert_eq!(
        checkpoint.files(),
        ["generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    );
    let settings = json_file(&checkpoint, "tokenizer_config.json");
    assert_eq!(
        (&settings["bos_token"], &settings["eos_token"]),
        (&json!("<|im_start|>"), &json!("<|im_end|>"))
    );
    assert_eq!(
        (&settings["unk_token"], &settings["add_bos_token"]),
        (&json!("<|endoftext|>"), &json!(false))
    );
    assert!(
        settings["chat_template"]
            .as_str()
            .unwrap()
            .starts_with("{% for m in messages %}<|im_start|>")
    );
    assert_eq!(settings["added_tokens_decoder"]["1"]["content"], "<|im_start|>");
    let generation = json_file(&checkpoint, "generation_config.json");
    assert_eq!(
        generation,
        json!({ "bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2 })
    );

    let checkpoint = Checkpoint::open(&golden("sentencepiece.gguf")).unwrap();
    let settings = json_file(&checkpoint, "tokenizer_config.json");
    assert_eq!(
        (&settings["bos_token"], &settings["add_bos_token"]),
        (&json!("<s>"), &json!(true))
    );
    assert_eq!(
        json_file(&checkpoint, "generation_config.json"),
        json!({ "bos_token_id": 1, "eos_token_id": 2 })
    );
    assert_eq!(checkpoint.file("nothing.json").unwrap(), None);
    assert_eq!(
        json_file(&checkpoint, "config.json"),
        Value::Object(checkpoint.config().clone())
    );
}
