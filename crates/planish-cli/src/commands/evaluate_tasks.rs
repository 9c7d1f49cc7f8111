//! `planish evaluate --tasks`: multiple-choice questions, several models side by side.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Context;
use planish::{CausalLM, Share, Task, TaskScores};
use serde_json::json;

use super::texts::read_text;

/// Questions between two lines of progress.
const STEP: usize = 100;

/// Answers the questions of a file with each model, and with the reference, which comes first.
pub fn run(
    path: &Path,
    models: &[(Option<&OsStr>, &CausalLM)],
    reference: Option<(&OsStr, &CausalLM)>,
    as_json: bool,
) -> anyhow::Result<()> {
    let file = || path.display().to_string();
    let tasks = Task::read_lines(&read_text(path)?).with_context(file)?;
    let all = reference.map(|(name, model)| (Some(name), model)).into_iter();
    let mut of_reference: Option<TaskScores> = None;
    for (index, (name, model)) in all.chain(models.iter().copied()).enumerate() {
        let name = name.map_or("demo".into(), OsStr::to_string_lossy);
        let scores = model.answer_tasks(&tasks, &mut |done| {
            if done % STEP == 0 {
                eprintln!("{name}: question {done} of {}", tasks.len());
            }
        })?;
        let is_reference = index == 0 && reference.is_some();
        let agreement = of_reference.as_ref().map(|reference| scores.agreement(reference));
        match as_json {
            true => print_json(&name, is_reference, &scores, agreement),
            false => {
                if index == 0 {
                    println!(
                        "{} questions: right, right by characters{}",
                        tasks.len(),
                        match reference {
                            Some(_) => ", same choice as the reference",
                            None => "",
                        }
                    );
                }
                let same = agreement.map_or_else(String::new, |share| format!("  {}", words(share)));
                println!(
                    "{}  {}{same}  {name}",
                    words(scores.accuracy()),
                    words(scores.normalized_accuracy())
                );
            }
        }
        if is_reference {
            of_reference = Some(scores);
        }
    }
    Ok(())
}

/// In per cent, with its bounds.
fn words(share: Share) -> String {
    let Share { value, interval } = share;
    format!(
        "{:5.1} % [{:.1}, {:.1}]",
        100.0 * value,
        100.0 * interval.low,
        100.0 * interval.high
    )
}

fn print_json(name: &str, is_reference: bool, scores: &TaskScores, agreement: Option<Share>) {
    let bounds = |share: Share| [share.interval.low, share.interval.high];
    let (plain, normalized) = (scores.accuracy(), scores.normalized_accuracy());
    let log_likelihoods: Vec<&Vec<f64>> = scores.answers.iter().map(|answer| &answer.log_likelihoods).collect();
    let result = json!({
        "model": name,
        "is_reference": is_reference,
        "questions": scores.answers.len(),
        "accuracy": plain.value,
        "accuracy_interval": bounds(plain),
        "normalized_accuracy": normalized.value,
        "normalized_accuracy_interval": bounds(normalized),
        "same_choice_as_reference": agreement.map(|share| share.value),
        "same_choice_as_reference_interval": agreement.map(bounds),
        "log_likelihoods": log_likelihoods,
    });
    println!("{result}");
}
