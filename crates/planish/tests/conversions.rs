//! Whole checkpoints through the front door: the demo model is dequantized, packed again, converted and inspected.
#![cfg(feature = "demo-model")]

use planish::{
    AutoModelForCausalLM, Device, Error, FloatType, GenerationConfig, MetalConfig, Output, Packing, QuantizeError,
    Recipe, Remedy, Source, Target, convert, dequantize, inspect, quantize, relative_error,
};
use tempfile::TempDir;

#[test]
fn a_model_goes_from_form_to_form() {
    let scratch = TempDir::new().unwrap();
    let output = |name: &str| Output::new(scratch.path().join(name));
    let open = |name: &str| Source::open(scratch.path().join(name).to_str().unwrap()).unwrap();
    let demo = Source::demo().unwrap();
    let mut bytes = Vec::new();
    dequantize(&demo, Some(FloatType::F32), &output("plain"), &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        bytes.push(progress.done_bytes);
    })
    .unwrap();
    assert!(bytes.len() > 2 && bytes.is_sorted(), "progress goes forward");
    let plain = open("plain");
    assert_eq!(plain.architecture().unwrap().name, "LlamaForCausalLM");

    let recipe = Recipe::new(Target::Mlx, Packing::checked(8, 64).unwrap());
    let report = quantize(&plain, &recipe, &output("mlx"), &mut |_| {}).unwrap();
    assert!(report.packed > 0 && report.bits_per_weight() < 9.2, "{report:?}");
    let mlx = open("mlx");
    assert!(relative_error(&plain, &mlx).unwrap() < 0.01);
    assert_eq!(
        inspect(&mlx, 64, &mut |_| {}).unwrap().format,
        "MLX, 8 bits, group 64, affine"
    );
    convert(&mlx, Target::Metal, &output("metal"), &mut |_| {}).unwrap();
    assert_eq!(relative_error(&mlx, &open("metal")).unwrap(), 0.0);

    let refused = quantize(&mlx, &recipe, &output("twice"), &mut |_| {}).unwrap_err();
    let Error::Quantize(QuantizeError::Source { remedy, .. }) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*remedy, Some(Remedy::StartFromPlain));
    assert!(!refused.to_string().contains("--"), "{refused}");
    let refused = inspect(&plain, 12, &mut |_| {}).unwrap_err();
    assert_eq!(refused.to_string(), "a group is a positive multiple of 8, not 12");
}

/// A recipe packs as the configuration of the same meaning, whole or while loading.
#[test]
fn loading_takes_recipes_and_opened_models() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("plain");
    dequantize(&Source::demo().unwrap(), None, &Output::new(&folder), &mut |_| {}).unwrap();
    let plain = Source::open(folder.to_str().unwrap()).unwrap();
    let builder = || AutoModelForCausalLM::from_source(&plain).device(Device::Cpu);
    let config = MetalConfig {
        bits: 8,
        ..MetalConfig::default()
    };
    let recipe = Recipe::for_loading(Packing::checked(8, 64).unwrap(), Vec::new(), Vec::new()).unwrap();
    let loaded = [
        builder().quantization(config).load().unwrap(),
        builder().quantization(recipe).load().unwrap(),
    ];
    let options = GenerationConfig {
        max_new_tokens: 24,
        do_sample: Some(false),
        ..GenerationConfig::default()
    };
    let [one, other] = loaded.map(|model| {
        let prompt = model.tokenizer().unwrap().encode("Once upon a time").unwrap();
        model.generate(&prompt, &options).unwrap()
    });
    assert_eq!(one, other);
}

/// Widths that only MLX has are packed by its rules.
#[test]
fn a_recipe_for_loading_takes_the_dialect_that_can_hold_it() {
    let recipe = |bits, overrides: &[&str]| {
        let packing = Packing::checked(bits, 64).unwrap();
        let overrides = overrides
            .iter()
            .map(|text| planish::Override::parse(text, packing).unwrap());
        Recipe::for_loading(packing, Vec::new(), overrides.collect())
    };
    assert_eq!(recipe(4, &[]).unwrap().target, Target::Metal);
    assert_eq!(recipe(3, &[]).unwrap().target, Target::Mlx);
    assert_eq!(recipe(4, &["q_proj=8"]).unwrap().target, Target::Mlx);
    let refused = recipe(4, &["q_proj=8,16"]).unwrap_err().to_string();
    assert!(refused.contains("32, 64 and 128, not 16"), "{refused}");
}
