//! Spending a budget of bits: what is measured, what is chosen, what is written.
#![cfg(feature = "demo-model")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use planish::{
    Allocation, AutoModelForCausalLM, BudgetOptions, CalibrationText, CausalLM, Device, Error, Output, Override,
    Packing, QuantizeError, Recipe, Sensitivities, Source, Target, allocate, dequantize, quantize,
};
use tempfile::TempDir;

fn plain(scratch: &Path) -> Source {
    let folder = scratch.join("plain");
    dequantize(&Source::demo().unwrap(), None, &Output::new(&folder), &mut |_| {}).unwrap();
    Source::open(folder.to_str().unwrap()).unwrap()
}

/// 48 tokens of a story in two pieces.
fn text() -> CalibrationText {
    let tokenizer = planish::AutoTokenizer::demo().unwrap();
    let tokens = tokenizer.encode("Once upon a time there was a little dog named Max. Max liked to run and play in the park. One day he saw a big red ball under a tree. He wanted to take it home, but a cat sat on it.").unwrap();
    CalibrationText::Pieces {
        pieces: vec![tokens[..32].to_vec(), tokens[32..48].to_vec()],
        description: "a story".to_owned(),
    }
}

/// Two layers of the story model and its embedding may be chosen for; the rest is left plain.
fn recipe() -> Recipe {
    let packing = Packing::checked(2, 64).unwrap();
    let spared = r"layers\.[^27]|self_attn|gate_proj|up_proj=none";
    Recipe {
        overrides: vec![Override::parse(spared, packing).unwrap()],
        ..Recipe::new(Target::Mlx, packing)
    }
}

const CHOSEN: [&str; 3] = [
    "model.embed_tokens",
    "model.layers.2.mlp.down_proj",
    "model.layers.7.mlp.down_proj",
];

fn options(budget: f64) -> BudgetOptions {
    BudgetOptions {
        budget,
        text: text(),
        threads: Some(2),
    }
}

fn allocated(source: &Source, budget: f64, known: &mut Sensitivities) -> Result<(Allocation, usize), Error> {
    let mut steps = 0;
    let output = Output::new("not-written");
    let allocation = allocate(source, &recipe(), &options(budget), known, &output, &mut |progress| {
        steps += 1;
        assert!(progress.done <= progress.total && CHOSEN.contains(&progress.layer));
    })?;
    Ok((allocation, steps))
}

fn exact(source: &Source, recipe: Option<Recipe>) -> CausalLM {
    let builder = AutoModelForCausalLM::from_source(source)
        .device(Device::Cpu)
        .threads(2)
        .exact(true);
    match recipe {
        Some(recipe) => builder.quantization(recipe).load().unwrap(),
        None => builder.load().unwrap(),
    }
}

/// The mean divergence in f64, by the formula.
fn divergence(reference: &CausalLM, model: &CausalLM) -> f64 {
    let CalibrationText::Pieces { pieces, .. } = text() else {
        panic!("pieces")
    };
    let logs = |model: &CausalLM, piece: &[u32]| {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        model
            .logits_from(piece, 0, &mut |_, logits| {
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                rows.push(logits.iter().map(|&logit| f64::from(logit) - sum.ln()).collect());
            })
            .unwrap();
        rows
    };
    let (mut sum, mut count) = (0.0, 0);
    for piece in &pieces {
        for (expected, found) in logs(reference, piece).iter().zip(logs(model, piece)) {
            sum += expected.iter().zip(&found).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[test]
fn what_is_measured_is_the_divergence_of_one_layer_packed() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let mut known = Sensitivities::default();
    let (_, steps) = allocated(&source, 3.0, &mut known).unwrap();
    assert_eq!(steps, 6, "three layers at 2 and 3 bits");
    let reference = exact(&source, None);
    let rows: Vec<(String, u32, f64)> = known
        .rows()
        .map(|(name, bits, cost)| (name.to_owned(), bits, cost))
        .collect();
    assert_eq!(rows.len(), 6);
    for (name, bits, cost) in rows {
        let packing = Packing::checked(bits, 64).unwrap();
        let overrides = [format!("^{name}$={bits}"), ".=none".to_owned()];
        let overrides = overrides
            .iter()
            .map(|text| Override::parse(text, packing).unwrap())
            .collect();
        let alone = Recipe {
            overrides,
            ..Recipe::new(Target::Mlx, packing)
        };
        let expected = divergence(&reference, &exact(&source, Some(alone)));
        assert!(
            (cost - expected).abs() < 1e-6 + 1e-4 * expected,
            "{name} in {bits} bits: {cost}, not {expected}"
        );
        assert!(cost > 1e-6, "{name} in {bits} bits: packing changes something");
    }
    // A run that knows all asks nothing, also after it was kept in a file.
    let mut kept = Sensitivities::from_json(&known.to_json()).unwrap();
    assert_eq!(kept, known);
    let (again, steps) = allocated(&source, 3.25, &mut kept).unwrap();
    assert_eq!((steps, again.layers().len()), (0, 3));
}

#[test]
fn the_budget_is_kept_and_the_file_says_the_choice() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let mut known = Sensitivities::default();
    let bits_of = |allocation: &Allocation| -> Vec<u32> {
        CHOSEN
            .iter()
            .map(|name| allocation.of(name).unwrap().unwrap().bits())
            .collect()
    };
    // Weights of the three, and bits of scales and biases in groups of 64.
    let weights = [4096.0 * 256.0, 256.0 * 704.0, 256.0 * 704.0];
    let spent = |allocation: &Allocation| -> f64 {
        let bits = bits_of(allocation);
        let sum: f64 = weights
            .iter()
            .zip(&bits)
            .map(|(weights, &bits)| weights * (f64::from(bits) + 0.5))
            .sum();
        sum / weights.iter().sum::<f64>()
    };
    for budget in [2.5, 2.75, 3.0, 3.5, 4.0, 8.5] {
        let (allocation, _) = allocated(&source, budget, &mut known).unwrap();
        assert!(
            spent(&allocation) <= budget + 1e-9,
            "{budget}: {:?}",
            bits_of(&allocation)
        );
        let all = |bits| bits_of(&allocation).iter().all(|&found| found == bits);
        match budget {
            2.5 => assert!(all(2)),
            3.5 => assert!(all(3)),
            8.5 => assert!(all(8)),
            _ => assert!(spent(&allocation) > budget - 1.0),
        }
    }
    let (allocation, _) = allocated(&source, 2.75, &mut known).unwrap();
    let expected = bits_of(&allocation);
    assert!(expected.iter().any(|&bits| bits > 2), "there is enough for one of them");
    let recipe = Recipe {
        allocation: Some(Arc::new(allocation)),
        ..recipe()
    };
    let output = Output::new(scratch.path().join("packed"));
    quantize(&source, &recipe, &output, &mut |_| {}).unwrap();
    let text = std::fs::read_to_string(output.folder.join("allocation.json")).unwrap();
    assert_eq!(bits_of(&Allocation::from_json(&text).unwrap()), expected);
    assert!(text.contains("\"budget\": 2.75") && text.contains("a story"), "{text}");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.folder.join("config.json")).unwrap()).unwrap();
    for (name, bits) in CHOSEN.iter().zip(expected) {
        let own = config["quantization"].get(*name).unwrap_or(&config["quantization"]);
        assert_eq!(own["bits"], bits, "{name}");
    }
}

#[test]
fn what_cannot_be_spent_is_refused() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let mut known = Sensitivities::default();
    let mut refused = |budget: f64| allocated(&source, budget, &mut known).unwrap_err().to_string();
    for budget in [2.49, 8.6, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(budget);
        assert!(error.contains("2.500 to 8.500"), "{budget}: {error}");
    }
    let output = Output::new("not-written");
    let run = |recipe: &Recipe, known: &mut Sensitivities| {
        allocate(&source, recipe, &options(3.0), known, &output, &mut |_| {})
    };
    let metal = Recipe {
        target: Target::Metal,
        overrides: Vec::new(),
        ..recipe()
    };
    let error = run(&metal, &mut Sensitivities::default()).unwrap_err();
    assert!(
        matches!(error, Error::Quantize(QuantizeError::MetalOverrides)),
        "{error}"
    );
    // Of another text.
    let other = r#"{"of": {"the text": "another"}, "divergence": {"model.embed_tokens": {"2": 0.5}}}"#;
    let error = run(&recipe(), &mut Sensitivities::from_json(other).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Sensitivities { .. }), "{error}");
    for (text, said) in [
        ("1", "`of`"),
        (r#"{"of": {}, "divergence": {"x": {"2": "a"}}}"#, "`x`"),
        ("{", "JSON"),
    ] {
        let error = Sensitivities::from_json(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    output.stop.store(true, Ordering::Relaxed);
    let error = run(&recipe(), &mut Sensitivities::default()).unwrap_err();
    assert!(
        matches!(error, Error::Quantize(QuantizeError::Stopped { .. })),
        "{error}"
    );
}
