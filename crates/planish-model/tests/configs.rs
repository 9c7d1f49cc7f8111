//! Keys of config.json that are absent take the defaults of transformers' configuration classes, and older ways to write the
//! position encoding mean what transformers reads in them. scripts/golden/configs.py made the rows with it.

use std::path::PathBuf;

use planish_checkpoint::Checkpoint;
use planish_model::{Architecture, Error};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

#[test]
fn other_ways_to_write_a_config_mean_the_same() {
    let text = std::fs::read_to_string(golden("configs.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let rows = file["rows"].as_array().unwrap();
    assert!(rows.len() > 600);
    let failures: Vec<String> = rows.iter().filter_map(difference).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn sizes_whose_products_overflow_are_refused() {
    let checkpoint = Checkpoint::open(&golden("deepseek_v3_halves/plain")).unwrap();
    for key in [
        "n_shared_experts",
        "moe_intermediate_size",
        "hidden_size",
        "first_k_dense_replace",
    ] {
        let mut config = checkpoint.config().clone();
        assert!(config.insert(key.to_owned(), Value::from(1e18)).is_some(), "{key}");
        match Architecture::from_config(&config) {
            Err(Error::Config { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: {:?}", other.map(drop)),
        }
    }
}

/// What is wrong with a row, if anything.
fn difference(row: &Value) -> Option<String> {
    let case = row["case"].as_str().unwrap();
    let checkpoint = Checkpoint::open(&golden(&format!("{case}/plain"))).unwrap();
    let removed = row["remove"].as_array().unwrap();
    let mut config = checkpoint.config().clone();
    config.retain(|key, _| !removed.iter().any(|removed| removed == key));
    config.extend(row["set"].as_object().unwrap().clone());
    let mut written = checkpoint.config().clone();
    let filled = row["expect"].as_object();
    written.extend(filled.cloned().unwrap_or_default());
    let expected = Architecture::from_config(&written);
    if let Err(Error::UnknownArchitecture { .. }) = expected {
        return Some(format!("{case}: no family"));
    }
    match (Architecture::from_config(&config), &expected) {
        // Sizes have no defaults here.
        (Err(Error::Config { key, found, .. }), _) if filled.is_some() && found == "nothing" && removed[0] == key => {
            None
        }
        (Ok(found), Ok(expected)) if found == *expected => None,
        // What the class fills in does not go with the sizes of the case.
        (Err(_), Err(_)) => None,
        (Ok(_), _) => Some(format!("{case}: means something else without {removed:?}")),
        (Err(error), _) => Some(format!("{case}, without {removed:?}: {error}")),
    }
}
