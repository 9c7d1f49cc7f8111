//! The library's front door with the tiny model, against transformers' generate(); `MetalConfig` against transformers'.

use std::ops::ControlFlow;
use std::path::Path;

use planish::{AutoModelForCausalLM, AutoTokenizer, Device, Error, GenerationConfig, Message, MetalConfig, Step};
use serde_json::{Value, json};

fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/tiny")
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn text_goes_in_and_comes_out_as_in_transformers() {
    let golden = std::fs::read_to_string(Path::new(&tiny()).join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let model = AutoModelForCausalLM::from_pretrained(tiny())
        .device(Device::auto())
        .exact(true)
        .load()
        .unwrap();
    let tokenizer = AutoTokenizer::from_pretrained(tiny()).unwrap();
    let options = GenerationConfig {
        max_new_tokens: 40,
        ..GenerationConfig::default()
    };
    for case in golden["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["repetition_penalty"] == 1.0)
    {
        let prompt = case["prompt"].as_str().unwrap();
        let ids = match case["raw"] == true {
            true => tokenizer.encode(prompt).unwrap(),
            false => tokenizer.apply_chat_template(&[Message::new("user", prompt)]).unwrap(),
        };
        let output = model.generate(&ids, &options).unwrap();
        assert_eq!(output[..ids.len()], ids);
        assert_eq!(
            tokenizer.decode(&output[ids.len()..]).unwrap(),
            case["text"].as_str().unwrap()
        );
    }
}

#[test]
fn the_receiver_of_the_steps_may_break_off() {
    let model = AutoModelForCausalLM::from_pretrained(tiny()).load().unwrap();
    let options = GenerationConfig {
        eos_token_id: Some(vec![]),
        ..GenerationConfig::default()
    };
    let mut left = 3;
    let answer = model.generate_with(&[5, 6], &options, &mut |step| {
        left -= i32::from(matches!(step, Step::Token(_)));
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(answer.unwrap().tokens.len(), 3);
}

#[test]
fn a_full_context_ends_the_answer_and_a_longer_prompt_is_refused() {
    let model = AutoModelForCausalLM::from_pretrained(tiny()).load().unwrap();
    let options = GenerationConfig {
        max_new_tokens: 50,
        eos_token_id: Some(vec![]),
        ..GenerationConfig::default()
    };
    let answer = model
        .generate_with(&[7; 510], &options, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(answer.finish, planish::Finish::ContextFull);
    assert_eq!(answer.tokens.len(), 3);
    let error = model.generate(&[7; 513], &options).unwrap_err().to_string();
    assert_eq!(
        error,
        "the prompt has 513 tokens, but the model's context holds 512: shorten the prompt"
    );
    let error = model.generate(&[406], &options).unwrap_err().to_string();
    assert!(
        error.starts_with("token 406 is outside the model's vocabulary of 406 tokens"),
        "{error}"
    );
}

#[test]
fn loading_can_quantize_and_names_what_it_cannot_do() {
    let load = |config: MetalConfig| {
        AutoModelForCausalLM::from_pretrained(tiny())
            .quantization(config)
            .load()
    };
    load(MetalConfig {
        group_size: 32,
        ..MetalConfig::default()
    })
    .unwrap();
    let listed = MetalConfig {
        modules_to_not_convert: Some(vec!["lm_head".into()]),
        ..MetalConfig::default()
    };
    load(MetalConfig {
        group_size: 32,
        ..listed
    })
    .unwrap();
    let refused = |config: MetalConfig| load(config).err().unwrap().to_string();
    assert_eq!(
        refused(MetalConfig {
            bits: 3,
            ..MetalConfig::default()
        }),
        "bits is 3, expected 2, 4 or 8"
    );
    let uneven = MetalConfig {
        group_size: 12,
        ..MetalConfig::default()
    };
    assert_eq!(refused(uneven), "group_size is 12, expected a multiple of 8");
    let absent = AutoModelForCausalLM::from_pretrained(tiny())
        .device(Device::Metal)
        .load()
        .err()
        .unwrap()
        .to_string();
    assert!(absent.contains("metal"), "{absent}");
}

/// Made by transformers 5.23.0: `MetalConfig(**arguments).to_dict()` through `json.dumps`, and `to_json_string()`.
const DICTS: [(&str, &str, &str); 2] = [
    (
        "{}",
        r#"{"quant_method":"metal","bits":4,"group_size":64,"modules_to_not_convert":null}"#,
        "{\n  \"bits\": 4,\n  \"group_size\": 64,\n  \"modules_to_not_convert\": null,\n  \"quant_method\": \"metal\"\n}\n",
    ),
    (
        r#"{"bits": 8, "group_size": 32, "modules_to_not_convert": ["lm_head", "model.layers.0"], "dequantize": true, "other": 1}"#,
        r#"{"quant_method":"metal","bits":8,"group_size":32,"modules_to_not_convert":["lm_head","model.layers.0"]}"#,
        "{\n  \"bits\": 8,\n  \"group_size\": 32,\n  \"modules_to_not_convert\": [\n    \"lm_head\",\n    \"model.layers.0\"\n  ],\n  \"quant_method\": \"metal\"\n}\n",
    ),
];

#[test]
fn metal_config_reads_and_writes_as_transformers_does() {
    for (arguments, dict, text) in DICTS {
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let config = MetalConfig::from_dict(arguments.as_object().unwrap()).unwrap();
        assert_eq!(Value::from(config.to_dict()).to_string(), dict);
        assert_eq!(config.to_json_string(), text);
        let again = MetalConfig::from_dict(&config.to_dict()).unwrap();
        assert_eq!(
            again,
            MetalConfig {
                dequantize: false,
                ..config
            }
        );
    }
    let refused = |dict: Value| match MetalConfig::from_dict(dict.as_object().unwrap()) {
        Err(Error::Config { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(json!({"bits": 33})), "bits");
    assert_eq!(refused(json!({"bits": "4"})), "bits");
    assert_eq!(refused(json!({"group_size": 0})), "group_size");
    assert_eq!(refused(json!({"group_size": -64})), "group_size");
    assert_eq!(
        refused(json!({"modules_to_not_convert": [1]})),
        "modules_to_not_convert"
    );
    assert_eq!(refused(json!({"quant_method": "awq"})), "quant_method");
}
