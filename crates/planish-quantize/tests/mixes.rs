//! Mixed widths: the recipes of mlx-lm layer by layer (golden file made by scripts/golden/mixes.py), the mixtures of llama.cpp by its
//! rules, and allocations by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use planish_checkpoint::{Dtype, Entry, Layout};
use planish_format::Packing;
use planish_quantize::{Allocation, Error, Mix, Override, Plan, Recipe, Target};
use serde_json::{Map, Value};

fn entry(name: &str, shape: &[usize]) -> Entry {
    Entry {
        name: name.to_owned(),
        shape: shape.to_vec(),
        layout: Layout::Plain(Dtype::BF16),
        stored_bytes: 0,
    }
}

/// Label, config and tensors of each model, and the bits that each recipe gives its layers.
type Case = (
    String,
    Map<String, Value>,
    Vec<Entry>,
    BTreeMap<String, BTreeMap<String, u32>>,
);

fn cases() -> Vec<Case> {
    let path = format!("{}/tests/golden/mixes.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = |model: &Value| {
        let tensors: BTreeMap<String, Vec<usize>> = serde_json::from_value(model["tensors"].clone()).unwrap();
        (
            model["label"].as_str().unwrap().to_owned(),
            model["config"].as_object().unwrap().clone(),
            tensors.iter().map(|(name, shape)| entry(name, shape)).collect(),
            serde_json::from_value(model["mixes"].clone()).unwrap(),
        )
    };
    golden["models"].as_array().unwrap().iter().map(case).collect()
}

fn recipe() -> Recipe {
    Recipe::new(Target::Mlx, Packing::new(4, 32).unwrap())
}

fn with(allocation: Allocation) -> Recipe {
    Recipe {
        packing: allocation.default_packing(),
        allocation: Some(Arc::new(allocation)),
        ..recipe()
    }
}

fn bits(plan: &Plan) -> BTreeMap<String, u32> {
    let packed = plan.tensors.iter();
    packed
        .filter_map(|tensor| Some((tensor.module().to_owned(), tensor.packing()?.bits())))
        .collect()
}

#[test]
fn recipes_of_mlx_lm_give_each_layer_what_mlx_lm_does() {
    let cases = cases();
    assert_eq!(cases.len(), 8);
    for (label, config, entries, mixes) in cases {
        assert_eq!(mixes.len(), 4);
        for (name, expected) in mixes {
            let mix = Mix::named(&name).unwrap();
            let allocation = mix.allocation(&recipe(), &config, &entries).unwrap();
            let plan = with(allocation).plan(&config, &entries).unwrap();
            assert_eq!(bits(&plan), expected, "{label}, {name}");
        }
    }
}

#[test]
fn mixtures_like_llama_cpp_spare_values_and_down_projections() {
    let (_, config, entries, _) = cases()
        .into_iter()
        .find(|case| case.0.starts_with("llama of 13"))
        .unwrap();
    let of = |name: &str| {
        let allocation = Mix::named(name)
            .unwrap()
            .allocation(&recipe(), &config, &entries)
            .unwrap();
        bits(&with(allocation).plan(&config, &entries).unwrap())
    };
    // By the rules of llama-quant.cpp, for 13 layers: the first (13 / 8), every third from the fourth on, and from 91 / 8 on.
    let more = [0, 3, 6, 9, 11, 12];
    let found = of("q4_k_m");
    for layer in 0..13 {
        let expected = if more.contains(&layer) { 6 } else { 4 };
        for (kind, expected) in [
            ("self_attn.v_proj", expected),
            ("mlp.down_proj", expected),
            ("self_attn.o_proj", 4),
        ] {
            assert_eq!(
                found[&format!("model.layers.{layer}.{kind}")],
                expected,
                "{layer} {kind}"
            );
        }
    }
    // The head is tied.
    assert_eq!(found["model.embed_tokens"], 6);
    let found = of("q3_k_m");
    let of_layer = |layer: usize, kind: &str| found[&format!("model.layers.{layer}.{kind}")];
    let values: Vec<u32> = (0..13).map(|layer| of_layer(layer, "self_attn.v_proj")).collect();
    assert_eq!(values, [5, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]);
    assert_eq!((of_layer(0, "mlp.down_proj"), of_layer(3, "self_attn.o_proj")), (4, 4));
    assert_eq!((of_layer(0, "mlp.up_proj"), of_layer(3, "self_attn.q_proj")), (3, 3));
    let (_, config, entries, _) = cases().into_iter().find(|case| case.0.starts_with("phi3")).unwrap();
    let allocation = Mix::named("q4_k_m")
        .unwrap()
        .allocation(&recipe(), &config, &entries)
        .unwrap();
    let found = bits(&with(allocation).plan(&config, &entries).unwrap());
    assert_eq!((found["model.layers.2.self_attn.qkv_proj"], found["lm_head"]), (5, 6));
}

#[test]
fn a_mix_asks_for_layers_that_it_knows() {
    let config = serde_json::json!({"model_type": "llama"}).as_object().unwrap().clone();
    let entries = [entry("model.layers.0.self_attn.q_proj.weight", &[64, 64])];
    let error = Mix::named("mixed_3_6")
        .unwrap()
        .allocation(&recipe(), &config, &entries)
        .unwrap_err();
    assert!(
        error.to_string().contains("mixed_3_6") && error.to_string().contains("down_proj"),
        "{error}"
    );
    assert_eq!(Mix::named("mixed_9_9"), None);
}

#[test]
fn an_allocation_is_the_same_after_it_was_written() {
    let text = r#"{"about": {"by": "hand"}, "bits": 2, "group_size": 32, "layers":
        {"lm_head": {"bits": 6, "group_size": 64}, "model.layers.10.mlp.up_proj": 3, "model.layers.9.mlp.up_proj": "none"}}"#;
    let allocation = Allocation::from_json(text).unwrap();
    assert_eq!(allocation.default_packing(), Packing::new(2, 32).unwrap());
    assert_eq!(allocation.of("lm_head"), Some(Packing::new(6, 64)));
    assert_eq!(allocation.of("model.layers.9.mlp.up_proj"), Some(None));
    assert_eq!(allocation.of("model.layers.1.mlp.up_proj"), None);
    let written = allocation.to_json();
    assert_eq!(Allocation::from_json(&written).unwrap(), allocation, "{written}");
    // The order of whoever edited it is kept.
    assert!(
        written.find("lm_head") < written.find("layers.10") && written.find("layers.10") < written.find("layers.9")
    );
    for (text, said) in [
        ("[]", "expected an object"),
        ("{", "not JSON"),
        (r#"{"layers": {}}"#, "`bits` is null"),
        (r#"{"bits": 3}"#, "`layers` is missing"),
        (r#"{"bits": 3, "layer": {}}"#, "`layer` is no key"),
        (r#"{"bits": 7, "layers": {}}"#, "`bits`"),
        (r#"{"bits": 3, "layers": {"x": 99999999999}}"#, "`x` is 99999999999"),
        (r#"{"bits": 3, "layers": {"x": {"bit": 3}}}"#, "`x` is"),
        (r#"{"bits": 3, "layers": {"x": "no"}}"#, "`x` is \"no\""),
        (
            r#"{"bits": 3, "group_size": "a", "layers": {}}"#,
            "`group_size` is \"a\"",
        ),
    ] {
        let error = Allocation::from_json(text).unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
}

#[test]
fn names_of_an_allocation_are_layers_of_the_model() {
    let (_, config, entries, _) = cases()
        .into_iter()
        .find(|case| case.0.starts_with("qwen3_moe"))
        .unwrap();
    let plan = |name: &str, bits: u32| {
        let layers = [(name.to_owned(), Packing::new(bits, 32))];
        with(Allocation::new(Packing::new(4, 32).unwrap(), layers)).plan(&config, &entries)
    };
    let found = bits(&plan("model.layers.1.mlp.switch_mlp.up_proj", 3).unwrap());
    assert_eq!(found["model.layers.1.mlp.switch_mlp.up_proj"], 3);
    assert_eq!(found["model.layers.2.mlp.switch_mlp.up_proj"], 4);
    // What mlx-lm packs in 8 bits may be told otherwise by name.
    assert_eq!(
        (
            found["model.layers.1.mlp.gate"],
            bits(&plan("model.layers.1.mlp.gate", 5).unwrap())["model.layers.1.mlp.gate"]
        ),
        (8, 5)
    );
    let error = plan("model.layers.1.mlp.up", 3).unwrap_err();
    assert!(
        matches!(error, Error::Allocation { .. }) && error.to_string().contains("model.layers.1.mlp.up"),
        "{error}"
    );
}

#[test]
fn exceptions_come_before_allocations_and_metal_holds_neither() {
    let (_, config, entries, _) = cases()
        .into_iter()
        .find(|case| case.0.starts_with("llama of 3"))
        .unwrap();
    let four = Packing::new(4, 32).unwrap();
    let name = "model.layers.0.mlp.up_proj";
    let mut recipe = with(Allocation::new(four, [(name.to_owned(), Packing::new(3, 32))]));
    assert_eq!(bits(&recipe.plan(&config, &entries).unwrap())[name], 3);
    recipe.overrides = vec![Override::parse("up_proj=8", four).unwrap()];
    assert_eq!(bits(&recipe.plan(&config, &entries).unwrap())[name], 8);
    recipe.overrides.clear();
    recipe.target = Target::Metal;
    assert!(matches!(recipe.check(), Err(Error::MetalOverrides)));
    let wide = with(Allocation::new(four, [(name.to_owned(), Packing::new(3, 256))]));
    assert!(wide.check().unwrap_err().to_string().contains("256"));
}
