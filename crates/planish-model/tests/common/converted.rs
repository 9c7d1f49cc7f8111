//! GGUF files as llama.cpp's converter makes them, by the recipes of scripts/golden/gguf_converted.py, which says what they mean.

use planish_checkpoint::{Checkpoint, Error, Weight, cast};
use planish_format::FloatType;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::common::folder;

/// A checkpoint of tests/golden and what becomes of it.
pub struct Case {
    /// The name of its folder.
    pub name: String,
    recipe: Value,
}

/// Every recipe.
pub fn cases() -> Vec<Case> {
    let text = std::fs::read(folder("../golden_converted/recipes.json")).unwrap();
    let recipes: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    let case = |(name, recipe)| Case { name, recipe };
    recipes.into_iter().map(case).collect()
}

/// Rows of a matrix.
struct Matrix {
    cols: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    /// Each block of rows transposed.
    fn transposed(&self, block: usize) -> Matrix {
        let blocks = self.values.chunks(block * self.cols);
        let columns = |values: &[f32]| -> Vec<f32> {
            let column = |col: usize| values.iter().skip(col).step_by(self.cols).copied();
            (0..self.cols).flat_map(column).collect()
        };
        Matrix {
            cols: block,
            values: blocks.flat_map(columns).collect(),
        }
    }

    fn taken(&self, runs: &str) -> Matrix {
        let mut values = Vec::new();
        for run in runs.split(',') {
            let numbers: Vec<usize> = run.split('-').map(|number| number.parse().unwrap()).collect();
            let step = numbers.get(2).copied().unwrap_or(1);
            for row in (numbers[0]..=numbers[1]).step_by(step) {
                values.extend(&self.values[row * self.cols..(row + 1) * self.cols]);
            }
        }
        Matrix { values, ..*self }
    }

    fn after(self, step: &str) -> Matrix {
        let changed = |change: fn(f32) -> f32| Matrix {
            cols: self.cols,
            values: self.values.iter().map(|value| change(*value)).collect(),
        };
        match step.split_at(1) {
            ("T", rows) => self.transposed(rows.parse().unwrap()),
            ("R", runs) => self.taken(runs),
            ("C", runs) => {
                let columns = self.transposed(self.rows()).taken(runs);
                let rows = columns.rows();
                columns.transposed(rows)
            }
            ("+", _) => changed(|value| value + 1.0),
            ("E", _) => changed(|value| -value.exp()),
            _ => panic!("no step {step}"),
        }
    }
}

/// The values of a tensor, or of those of all experts.
fn source(checkpoint: &Checkpoint, name: &str) -> Matrix {
    let names: Vec<String> = match name.contains("{}") {
        true => (0..)
            .map(|expert: usize| name.replace("{}", &expert.to_string()))
            .take_while(|name| checkpoint.entry(name).is_some())
            .collect(),
        false => vec![name.to_owned()],
    };
    let mut values = Vec::new();
    let mut cols = 1;
    for name in names {
        let entry = checkpoint.entry(&name).unwrap_or_else(|| panic!("no {name}"));
        let Weight::Plain(tensor) = checkpoint.read(entry).unwrap() else {
            panic!("{name} is packed")
        };
        let bytes = cast(&tensor.data, tensor.dtype.float_type().unwrap(), FloatType::F32);
        let words = bytes.as_chunks::<4>().0.iter();
        values.extend(words.map(|word| f32::from_le_bytes(*word)));
        cols = if tensor.shape.len() > 1 {
            *tensor.shape.last().unwrap()
        } else {
            1
        };
    }
    Matrix { cols, values }
}

impl Case {
    /// The checkpoint with the config that the file stands for, if that is another.
    pub fn changes(&self) -> Option<Checkpoint> {
        let changes = self.recipe["config"].as_object().unwrap();
        if changes.is_empty() {
            return None;
        }
        let plain = folder(&format!("{}/plain", self.name));
        let mut config: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(plain.join("config.json")).unwrap()).unwrap();
        config.extend(changes.clone());
        let files = [
            ("config.json", serde_json::to_vec(&config).unwrap()),
            (
                "model.safetensors",
                std::fs::read(plain.join("model.safetensors")).unwrap(),
            ),
        ];
        let files = files.map(|(name, content)| (name.to_owned(), content.into())).to_vec();
        Some(Checkpoint::from_memory(&self.name, files).unwrap())
    }

    /// The file, opened.
    pub fn open(&self) -> Result<Checkpoint, Error> {
        let file = (format!("{}.gguf", self.name), self.file().into());
        Checkpoint::from_memory("converted", vec![file])
    }

    fn file(&self) -> Vec<u8> {
        let plain = Checkpoint::open(&folder(&format!("{}/plain", self.name))).unwrap();
        let (mut listed, mut data, mut sum) = (Vec::new(), Vec::new(), Sha256::new());
        let tensors = self.recipe["tensors"].as_array().unwrap();
        for tensor in tensors {
            let shape: Vec<u64> = serde_json::from_value(tensor[1].clone()).unwrap();
            let how = tensor[3].as_str().unwrap();
            let values: Vec<f32> = match tensor[2].as_str() {
                Some(name) => how.split_whitespace().fold(source(&plain, name), Matrix::after).values,
                None => serde_json::from_value(tensor[2].clone()).unwrap(),
            };
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(values.len() as u64, shape.iter().product::<u64>(), "{tensor}");
            if tensor[2].is_string() && !how.contains('E') {
                sum.update(&bytes);
            }
            text(&mut listed, tensor[0].as_str().unwrap());
            listed.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|size| listed.extend(size.to_le_bytes()));
            listed.extend(0u32.to_le_bytes());
            listed.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let sum: String = sum
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            self.recipe["sha256"], sum,
            "{}: not the values of the converter",
            self.name
        );
        let metadata = self.recipe["metadata"].as_object().unwrap();
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((tensors.len() as u64).to_le_bytes());
        file.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            text(&mut file, key);
            file.extend(kind(value).to_le_bytes());
            put(&mut file, value);
        }
        file.extend(listed);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

/// The number of the type of a value.
fn kind(value: &Value) -> u32 {
    match value {
        Value::Number(number) if number.is_f64() => 6,
        Value::Number(_) => 4,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        _ => 9,
    }
}

fn put(file: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) if number.is_f64() => file.extend((number.as_f64().unwrap() as f32).to_le_bytes()),
        Value::Number(number) => file.extend((number.as_u64().unwrap() as u32).to_le_bytes()),
        Value::Bool(flag) => file.push((*flag).into()),
        Value::String(string) => text(file, string),
        Value::Array(values) => {
            file.extend(kind(&values[0]).to_le_bytes());
            file.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put(file, value));
        }
        _ => panic!("no value of GGUF: {value}"),
    }
}
