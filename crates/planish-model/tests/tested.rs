//! What `planish models` says is tested, against the golden files that the tests read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use planish_checkpoint::Checkpoint;
use planish_model::{Architecture, Tested};
use serde_json::Value;

fn crate_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    items
        .map(|item| item.unwrap().path())
        .filter(|path| path.is_dir())
        .collect()
}

fn architecture(config: &Value) -> Option<String> {
    Some(config["architectures"].get(0)?.as_str()?.to_owned())
}

/// Architectures with logits of this form, which tests/parity.rs compares.
fn with_logits(form: &str) -> BTreeSet<String> {
    folders(&crate_folder("planish-model/tests/golden"))
        .into_iter()
        .map(|case| case.join(form))
        .filter(|folder| folder.join("golden.safetensors").is_file())
        .filter_map(|folder| architecture(&read(&folder.join("config.json"))))
        .collect()
}

/// Architectures whose tensors mlx-lm has named, which tests/choice.rs of planish-quantize compares.
fn named_by_mlx_lm() -> BTreeSet<String> {
    let groups = ["dense", "experts", "hybrids"];
    let models = groups.iter().flat_map(|group| {
        let path = crate_folder("planish-quantize/tests/golden/layers").join(format!("{group}.json"));
        read(&path)["models"].as_array().unwrap().clone()
    });
    let compared = models.filter(|model| !model["mlx"].is_null());
    compared.filter_map(|model| architecture(&model["config"])).collect()
}

/// Architectures with GGUF files, or recipes for some, which tests/parity.rs compares.
fn with_gguf() -> BTreeSet<String> {
    let files = std::fs::read_dir(crate_folder("planish-model/tests/golden_gguf")).unwrap();
    let files = files.map(|file| Checkpoint::open(&file.unwrap().path()).unwrap());
    let configs = files.map(|file| Value::Object(file.config().clone()));
    let recipes = read(&crate_folder("planish-model/tests/golden_converted/recipes.json"));
    let cases = recipes.as_object().unwrap().keys();
    let converted = cases.map(|case| {
        let folder = crate_folder("planish-model/tests/golden").join(case);
        read(&folder.join("plain/config.json"))
    });
    configs
        .chain(converted)
        .filter_map(|config| architecture(&config))
        .collect()
}

#[test]
fn the_listing_says_what_is_tested() {
    let says = |form: Tested| -> BTreeSet<String> {
        let families = Architecture::families().into_iter();
        let tested = families.filter(|family| family.tested.contains(&form));
        tested.map(|family| family.architecture.to_owned()).collect()
    };
    let supported: BTreeSet<String> = Architecture::supported().into_iter().map(str::to_owned).collect();
    for (form, compared) in [
        (Tested::Plain, with_logits("plain")),
        (Tested::Metal, with_logits("metal")),
        (Tested::Mlx, named_by_mlx_lm()),
        (Tested::Gguf, with_gguf()),
    ] {
        let compared: BTreeSet<String> = compared.intersection(&supported).cloned().collect();
        assert_eq!(says(form), compared, "{}", form.name());
    }
}
