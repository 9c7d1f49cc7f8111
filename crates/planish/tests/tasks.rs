//! Multiple-choice questions: log-likelihoods against transformers (golden file made by scripts/golden/tasks.py), forms of files.
#![cfg(feature = "demo-model")]

use planish::{AutoModelForCausalLM, CausalLM, Device, Error, Task};
use serde_json::Value;

fn root(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

fn story_model() -> CausalLM {
    let model = AutoModelForCausalLM::from_pretrained(root("models/demo-float"));
    model.device(Device::Cpu).threads(2).exact(true).load().unwrap()
}

#[test]
fn log_likelihoods_equal_those_of_transformers() {
    let tasks = Task::read_lines(&std::fs::read_to_string(root("models/demo/tasks.jsonl")).unwrap()).unwrap();
    let golden = std::fs::read(format!("{}/tests/golden/tasks.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let expected: Vec<Vec<f64>> = serde_json::from_value(golden["log_likelihoods"].clone()).unwrap();
    assert_eq!((tasks.len(), expected.len()), (60, 60));
    let mut told = Vec::new();
    let scores = story_model().answer_tasks(&tasks, &mut |done| told.push(done)).unwrap();
    assert!(told.into_iter().eq(1..=60));
    let best = |values: &[f64]| {
        (0..values.len()).reduce(|best, index| if values[index] > values[best] { index } else { best })
    };
    let (mut right, mut by_characters) = (0, 0);
    for ((answer, expected), task) in scores.answers.iter().zip(&expected).zip(&tasks) {
        assert_eq!(answer.log_likelihoods.len(), expected.len());
        for (found, expected) in answer.log_likelihoods.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
                "{found}, not {expected}: {task:?}"
            );
        }
        let normalized: Vec<f64> = expected
            .iter()
            .zip(&task.choices)
            .map(|(sum, choice)| sum / choice.chars().count() as f64)
            .collect();
        right += usize::from(best(expected) == Some(task.answer));
        by_characters += usize::from(best(&normalized) == Some(task.answer));
    }
    assert!((scores.accuracy().value - right as f64 / 60.0).abs() < 1e-12);
    assert!((scores.normalized_accuracy().value - by_characters as f64 / 60.0).abs() < 1e-12);
    assert!(right > 30 && scores.agreement(&scores).value == 1.0);
}

#[test]
fn files_have_one_of_three_forms() {
    let text = r#"
        {"context": "One", "choices": ["two", "three"], "answer": 1}
        {"question": "What is wet?", "choices": ["fire", "rain"], "answer": 1}

        {"ctx": "He ran", "endings": ["a", "b", "c"], "label": "2", "ind": 24}
        {"id": "x", "question": "Why?", "choices": {"text": ["p", "q"], "label": ["1", "2"]}, "answerKey": "2"}"#;
    let tasks = Task::read_lines(text).unwrap();
    let found: Vec<(&str, usize, usize)> = tasks
        .iter()
        .map(|task| (task.context.as_str(), task.choices.len(), task.answer))
        .collect();
    let asked = ["Question: What is wet?\nAnswer:", "Question: Why?\nAnswer:"];
    assert_eq!(
        found,
        [("One", 2, 1), (asked[0], 2, 1), ("He ran", 3, 2), (asked[1], 2, 1)]
    );
    for (line, said) in [
        ("", "end of the file"),
        ("[]", "expected an object"),
        ("{", "not JSON"),
        (r#"{"choices": ["a", "b"], "answer": 0}"#, "`context`"),
        (r#"{"context": "c", "answer": 0}"#, "`choices`"),
        (
            r#"{"context": "c", "choices": ["a", 1], "answer": 0}"#,
            "array of strings",
        ),
        (r#"{"context": "c", "choices": ["a"], "answer": 0}"#, "at least two"),
        (r#"{"context": "c", "choices": ["a", " "], "answer": 0}"#, "blank"),
        (r#"{"context": "c", "choices": ["a", "b"]}"#, "`answer`"),
        (
            r#"{"context": "c", "choices": ["a", "b"], "answer": 2}"#,
            "one of 2 choices",
        ),
        (
            r#"{"context": "c", "choices": ["a", "b"], "answer": "x"}"#,
            "one of 2 choices",
        ),
    ] {
        let error = Task::read_lines(line).unwrap_err();
        assert!(
            matches!(error, Error::Task { line: 1, .. }) && error.to_string().contains(said),
            "{line}: {error}"
        );
    }
}

#[test]
fn a_context_that_is_too_long_loses_its_beginning_and_bounds_hold_the_share() {
    let model = story_model();
    let task = |context: String, choices: [&str; 2]| Task {
        context,
        choices: choices.map(str::to_owned).to_vec(),
        answer: 0,
    };
    let story = "Tom had a red ball. He liked to play with it in the park every day. ".repeat(60);
    let scores = model
        .score_choices(&task(story.clone(), ["The ball was red.", "Xqz."]))
        .unwrap();
    assert!(
        scores.iter().all(|score| score.is_finite() && *score < 0.0) && scores[0] > scores[1],
        "{scores:?}"
    );
    let error = model.score_choices(&task("Tom".to_owned(), ["a", &story])).unwrap_err();
    assert!(error.to_string().contains("512 tokens cannot hold it"), "{error}");
    let answers = model
        .answer_tasks(&[task("Tom had a".to_owned(), ["red ball.", "Xqz."])], &mut |_| {})
        .unwrap();
    let share = answers.accuracy();
    // Wilson's bounds of one of one: 1 / (1 + z * z) and 1.
    assert!(share.value == 1.0 && (share.interval.low - 1.0 / (1.0 + 1.96 * 1.96)).abs() < 1e-9);
    assert!((share.interval.high - 1.0).abs() < 1e-9);
}
