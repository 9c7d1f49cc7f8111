//! The checkpoints that scripts/golden/models.py made with transformers.

mod files;

use planish_checkpoint::Checkpoint;
use planish_model::{Error, LoadOptions, Model};

pub use files::{exact, folder};

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
