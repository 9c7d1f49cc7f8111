//! The checkpoints that scripts/golden/models.py made with transformers.

use std::path::PathBuf;

use planish_checkpoint::Checkpoint;
use planish_model::{LoadOptions, Model};

/// `case` is like `llama_tied/plain`.
pub fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
}

pub fn load(case: &str, options: LoadOptions) -> Model {
    let checkpoint = Checkpoint::open(&folder(case)).unwrap();
    Model::load(
        &checkpoint,
        &LoadOptions {
            threads: Some(2),
            ..options
        },
    )
    .unwrap()
}

pub fn exact() -> LoadOptions {
    LoadOptions {
        exact: true,
        ..LoadOptions::default()
    }
}
