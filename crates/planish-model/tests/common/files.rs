//! Where the checkpoints of scripts/golden/models.py are, and how to load them for comparing.

use std::path::PathBuf;

use planish_model::LoadOptions;

/// `case` is like `llama_tied/plain`.
pub fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
}

pub fn exact() -> LoadOptions {
    LoadOptions {
        exact: true,
        ..LoadOptions::default()
    }
}
