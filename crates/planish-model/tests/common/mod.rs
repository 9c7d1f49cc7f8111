//! The checkpoints that scripts/golden/models.py made with transformers.

use std::path::PathBuf;

use planish_checkpoint::Checkpoint;
use planish_model::{Error, LoadOptions, Model};

/// `case` is like `llama_tied/plain`.
pub fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
}

pub fn load(case: &str, options: LoadOptions) -> Model {
    try_load(case, options).unwrap()
}

pub fn try_load(case: &str, options: LoadOptions) -> Result<Model, Error> {
    let checkpoint = Checkpoint::open(&folder(case)).unwrap();
    Model::load(
        &checkpoint,
        &LoadOptions {
            threads: Some(2),
            ..options
        },
    )
}

pub fn exact() -> LoadOptions {
    LoadOptions {
        exact: true,
        ..LoadOptions::default()
    }
}
