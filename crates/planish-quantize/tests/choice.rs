//! Which layers are packed, against transformers and mlx-lm (golden files made by scripts/golden/layers.py and
//! scripts/golden/patterns.py).

use std::collections::{BTreeMap, BTreeSet};

use planish_checkpoint::{Dtype, Entry, Layout};
use planish_format::Packing;
use planish_quantize::{Error, Override, Patterns, Plan, Reason, Recipe, Remedy, Target};
use serde_json::{Map, Value, json};

fn golden(file: &str) -> Value {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn entry(name: &str, shape: &[usize]) -> Entry {
    Entry {
        name: name.to_owned(),
        shape: shape.to_vec(),
        layout: Layout::Plain(Dtype::BF16),
        stored_bytes: 0,
    }
}

fn entries(tensors: &Value) -> Vec<Entry> {
    let shape = |sizes: &Value| -> Vec<usize> { serde_json::from_value(sizes.clone()).unwrap() };
    tensors
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, sizes)| entry(name, &shape(sizes)))
        .collect()
}

fn packed(plan: &Plan) -> BTreeMap<String, (u32, usize)> {
    let packing = |packing: Packing| (packing.bits(), packing.group());
    plan.tensors
        .iter()
        .filter_map(|tensor| Some((tensor.module().to_owned(), packing(tensor.packing()?))))
        .collect()
}

fn recipe(target: Target) -> Recipe {
    Recipe::new(target, Packing::new(4, 32).unwrap())
}

fn llama(untied: bool) -> (Map<String, Value>, Vec<Entry>) {
    let mut tensors = vec![
        entry("model.embed_tokens.weight", &[96, 64]),
        entry("model.layers.0.self_attn.q_proj.weight", &[64, 64]),
        entry("model.layers.0.mlp.down_proj.weight", &[64, 80]),
        entry("model.layers.1.self_attn.q_proj.weight", &[64, 64]),
        entry("model.norm.weight", &[64]),
    ];
    if untied {
        tensors.push(entry("lm_head.weight", &[96, 64]));
    }
    let config = json!({"model_type": "llama", "tie_word_embeddings": !untied});
    (config.as_object().unwrap().clone(), tensors)
}

#[test]
fn patterns_match_as_in_transformers() {
    let table = golden("patterns.json");
    let names: Vec<String> = serde_json::from_value(table["names"].clone()).unwrap();
    for row in table["kept_plain"].as_array().unwrap() {
        let (list, expected): (Vec<String>, Vec<bool>) = serde_json::from_value(row.clone()).unwrap();
        let patterns = Patterns::new(&list).unwrap();
        for (name, expected) in names.iter().zip(expected) {
            assert_eq!(patterns.matches(name), expected, "{name:?} against {list:?}");
        }
    }
}

const GROUPS: [&str; 4] = ["dense", "experts", "hybrids", "others"];

/// The models of all golden files: label first.
fn models() -> Vec<(String, Value)> {
    let read = |group: &&str| {
        golden(&format!("layers/{group}.json"))["models"]
            .as_array()
            .unwrap()
            .clone()
    };
    let label = |model: Value| (model["label"].as_str().unwrap().to_owned(), model);
    GROUPS.iter().flat_map(read).map(label).collect()
}

#[test]
fn metal_packs_what_transformers_packs() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (label, model) in models() {
        if model["metal"].is_null() {
            continue; // transformers has no such architecture
        }
        let tensors = entries(&model["tensors"]);
        let divides = |name: &String| {
            tensors
                .iter()
                .any(|e| e.name == *name && e.shape.last().unwrap().is_multiple_of(32))
        };
        let expected: BTreeSet<String> = serde_json::from_value(model["metal"].clone()).unwrap();
        let expected: BTreeSet<String> = expected.into_iter().filter(divides).collect();
        let plan = recipe(Target::Metal).plan(model["config"].as_object().unwrap(), &tensors);
        let found = plan.map_or_else(
            |_| BTreeSet::new(),
            |plan| packed(&plan).into_keys().map(|name| name + ".weight").collect(),
        );
        for name in found.symmetric_difference(&expected) {
            // transformers packs these and cannot load them: it renames `gate.weight` as it loads, and not the scales.
            if label == "phimoe" && name.ends_with("block_sparse_moe.gate.weight") {
                continue;
            }
            let says = if expected.contains(name) {
                "packed by transformers only"
            } else {
                "packed by planish only"
            };
            wrong.push(format!("{label}: {name}: {says}"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 110, "only {compared} models were compared");
}

/// Tensors that mlx-lm drops as it loads a checkpoint.
const NOT_LOADED: [&str; 6] = [
    "vision_tower",
    "visual",
    "multi_modal_projector",
    "e_score_correction_bias",
    "inv_freq",
    "lm_head.weight",
];

#[test]
fn mlx_writes_what_mlx_lm_writes() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (label, model) in models() {
        if model["mlx"].is_null() {
            continue; // mlx-lm has no such architecture
        }
        let plan = recipe(Target::Mlx)
            .plan(model["config"].as_object().unwrap(), &entries(&model["tensors"]))
            .unwrap();
        let mut expected = model["mlx"].as_object().unwrap().clone();
        for tensor in &plan.tensors {
            let name = &tensor.name;
            let Some(peer) = expected.remove(name) else {
                if !NOT_LOADED.iter().any(|part| name.contains(part)) {
                    wrong.push(format!("{label}: {name}: not a tensor of mlx-lm"));
                }
                continue;
            };
            let found = match tensor.packing() {
                Some(packing) => json!([tensor.shape, packing.bits(), packing.group()]),
                None => json!([tensor.shape]),
            };
            // mlx-lm squeezes single numbers as it loads them.
            if found != peer && (found, &peer) != (json!([[1]]), &json!([[]])) {
                wrong.push(format!(
                    "{label}: {name}: mlx-lm has {peer}, planish {:?} {:?}",
                    tensor.fate, tensor.reason
                ));
            }
        }
        wrong.extend(expected.keys().map(|name| format!("{label}: {name}: missing")));
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 50, "only {compared} models were compared");
}

#[test]
fn metal_lists_what_transformers_would_not_know() {
    let (config, tensors) = llama(true);
    let plan = recipe(Target::Metal).plan(&config, &tensors).unwrap();
    let listed = plan.modules_to_not_convert.clone().unwrap();
    assert_eq!(listed, ["lm_head", "model.layers.0.mlp.down_proj"]);
    let tensor = plan.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!(tensor.reason, Some(Reason::NotDivisible { cols: 80, group: 32 }));

    let tensors: Vec<Entry> = tensors
        .into_iter()
        .filter(|entry| !entry.name.contains("down_proj"))
        .collect();
    let plan = recipe(Target::Metal).plan(&config, &tensors).unwrap();
    assert_eq!(plan.modules_to_not_convert, None, "transformers' default says the same");
    let asked = Recipe {
        include_head: true,
        ..recipe(Target::Metal)
    }
    .plan(&config, &tensors)
    .unwrap();
    assert_eq!(asked.modules_to_not_convert, Some(vec![]));
    assert!(packed(&asked).contains_key("lm_head"));
}

#[test]
fn exclusions_follow_the_patterns() {
    let (config, tensors) = llama(true);
    let exclude = vec!["model.layers.1".to_owned()];
    let plan = Recipe {
        exclude,
        ..recipe(Target::Metal)
    }
    .plan(&config, &tensors)
    .unwrap();
    assert_eq!(
        packed(&plan).into_keys().collect::<Vec<_>>(),
        ["model.layers.0.self_attn.q_proj"]
    );
    let listed = plan.modules_to_not_convert.unwrap();
    assert_eq!(listed, ["lm_head", "model.layers.1", "model.layers.0.mlp.down_proj"]);
}

#[test]
fn overrides_choose_by_layer_in_mlx_only() {
    let (config, tensors) = llama(true);
    let base = Packing::new(4, 32).unwrap();
    let overrides = ["q_proj$=6", r"layers\.0\.=8,64", "lm_head=none"].map(|text| Override::parse(text, base).unwrap());
    let mixed = Recipe {
        overrides: overrides.to_vec(),
        ..recipe(Target::Mlx)
    };
    let expected = [
        ("model.embed_tokens".to_owned(), (4, 32)),
        ("model.layers.0.self_attn.q_proj".to_owned(), (6, 32)),
        ("model.layers.1.self_attn.q_proj".to_owned(), (6, 32)),
    ];
    assert_eq!(
        packed(&mixed.plan(&config, &tensors).unwrap()),
        BTreeMap::from(expected)
    );
    let metal = Recipe {
        target: Target::Metal,
        ..mixed
    };
    let error = metal.plan(&config, &tensors).unwrap_err();
    assert!(matches!(error, Error::MetalOverrides), "{error}");
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let (config, tensors) = llama(true);
    for bits in [3, 5, 6] {
        let plan = Recipe::new(Target::Metal, Packing::new(bits, 64).unwrap()).plan(&config, &tensors);
        let Error::Inexpressible { what, remedy } = plan.unwrap_err() else {
            panic!("{bits} bits are not a matter of the dialect")
        };
        assert!(what.contains("2, 4 and 8 bits"), "{what}");
        assert_eq!(remedy, Some(Remedy::Dialect(Target::Mlx)));
    }
    let message = Recipe::new(Target::Mlx, Packing::new(4, 16).unwrap())
        .plan(&config, &tensors)
        .unwrap_err();
    assert!(message.to_string().contains("32, 64 and 128"), "{message}");
    let exclude = vec!["*.down_proj".to_owned()];
    let message = Recipe {
        exclude,
        ..recipe(Target::Metal)
    }
    .plan(&config, &tensors)
    .unwrap_err()
    .to_string();
    assert!(
        message.contains("\"*.down_proj\" is not a regular expression"),
        "{message}"
    );
    let everything = vec!["model".to_owned()];
    let message = Recipe {
        exclude: everything,
        ..recipe(Target::Metal)
    }
    .plan(&config, &tensors)
    .unwrap_err();
    assert!(message.to_string().starts_with("none of the 6 tensors"), "{message}");
    for text in ["q_proj", "q_proj=", "q_proj=7", "q_proj=4,12", "q_proj=4,", "(=4"] {
        let message = Override::parse(text, Packing::new(4, 32).unwrap())
            .unwrap_err()
            .to_string();
        assert!(message.contains(text.split('=').next().unwrap()), "{message}");
    }
}
