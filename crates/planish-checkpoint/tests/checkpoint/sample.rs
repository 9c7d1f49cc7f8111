//! Small model folders, built by hand so that anything in them can be wrong.

use std::path::{Path, PathBuf};

use planish_checkpoint::{Checkpoint, Error};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A model folder in a temporary place.
pub struct Sample {
    _parent: TempDir,
    folder: PathBuf,
}

/// Name, dtype, shape and data of a tensor.
pub struct Given {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A tensor of counting bytes.
pub fn given(name: &str, dtype: &'static str, shape: &[usize]) -> Given {
    let size = match dtype {
        "F32" | "U32" | "I32" => 4,
        "U8" => 1,
        _ => 2,
    };
    let count = shape.iter().product::<usize>() * size;
    let data = (0..count).map(|index| (index * 7 % 251) as u8).collect();
    Given {
        name: name.to_string(),
        dtype,
        shape: shape.to_vec(),
        data,
    }
}

/// Codes, scales and biases of a module of `rows` x `cols`.
pub fn packed(module: &str, biases: &str, [rows, cols]: [usize; 2], [bits, group]: [usize; 2]) -> Vec<Given> {
    let groups = cols / group;
    vec![
        given(&format!("{module}.weight"), "U32", &[rows, cols * bits / 32]),
        given(&format!("{module}.scales"), "BF16", &[rows, groups]),
        given(&format!("{module}.{biases}"), "BF16", &[rows, groups]),
    ]
}

/// A safetensors file of a header as it is given and data.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A valid safetensors file, in the given order.
pub fn safetensors(tensors: &[Given]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for tensor in tensors {
        let offsets = [data.len(), data.len() + tensor.data.len()];
        let info = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets});
        header.insert(tensor.name.clone(), info);
        data.extend(&tensor.data);
    }
    file(&Value::Object(header).to_string(), &data)
}

impl Sample {
    /// A plain model of two tensors.
    pub fn new() -> Sample {
        Sample::at("model")
    }

    /// As [`Sample::new`], in a folder of this name in the temporary one.
    pub fn at(name: &str) -> Sample {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let sample = Sample {
            _parent: parent,
            folder,
        };
        sample.config(json!({"model_type": "llama"}));
        sample.tensors(&[
            given("model.norm.weight", "BF16", &[8]),
            given("lm_head.weight", "F32", &[2, 8]),
        ]);
        sample
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn config(&self, config: Value) {
        self.write("config.json", config.to_string().as_bytes());
    }

    pub fn tensors(&self, tensors: &[Given]) {
        self.write("model.safetensors", &safetensors(tensors));
    }

    pub fn write(&self, name: &str, data: &[u8]) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.join(name)).unwrap();
    }

    pub fn open(&self) -> Checkpoint {
        Checkpoint::open(&self.folder).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The message with which the folder is refused; the folder itself reads `DIR`.
    #[track_caller]
    pub fn refusal(&self) -> String {
        match Checkpoint::open(&self.folder) {
            Ok(_) => panic!("expected a refusal"),
            Err(error) => self.message(&error),
        }
    }

    pub fn message(&self, error: &Error) -> String {
        error.to_string().replace(&self.folder.display().to_string(), "DIR")
    }
}
