//! Small checkpoints on disk and the program to run on them.
#![allow(dead_code)] // each test file uses its part

pub mod scripted;

use std::path::{Path, PathBuf};
use std::process::Output;

use planish_checkpoint::{Checkpoint, Planned, Writer, WriterOptions};
use planish_format::FloatType;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder for one test; the checkpoints lie inside.
pub struct Scratch {
    pub folder: TempDir,
}

/// A plain tensor for a fixture.
pub struct Plain {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch {
            folder: TempDir::new().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What lies in the folder, hidden names included.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs `planish` with the folder as current directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("planish"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs `planish`, which must succeed; returns standard error.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?}\n{stderr}", output.status);
        stderr
    }

    /// Runs `planish`, which must explain itself with exit code 1, and leave nothing behind; returns the message.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let before = self.names();
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let messages: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(messages.len(), 1, "one clear message, not: {stderr}");
        assert_eq!(self.names(), before, "something was left behind");
        messages[0].to_owned()
    }

    /// Writes a plain checkpoint.
    pub fn write(&self, name: &str, config: &Value, float_type: FloatType, tensors: &[Plain]) {
        let dtype = float_type.into();
        let plan = tensors.iter().map(|tensor| Planned {
            name: tensor.name.clone(),
            dtype,
            shape: tensor.shape.clone(),
        });
        let mut writer = Writer::create(&self.path(name), plan.collect(), &WriterOptions::default()).unwrap();
        for tensor in tensors {
            let mut bytes = vec![0; tensor.values.len() * float_type.size_bytes()];
            float_type.encode(&tensor.values, &mut bytes);
            writer.write(&tensor.name, &bytes).unwrap();
        }
        writer.add_file("config.json", config.to_string().as_bytes()).unwrap();
        writer.add_file("tokenizer.json", b"{\"any\": \"thing\"}").unwrap();
        writer
            .add_file("README.md", b"---\nlicense: mit\ntags:\n- chat\n---\nA small model.\n")
            .unwrap();
        writer.finish().unwrap();
    }

    /// A llama of two layers with tied embeddings; `down_proj` has 96 columns, which 64 does not divide.
    pub fn llama(&self, name: &str) {
        self.write(name, &llama_config(), FloatType::BF16, &llama_tensors());
    }

    pub fn open(&self, name: &str) -> Checkpoint {
        Checkpoint::open(&self.path(name)).unwrap()
    }

    pub fn config(&self, name: &str) -> Value {
        read_json(&self.path(name).join("config.json"))
    }

    /// Changes a checkpoint's config.json.
    pub fn edit_config(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path(name).join("config.json");
        let mut config = read_json(&path);
        edit(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
    })
}

pub fn llama_tensors() -> Vec<Plain> {
    let mut seed = 1;
    let mut tensors = vec![plain("model.embed_tokens.weight", &[128, 64], &mut seed)];
    for layer in 0..2 {
        let mut add = |part: &str, shape: &[usize]| {
            tensors.push(plain(&format!("model.layers.{layer}.{part}.weight"), shape, &mut seed));
        };
        add("input_layernorm", &[64]);
        add("post_attention_layernorm", &[64]);
        add("self_attn.q_proj", &[64, 64]);
        add("self_attn.k_proj", &[32, 64]);
        add("self_attn.v_proj", &[32, 64]);
        add("self_attn.o_proj", &[64, 64]);
        add("mlp.gate_proj", &[96, 64]);
        add("mlp.up_proj", &[96, 64]);
        add("mlp.down_proj", &[64, 96]);
    }
    tensors.push(plain("model.norm.weight", &[64], &mut seed));
    tensors
}

/// A tensor of reproducible noise in -1..1.
pub fn plain(name: &str, shape: &[usize], seed: &mut u64) -> Plain {
    let mut value = || {
        // Knuth's linear congruential generator; the upper bits are good enough for weights.
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    Plain {
        name: name.to_owned(),
        shape: shape.to_vec(),
        values: (0..shape.iter().product()).map(|_| value()).collect(),
    }
}

/// A safetensors file of any header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
