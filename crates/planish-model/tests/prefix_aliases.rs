//! Checkpoints of the same model under other names or flags give the same logits as the golden one.

use std::path::{Path, PathBuf};

use planish_checkpoint::Checkpoint;
use planish_model::{LoadOptions, Model};
use safetensors::SafeTensors;
use serde_json::{Map, Value};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
        .join("plain")
}

/// Logits after a few tokens.
fn logits(folder: &Path) -> Vec<f32> {
    let options = LoadOptions {
        exact: true,
        threads: Some(1),
        ..LoadOptions::default()
    };
    let mut model = Model::load(&Checkpoint::open(folder).unwrap(), &options).unwrap();
    let mut cache = model.cache(8);
    model.forward(&[3, 1, 4, 15, 9, 2, 6, 5], &mut cache).unwrap().to_vec()
}

/// A copy with a changed config and renamed tensors.
fn copy(case: &str, config: impl Fn(&mut Map<String, Value>), name: impl Fn(&str) -> String) -> tempfile::TempDir {
    let (from, to) = (golden(case), tempfile::tempdir().unwrap());
    let mut values = Checkpoint::open(&from).unwrap().config().clone();
    config(&mut values);
    std::fs::write(to.path().join("config.json"), Value::Object(values).to_string()).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(old, tensor)| (name(old), tensor));
    let renamed = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(to.path().join("model.safetensors"), renamed).unwrap();
    to
}

#[test]
fn a_stored_head_is_used_though_the_config_ties_it() {
    let case = "llama_linear_odd";
    let tie = |config: &mut Map<String, Value>| drop(config.insert("tie_word_embeddings".to_owned(), true.into()));
    let tied = copy(case, tie, str::to_owned);
    assert_eq!(logits(tied.path()), logits(&golden(case)));
}

#[test]
fn wrapped_decoders_have_two_prefixes() {
    for case in ["gemma3", "mistral3"] {
        let rename = |name: &str| match name.strip_prefix("language_model.model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => name.replace("language_model.lm_head", "lm_head"),
        };
        let other = copy(case, |_| {}, rename);
        assert_eq!(logits(other.path()), logits(&golden(case)), "{case}");
    }
}

#[test]
fn a_family_is_found_by_its_model_type() {
    let without = |config: &mut Map<String, Value>| drop(config.remove("architectures"));
    let unknown = |config: &mut Map<String, Value>| {
        config.insert("architectures".to_owned(), vec!["UnheardForCausalLM"].into());
    };
    for case in ["gemma3", "gemma3_text", "cohere2", "ministral3"] {
        let nameless = copy(case, without, str::to_owned);
        assert_eq!(logits(nameless.path()), logits(&golden(case)), "{case}");
        let unheard = copy(case, unknown, str::to_owned);
        assert_eq!(logits(unheard.path()), logits(&golden(case)), "{case}");
    }
}
