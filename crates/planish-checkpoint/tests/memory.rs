//! A folder in memory reads as the folder on disk does.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use planish_checkpoint::{Checkpoint, Dtype, Entry, Planned, Weight, Writer, WriterOptions};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metal"))
}

fn in_memory(names: &[&str]) -> Result<Checkpoint, String> {
    let files = names
        .iter()
        .map(|name| ((*name).to_owned(), Bytes::from(fs::read(folder().join(name)).unwrap())));
    Checkpoint::from_memory("the model inside", files.collect()).map_err(|error| error.to_string())
}

#[test]
fn entries_weights_and_files_are_those_of_the_folder() {
    let disk = Checkpoint::open(folder()).unwrap();
    let memory = in_memory(&["config.json", "generation_config.json", "model.safetensors"]).unwrap();
    assert_eq!(memory.config(), disk.config());
    assert_eq!(memory.files(), ["generation_config.json"]);
    assert_eq!(
        memory.file("generation_config.json").unwrap(),
        disk.file("generation_config.json").unwrap()
    );
    assert_eq!(memory.file("absent.json").unwrap(), None);
    assert_eq!(memory.entries().len(), disk.entries().len());
    let mut packed = 0;
    for (left, right) in memory.entries().iter().zip(disk.entries()) {
        assert_eq!(
            (&left.name, &left.shape, &left.layout),
            (&right.name, &right.shape, &right.layout)
        );
        match (memory.read(left).unwrap(), disk.read(right).unwrap()) {
            (Weight::Plain(left), Weight::Plain(right)) => assert_eq!(left.data, right.data),
            (Weight::Packed(left), Weight::Packed(right)) => {
                packed += 1;
                assert_eq!(
                    (left.codes, left.scales, left.biases),
                    (right.codes, right.scales, right.biases)
                );
            }
            _ => panic!("{} is packed in one and plain in the other", left.name),
        }
    }
    assert!(packed > 0);
}

#[test]
fn a_missing_file_is_named() {
    let error = in_memory(&["config.json"]).err().unwrap();
    assert!(error.starts_with("the model inside/model.safetensors"), "{error}");
}

/// Names and all data of a checkpoint.
fn contents(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let content = |entry: &Entry| match checkpoint.read(entry).unwrap() {
        Weight::Plain(tensor) => tensor.data.to_vec(),
        Weight::Packed(matrix) => [matrix.codes, matrix.scales, matrix.biases].concat(),
    };
    let entries = checkpoint.entries().iter();
    entries.map(|entry| (entry.name.clone(), content(entry))).collect()
}

#[test]
fn shards_and_gguf_files_are_those_of_the_disk() {
    let folder = tempfile::TempDir::new().unwrap();
    let target = folder.path().join("model");
    let planned = ["a", "b", "c"].map(|name| Planned {
        name: name.to_owned(),
        dtype: Dtype::U8,
        shape: vec![8],
    });
    let options = WriterOptions {
        max_shard_bytes: 8,
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(&target, planned.to_vec(), &options).unwrap();
    for (index, tensor) in planned.iter().enumerate() {
        writer.write(&tensor.name, &[index as u8; 8]).unwrap();
    }
    writer.add_file("config.json", br#"{"model_type": "llama"}"#).unwrap();
    writer.finish().unwrap();
    let mut files: Vec<(String, Bytes)> = fs::read_dir(&target)
        .unwrap()
        .map(|item| item.unwrap())
        .map(|item| {
            (
                item.file_name().into_string().unwrap(),
                fs::read(item.path()).unwrap().into(),
            )
        })
        .collect();
    assert_eq!(files.len(), 5, "three shards, an index, a configuration");
    let disk = contents(&Checkpoint::open(&target).unwrap());
    assert_eq!(contents(&Checkpoint::from_memory("m", files.clone()).unwrap()), disk);
    // Names in an index lead nowhere else here either.
    let index = files.iter_mut().find(|(name, _)| name.ends_with("index.json")).unwrap();
    index.1 = br#"{"weight_map": {"a": "../model/model-00001-of-00003.safetensors"}}"#
        .to_vec()
        .into();
    let error = Checkpoint::from_memory("m", files).err().unwrap().to_string();
    assert!(
        error.contains("`weight_map`: `../model/model-00001-of-00003.safetensors` is not the name of a file"),
        "{error}"
    );

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf/types.gguf");
    let file = ("types.gguf".to_owned(), fs::read(&path).unwrap().into());
    let memory = Checkpoint::from_memory("m", vec![file]).unwrap();
    assert_eq!(contents(&memory), contents(&Checkpoint::open(&path).unwrap()));
}
