//! Running a model over a text to see the inputs of its layers, and packing it by them.
#![cfg(feature = "demo-model")]

use planish::{
    CalibrationText, Error, InputSquares, Method, Output, Packing, Recipe, Source, Target, calibrate, dequantize,
    quantize,
};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const TEXT: CalibrationText = CalibrationText::OwnWriting {
    seed: 7,
    tokens: 300,
    longest: 24,
};

fn plain(scratch: &Path) -> Source {
    let folder = scratch.join("plain");
    dequantize(&Source::demo().unwrap(), None, &Output::new(&folder), &mut |_| {}).unwrap();
    Source::open(folder.to_str().unwrap()).unwrap()
}

/// By entry and column.
fn all(source: &Source, inputs: &InputSquares) -> Vec<Option<Vec<f32>>> {
    let entries = source.checkpoint().entries().iter();
    let columns = entries.map(|entry| inputs.of(&entry.name, entry.shape.last().copied().unwrap_or(0)));
    columns.flatten().collect()
}

#[test]
fn own_writing_is_the_same_for_any_number_of_threads() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let mut seen = Vec::new();
    let mut run = |threads| {
        let mut on_progress = |progress: planish::CalibrationProgress| seen.push(progress.done);
        calibrate(&source, &TEXT, Some(threads), &Output::new(""), &mut on_progress).unwrap()
    };
    let (one, two) = (run(1), run(2));
    assert_eq!(
        one.description(),
        "16 texts of its own of up to 24 tokens, seeds 7 to 22"
    );
    assert_eq!(one.description(), two.description());
    let (one, two) = (all(&source, &one), all(&source, &two));
    assert!(one.len() > 40 && one == two);
    assert!(
        one.iter()
            .flatten()
            .flatten()
            .all(|square| square.is_finite() && *square >= 0.0)
    );
    assert!(seen.len() > 400, "progress is told token by token: {}", seen.len());
}

#[test]
fn weights_are_packed_by_what_was_seen_and_the_card_says_so() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let inputs = Arc::new(calibrate(&source, &TEXT, None, &Output::new(""), &mut |_| {}).unwrap());
    let packed = |method: Method, name: &str| {
        let recipe = Recipe {
            method,
            ..Recipe::new(Target::Mlx, Packing::checked(2, 64).unwrap())
        };
        let output = Output::new(scratch.path().join(name));
        let report = quantize(&source, &recipe, &output, &mut |_| {}).unwrap();
        let read = |file: &str| std::fs::read(output.folder.join(file)).unwrap();
        (
            read("model.safetensors"),
            String::from_utf8(read("README.md")).unwrap(),
            report,
        )
    };
    let (searched, _, _) = packed(Method::Search, "search");
    let (weighted, card, report) = packed(Method::Weighted(inputs), "weighted");
    assert!(searched != weighted && searched.len() == weighted.len());
    assert!(
        card.contains("over 16 texts of its own of up to 24 tokens, seeds 7 to 22"),
        "{card}"
    );
    assert_eq!(report.notes, Vec::<String>::new(), "every packed layer was seen");
    let (unseen, _, report) = packed(Method::Weighted(Arc::default()), "unseen");
    assert!(unseen == searched, "what was not seen is searched for without");
    assert!(
        report.notes[0].starts_with("too little is known of what goes into `"),
        "{:?}",
        report.notes
    );
}

#[test]
fn texts_are_given_whole_or_as_messages() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let given = |text: &str| CalibrationText::given(&source, "book.txt", text, 1200);
    let text = "Once upon a time there was a little dog who liked to run. ".repeat(300);
    let CalibrationText::Pieces { pieces, description } = given(&text).unwrap() else {
        panic!("pieces were given")
    };
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [512, 512]);
    assert_eq!(description, "1024 tokens of book.txt, in 2 pieces");
    assert!(matches!(given("short"), Err(Error::ShortText { .. })));
    let messages = r#"{"messages": [{"role": "user", "content": "Hello"}]}"#;
    assert!(
        matches!(given(messages), Err(Error::NoChatTemplate)),
        "it writes stories only"
    );
    let wrong = given("{\"messages\": 1}").unwrap_err().to_string();
    assert!(wrong.starts_with("line 1 is {\"messages\": 1}, expected"), "{wrong}");
}
