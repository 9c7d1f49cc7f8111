//! Tiny models whose next token is a function of the last one: embeddings are one-hot, the layer adds nothing, the head holds the
//! transitions. So it can be scripted what a model says, and checked what the program makes of it.

use std::collections::HashMap;

use planish_format::FloatType;
use serde_json::{Map, Value, json};

use super::{Plain, Scratch};

/// The letter of a byte in vocabularies of the byte-level kind.
pub fn letter(byte: u8) -> char {
    let is_plain = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match is_plain(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|&byte| !is_plain(byte)).count();
            char::from_u32(256 + before as u32).unwrap()
        }
    }
}

/// A text in that alphabet.
pub fn letters(text: &str) -> String {
    text.bytes().map(letter).collect()
}

/// A scripted model before it is written.
pub struct Scripted {
    pub tokenizer: Value,
    pub tokenizer_config: Value,
    pub generation_config: Value,
    pub config: Value,
    pub template: Option<String>,
    /// From a token to the next, by name.
    pub steps: Vec<(String, String)>,
    /// What follows all others.
    pub default: String,
}

impl Scripted {
    /// A token for each byte, more tokens by their spelling, and special tokens.
    pub fn bytes(extra: &[&str], special: &[&str]) -> Scripted {
        let mut vocabulary: Map<String, Value> = (0..=255u8)
            .map(|byte| (letter(byte).to_string(), json!(byte)))
            .collect();
        for token in extra {
            vocabulary.insert(letters(token), json!(vocabulary.len()));
        }
        let first = vocabulary.len();
        let added = special.iter().enumerate().map(|(index, text)| {
            json!({"id": first + index, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<Value>>(),
            "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": []},
        });
        Scripted {
            tokenizer,
            tokenizer_config: json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false}),
            generation_config: json!({}),
            config: json!({}),
            template: None,
            steps: Vec::new(),
            default: special.last().unwrap().to_string(),
        }
    }

    /// `a` says `b`, `b` says `c`, `c` says `a`, all else the end token `</s>`.
    pub fn circle() -> Scripted {
        let mut model = Scripted::bytes(&[], &["<s>", "</s>"]);
        model.tokenizer_config["eos_token"] = json!("</s>");
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
            model.steps.push((from.to_owned(), to.to_owned()));
        }
        model
    }

    /// After `first` come these tokens, and then `last` for ever.
    pub fn chain(mut self, first: &str, path: &[&str], last: &str) -> Scripted {
        let all: Vec<&str> = [&[first], path, &[last]].concat();
        for pair in all.windows(2) {
            self.steps.push((pair[0].to_owned(), pair[1].to_owned()));
        }
        self
    }

    /// Ids by the spelling of a token, plain or in letters of bytes.
    pub fn ids(&self) -> HashMap<String, usize> {
        let vocabulary = self.tokenizer["model"]["vocab"].as_object().unwrap();
        let mut ids: HashMap<String, usize> = vocabulary
            .iter()
            .map(|(text, id)| (text.clone(), id.as_u64().unwrap() as usize))
            .collect();
        for token in self.tokenizer["added_tokens"].as_array().unwrap() {
            let text = token["content"].as_str().unwrap().to_owned();
            ids.insert(text, token["id"].as_u64().unwrap() as usize);
        }
        ids
    }

    pub fn id(&self, token: &str) -> usize {
        let ids = self.ids();
        *ids.get(token)
            .or_else(|| ids.get(&letters(token)))
            .unwrap_or_else(|| panic!("no token {token:?}"))
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> Vec<Plain> {
        let vocabulary = self.ids().values().max().unwrap() + 1;
        let hidden = vocabulary.next_multiple_of(64);
        let mut embedding = vec![0.0; vocabulary * hidden];
        let mut head = vec![0.0; vocabulary * hidden];
        let mut next = vec![self.id(&self.default); vocabulary];
        for (from, to) in &self.steps {
            next[self.id(from)] = self.id(to);
        }
        for token in 0..vocabulary {
            embedding[token * hidden + token] = 1.0;
            head[next[token] * hidden + token] = 1.0;
        }
        let plain = |name: &str, shape: &[usize], values: Vec<f32>| Plain {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        };
        let mut tensors = vec![
            plain("model.embed_tokens.weight", &[vocabulary, hidden], embedding),
            plain("lm_head.weight", &[vocabulary, hidden], head),
            plain("model.norm.weight", &[hidden], vec![1.0; hidden]),
        ];
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push(plain(
                &format!("model.layers.0.{norm}.weight"),
                &[hidden],
                vec![1.0; hidden],
            ));
        }
        for (name, rows, cols) in [
            ("self_attn.q_proj", 64, hidden),
            ("self_attn.k_proj", 64, hidden),
            ("self_attn.v_proj", 64, hidden),
            ("self_attn.o_proj", hidden, 64),
            ("mlp.gate_proj", 64, hidden),
            ("mlp.up_proj", 64, hidden),
            ("mlp.down_proj", hidden, 64),
        ] {
            let name = format!("model.layers.0.{name}.weight");
            tensors.push(plain(&name, &[rows, cols], vec![0.0; rows * cols]));
        }
        tensors
    }

    /// Writes the folder `name`.
    pub fn write(&self, scratch: &Scratch, name: &str) {
        let tensors = self.tensors();
        let [vocabulary, hidden] = tensors[0].shape[..] else {
            unreachable!()
        };
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "vocab_size": vocabulary,
            "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": "float32",
        });
        for (key, value) in self.config.as_object().unwrap() {
            config[key] = value.clone();
        }
        // A folder of the last script.
        let _ = std::fs::remove_dir_all(scratch.path(name));
        scratch.write(name, &config, FloatType::F32, &tensors);
        for (file, content) in [
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.tokenizer_config),
            ("generation_config.json", &self.generation_config),
        ] {
            std::fs::write(scratch.path(name).join(file), content.to_string()).unwrap();
        }
        if let Some(template) = &self.template {
            std::fs::write(scratch.path(name).join("chat_template.jinja"), template).unwrap();
        }
    }
}
