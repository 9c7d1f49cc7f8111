//! The golden models as files in memory, and random changes of them.

use std::path::Path;

use serde_json::json;

use crate::mutate::{Random, change, change_bytes, change_words};

/// Below planish-model/tests.
const FOLDERS: [&str; 27] = [
    "golden/llama_tied/plain",
    "golden/llama_tied/metal",
    "golden/llama_yarn/plain",
    "golden/qwen3/metal",
    "golden/qwen3_moe/plain",
    "golden/mixtral/metal",
    "golden/gemma2_caps/plain",
    "golden/gemma3/plain",
    "golden/gpt2/metal",
    "golden/gpt_oss/plain",
    "golden/deepseek_v3/plain",
    "golden/falcon_h1/plain",
    "golden/granitemoehybrid/plain",
    "golden/lfm2/plain",
    "golden/minicpm_longrope/plain",
    "golden/opt/plain",
    "golden/phi3/plain",
    "golden/qwen3_next/plain",
    "golden_mlx/gpt2",
    "golden_mlx/mixtral",
    "golden_mlx/qwen3_next",
    "golden_mxfp4/gpt_oss",
    "golden_gguf/llama_tied.gguf",
    "golden_gguf/gpt2.gguf",
    "golden_gguf/mixtral_no_window.gguf",
    "golden_gguf/gemma2_by_head.gguf",
    "golden_gguf/phi3_long_factors.gguf",
];

const WEIGHTS: &str = "model.safetensors";
const GGUF: &str = "model.gguf";

/// The files of a model.
#[derive(Clone)]
pub struct Model {
    pub name: &'static str,
    /// What the program is given.
    pub path: &'static str,
    files: Vec<(String, Vec<u8>)>,
}

pub fn models(golden: &Path) -> Vec<Model> {
    FOLDERS.iter().map(|name| Model::read(golden, name)).collect()
}

impl Model {
    fn read(golden: &Path, name: &'static str) -> Model {
        let path = golden.join(name);
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if path.extension().is_some() {
            let files = vec![(GGUF.to_owned(), read(&path))];
            let path = "model/model.gguf";
            return Model { name, path, files };
        }
        let mut files = vec![
            ("config.json".to_owned(), read(&path.join("config.json"))),
            (WEIGHTS.to_owned(), read(&path.join(WEIGHTS))),
        ];
        let texts = texts()
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.into_bytes()));
        files.extend(texts);
        let path = "model";
        Model { name, path, files }
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, data)| data.len() as u64).sum()
    }

    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for (name, data) in &self.files {
            std::fs::write(folder.join(name), data).unwrap();
        }
    }

    /// One change, seldom more.
    pub fn change(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(6) / 5 {
            match self.path.ends_with(GGUF) {
                true => change_gguf(&mut self.files[0].1, random),
                false => self.change_folder(random),
            }
        }
    }

    fn change_folder(&mut self, random: &mut Random) {
        match random.below(20) {
            0..7 => change_words(self.file("config.json"), random),
            7..11 => change_header(self.file(WEIGHTS), random),
            11..13 => change_values(self.file(WEIGHTS), random),
            13 => change_bytes(self.file(WEIGHTS), random),
            14 => change(self.file("tokenizer.json"), random),
            15 => change(self.file("chat_template.jinja"), random),
            16 => change_words(self.file("generation_config.json"), random),
            17 => change_words(self.file("tokenizer_config.json"), random),
            18 => {
                let index = random.below(self.files.len());
                let other = random.below(self.files.len());
                self.files[index].1 = self.files[other].1.clone();
            }
            _ => {
                let index = random.below(self.files.len());
                self.files.remove(index);
            }
        }
    }

    /// A file's content; that of another where it was removed.
    fn file(&mut self, name: &str) -> &mut Vec<u8> {
        let index = self.files.iter().position(|(file, _)| file == name).unwrap_or(0);
        &mut self.files[index].1
    }
}

/// The length of the header, if it is one.
fn header_length(file: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(file.get(..8)?.try_into().ok()?) as usize;
    (length <= file.len() - 8).then_some(length)
}

/// Another header, with the length that fits it.
fn change_header(file: &mut Vec<u8>, random: &mut Random) {
    let Some(length) = header_length(file) else {
        return change_bytes(file, random);
    };
    let mut header = file[8..8 + length].to_vec();
    change_words(&mut header, random);
    header.resize(header.len().next_multiple_of(8), b' ');
    let new = [&(header.len() as u64).to_le_bytes(), &header[..], &file[8 + length..]].concat();
    *file = new;
}

/// Numbers that are huge, tiny, infinite or none, as far as 16 or 32 bits of them fit what is there.
fn change_values(file: &mut [u8], random: &mut Random) {
    let start = header_length(file).map_or(0, |length| 8 + length);
    let words: [u32; 8] = [
        0x7f80_0000,
        0x7fc0_0000,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x0000_0001,
        0x7bff_7bff,
        0x7c00_7c00,
        0xffff_ffff,
    ];
    let word = words[random.below(words.len())];
    for _ in 0..1 + random.below(4) {
        let Some(room) = (file.len() - start).checked_sub(4).filter(|room| *room > 0) else {
            return;
        };
        let at = start + random.below(room) / 4 * 4;
        let count = 1 + random.below(64);
        for chunk in file[at..].chunks_exact_mut(4).take(count) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Mostly of the metadata, which comes first.
fn change_gguf(file: &mut Vec<u8>, random: &mut Random) {
    if random.below(8) == 0 {
        return change_bytes(file, random);
    }
    let length = file.len().min(8192);
    let mut first: Vec<u8> = file[..length].to_vec();
    match random.below(4) {
        0 => change(&mut first, random),
        _ => {
            // Nothing moves: the rest stays readable.
            let at = random.below(length);
            match random.below(3) {
                0 => first[at] ^= 1 << random.below(8),
                1 => first[at] = random.next() as u8,
                _ => {
                    let bytes = (random.next() >> random.below(64)).to_le_bytes();
                    let size = bytes.len().min(length - at);
                    first[at..at + size].copy_from_slice(&bytes[..size]);
                }
            }
        }
    }
    file.splice(..length, first);
}

/// A tokenizer of a few words, a template, and what belongs to them.
fn texts() -> Vec<(&'static str, String)> {
    let words = ["<unk>", "a", "b", "c", "d", "e", "<s>", "</s>"];
    let vocabulary: serde_json::Map<_, _> = words
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let added = |id: usize| json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(6), added(7)], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": {"7": added(7)}, "model_max_length": 64});
    let generation = json!({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "eos_token_id": [7], "repetition_penalty": 1.1,
        "max_length": 40, "no_repeat_ngram_size": 3, "suppress_tokens": [5], "bad_words_ids": [[4], [1, 2]]});
    let template = "{{ bos_token }}{% for message in messages %}{{ message['role'] }} {{ message.content | trim }}{% if not loop.last %}\n\
                    {% endif %}{% endfor %}{% if add_generation_prompt %} a{% endif %}";
    vec![
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", config.to_string()),
        ("generation_config.json", generation.to_string()),
        ("chat_template.jinja", template.to_owned()),
    ]
}
