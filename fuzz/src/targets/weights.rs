//! Folders and files of weights, up to a forward pass of the model that they say they are.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use planish_checkpoint::{Checkpoint, Imatrix, Weight};
use planish_format::{FloatType, Packing, dequantize};
use planish_model::{Architecture, Device, LoadOptions, Model};
use planish_quantize::{Recipe, Target};

use super::well;
use crate::folder::{Folder, filler};

/// Data behind the header of a GGUF file.
const GGUF_DATA: usize = 160 << 10;

/// Every entry and tensor of a folder, and what a conversion would make of it.
pub fn checkpoint(input: &[u8]) {
    if let Some(checkpoint) = well(Checkpoint::from_memory("folder", Folder::of(input).into_files())) {
        read(&checkpoint);
        plan(&checkpoint);
    }
}

fn read(checkpoint: &Checkpoint) {
    for entry in checkpoint.entries() {
        match checkpoint.read(entry) {
            Ok(Weight::Packed(matrix)) => drop(dequantize(&matrix, FloatType::F32)),
            Ok(Weight::Plain(tensor)) => {
                let elements: usize = tensor.shape.iter().product();
                assert_eq!(
                    tensor.dtype.bytes_of(elements),
                    Some(tensor.data.len()),
                    "{}",
                    entry.name
                );
            }
            Err(_) => {}
        }
        checkpoint.tensor(&entry.name).ok();
    }
    for name in checkpoint.files() {
        checkpoint.file(name).ok();
    }
}

fn plan(checkpoint: &Checkpoint) {
    for target in [Target::Metal, Target::Mlx] {
        let packing = Packing::new(4, 32).expect("4 bits in groups of 32 are packed");
        let recipe = Recipe::new(target, packing);
        recipe.plan(checkpoint.config(), checkpoint.entries()).ok();
    }
}

/// A header, and data behind it.
fn open_gguf(input: &[u8]) -> Option<Checkpoint> {
    let data = [input, &filler()[..GGUF_DATA]].concat();
    well(Checkpoint::from_memory(
        "folder",
        vec![("model.gguf".to_owned(), data.into())],
    ))
}

pub fn gguf(input: &[u8]) {
    if let Some(checkpoint) = open_gguf(input) {
        read(&checkpoint);
        plan(&checkpoint);
        Architecture::of(&checkpoint).ok();
    }
}

pub fn model_gguf(input: &[u8]) {
    if let Some(checkpoint) = open_gguf(input) {
        run(&checkpoint);
    }
}

/// config.json and the header of model.safetensors: architecture, loading, a prompt of three tokens and two more.
pub fn model(input: &[u8]) {
    if let Some(checkpoint) = well(Checkpoint::from_memory("folder", Folder::of(input).into_files())) {
        run(&checkpoint);
    }
}

fn run(checkpoint: &Checkpoint) {
    let options = LoadOptions {
        device: Device::Cpu,
        threads: Some(1),
        ..LoadOptions::default()
    };
    let Some(mut model) = well(Model::load(checkpoint, &options)) else {
        return;
    };
    let vocabulary = model.architecture().vocabulary as u32;
    let mut cache = model.cache(model.architecture().context.min(16));
    for tokens in [&[0, 1, 2][..], &[3], &[4]] {
        let tokens: Vec<u32> = tokens.iter().map(|token| token % vocabulary).collect();
        well(model.forward(&tokens, &mut cache));
    }
    let mut fork = model.fork(&cache).expect("there is memory for a copy");
    fork.truncate(1);
    model.forward(&[0], &mut fork).ok();
}

/// A file of importances for a model that is whole.
pub fn imatrix(input: &[u8]) {
    static MODEL: OnceLock<Checkpoint> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let file = include_bytes!("../../../crates/planish-model/tests/golden_gguf/llama_tied.gguf");
        let files = vec![("model.gguf".to_owned(), Bytes::from_static(file))];
        Checkpoint::from_memory("golden", files).expect("a golden file opens")
    });
    let input = Bytes::copy_from_slice(input);
    well(Imatrix::read_bytes(
        Path::new("imatrix"),
        &input,
        model.config(),
        model.entries(),
    ));
}
