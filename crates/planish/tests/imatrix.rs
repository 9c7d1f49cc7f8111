//! Importance matrices of llama.cpp against what planish hears of its own products over the same tokens
//! (scripts/golden/imatrix.py).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use planish::{
    CalibrationText, InputSquares, Method, Output, Packing, Recipe, Source, Target, calibrate, quantize, read_imatrix,
};
use tempfile::TempDir;

const CASES: [&str; 3] = ["llama_tied", "mixtral_no_window", "qwen2_moe_all_layers"];

fn file(case: &str, form: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/imatrix/{case}.{form}"))
}

fn model(case: &str) -> Source {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../planish-model/tests/golden/{case}/plain"));
    Source::open_path(&folder).unwrap()
}

/// What goes into the layers over the tokens that llama-imatrix ran over.
fn heard(case: &str, source: &Source) -> InputSquares {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file(case, "json")).unwrap()).unwrap();
    let tokens = json["tokens"].as_array().unwrap().iter();
    let tokens: Vec<u32> = tokens.map(|token| token.as_u64().unwrap() as u32).collect();
    let pieces = tokens.chunks(json["chunk"].as_u64().unwrap() as usize);
    let text = CalibrationText::Pieces {
        pieces: pieces.map(<[u32]>::to_vec).collect(),
        description: String::new(),
    };
    calibrate(source, &text, None, &Output::new(""), &mut |_| {}).unwrap()
}

#[test]
fn llama_cpp_saw_the_inputs_that_planish_sees() {
    for case in CASES {
        let source = model(case);
        let heard = heard(case, &source);
        for form in ["gguf", "dat"] {
            let read = read_imatrix(&source, &file(case, form)).unwrap();
            assert_eq!(
                read.description(),
                format!("the importance matrix {case}.{form} (4 chunks of letters.txt)")
            );
            let entries = read.entries();
            let layers = heard.entries().into_iter().filter(|entry| entry.contains(".layers."));
            assert_eq!(entries, layers.collect(), "{case}.{form}");
            for entry in entries {
                let cols = source.checkpoint().entries().iter().find(|other| other.name == entry);
                let cols = *cols.unwrap().shape.last().unwrap();
                let (found, expected) = (read.of(entry, cols), heard.of(entry, cols));
                let (Some(Some(found)), Some(Some(expected))) = (found.first(), expected.first()) else {
                    panic!("{case}.{form}, {entry}: {found:?}, {expected:?}");
                };
                let off = found
                    .iter()
                    .zip(expected)
                    .map(|(found, expected)| (found - expected).powi(2))
                    .sum::<f32>();
                let all = expected.iter().map(|expected| expected.powi(2)).sum::<f32>();
                // llama.cpp rounds inputs of products with bf16 weights to bf16.
                assert!(
                    (off / all).sqrt() < 0.01,
                    "{case}.{form}, {entry}: {}",
                    (off / all).sqrt()
                );
            }
        }
    }
}

#[test]
fn codes_are_chosen_by_it_and_what_it_lacks_is_named() {
    let scratch = TempDir::new().unwrap();
    let source = model("qwen2_moe_all_layers");
    let inputs = Arc::new(read_imatrix(&source, &file("qwen2_moe_all_layers", "gguf")).unwrap());
    let packed = |method: Method, name: &str| {
        let recipe = Recipe {
            method,
            ..Recipe::new(Target::Mlx, Packing::checked(2, 32).unwrap())
        };
        let output = Output::new(scratch.path().join(name));
        let report = quantize(&source, &recipe, &output, &mut |_| {}).unwrap();
        (
            std::fs::read(output.folder.join("model.safetensors")).unwrap(),
            report.notes,
        )
    };
    let (searched, _) = packed(Method::Search, "search");
    let (weighted, notes) = packed(Method::Weighted(inputs), "weighted");
    assert!(searched.len() == weighted.len() && searched != weighted);
    let unseen = "too little is known of what goes into `lm_head.weight`, `model.embed_tokens.weight`";
    assert!(notes.iter().any(|note| note.starts_with(unseen)), "{notes:?}");
}

#[test]
fn a_file_of_another_model_is_refused() {
    for (model_of, file_of) in [
        ("llama_tied", "qwen2_moe_all_layers"),
        ("qwen2_moe_all_layers", "llama_tied"),
    ] {
        let told = read_imatrix(&model(model_of), &file(file_of, "gguf"))
            .unwrap_err()
            .to_string();
        assert!(
            told.contains(".gguf: `blk.0.attn_") && told.contains("columns in all, found"),
            "{told}"
        );
    }
}
