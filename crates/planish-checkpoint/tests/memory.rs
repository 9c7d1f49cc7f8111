//! A folder in memory reads as the folder on disk does.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use planish_checkpoint::{Checkpoint, Weight};

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
