//! The targets. A result or an error is well; a panic, an overflow, memory without bound or 5 seconds are not.

mod texts;
mod weights;

use crate::folder::Folder;

/// Name and function of each.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("safetensors", weights::checkpoint),
    ("index", weights::checkpoint),
    ("mlx", weights::checkpoint),
    ("mxfp4", weights::checkpoint),
    ("gguf", weights::gguf),
    ("imatrix", weights::imatrix),
    ("model", weights::model),
    ("model_gguf", weights::model_gguf),
    ("tokenizer", texts::tokenizer),
    ("template", texts::template),
    ("generation", texts::generation),
    ("requests", texts::requests),
    ("hub", hub),
];

/// A result, or `None` of an error: which ends the process where `PLANISH_FUZZ_SEEDS` says that the inputs are seeds, which must be well.
fn well<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    if let Err(error) = &result
        && std::env::var_os("PLANISH_FUZZ_SEEDS").is_some()
    {
        panic!("a seed is refused: {error}");
    }
    result.ok()
}

/// `model`, `listing`, `headers` and `index` as files of the input.
fn hub(input: &[u8]) {
    let answers = Folder::of(input);
    let bytes = |name: &str| answers.get(name).unwrap_or_default();
    let model = answers.text("model");
    planish_checkpoint::hub::fuzz::answers(
        model.trim_end(),
        &bytes("listing"),
        &answers.text("headers"),
        &bytes("index"),
    );
}
