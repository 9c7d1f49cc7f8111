//! Packed weights of whose inputs too little is known, by name.

use std::collections::{BTreeMap, BTreeSet};

use planish_checkpoint::Checkpoint;

use crate::plan::Plan;
use crate::{Method, Recipe};

/// Names in a note; a card has all.
const NAMED: usize = 8;

/// What is not known of a packed weight: which of its parts (experts, heads) have no inputs, and how many parts there are.
pub type UnseenParts = (BTreeSet<usize>, usize);

/// The weights that the recipe's method would choose by inputs and must search for without. Those whose names differ in one number,
/// as experts' do, stand together.
pub(crate) fn unseen(checkpoint: &Checkpoint, recipe: &Recipe, plan: &Plan) -> Vec<String> {
    let mut found: BTreeMap<&str, UnseenParts> = BTreeMap::new();
    for tensor in plan.tensors.iter().filter(|tensor| tensor.packing().is_some()) {
        for part in &tensor.parts {
            let name = checkpoint.entries()[part.entry].name.as_str();
            let parts = match &recipe.method {
                Method::Peer(_) | Method::Search => continue,
                Method::Weighted(inputs) => inputs.unseen(name, tensor.shape.last().copied().unwrap_or(0)),
                Method::Chosen(codes) => codes.unseen(name),
            };
            if !parts.0.is_empty() {
                found.insert(name, parts);
            }
        }
    }
    names(&found)
}

/// What a user reads beside the other notes.
pub(crate) fn note(names: &[String]) -> Option<String> {
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more, which the model card names"),
    };
    let named: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let named = named.join(", ");
    (!names.is_empty())
        .then(|| format!("too little is known of what goes into {named}{more}: their codes are searched for without"))
}

fn names(found: &BTreeMap<&str, UnseenParts>) -> Vec<String> {
    let mut names = Vec::new();
    let mut alike: BTreeMap<(String, String), BTreeSet<usize>> = BTreeMap::new();
    for (name, (unseen, parts)) in found {
        match (parts, around_last_number(name)) {
            (1, Some((before, number, after))) => {
                let place = (before.to_owned(), after.to_owned());
                alike.entry(place).or_default().insert(number);
            }
            (1, None) => names.push((*name).to_owned()),
            (parts, _) if unseen.len() == *parts => names.push(format!("{name}, all {parts} parts")),
            (parts, _) => names.push(format!("{name}, parts {} of {parts}", listed(unseen))),
        }
    }
    names.extend(alike.into_iter().map(|((before, after), numbers)| match numbers.len() {
        1 => format!("{before}{}{after}", listed(&numbers)),
        _ => format!("{before}{{{}}}{after}", listed(&numbers)),
    }));
    names.sort();
    names
}

/// What stands before and behind the last number between dots.
fn around_last_number(name: &str) -> Option<(&str, usize, &str)> {
    let mut end = name.len();
    loop {
        let start = name[..end].rfind('.').map_or(0, |dot| dot + 1);
        if let Ok(number) = name[start..end].parse() {
            return Some((&name[..start], number, &name[end..]));
        }
        end = start.checked_sub(1)?;
    }
}

/// `1, 3-5, 9`
fn listed(numbers: &BTreeSet<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut().filter(|(_, last)| *last + 1 == number) {
            Some((_, last)) => *last = number,
            None => runs.push((number, number)),
        }
    }
    let run = |&(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_a_number_stand_together() {
        let one = || (BTreeSet::from([0]), 1);
        let found = BTreeMap::from([
            ("lm_head.weight", one()),
            ("layers.0.experts.2.w1.weight", one()),
            ("layers.0.experts.3.w1.weight", one()),
            ("layers.0.experts.4.w1.weight", one()),
            ("layers.0.experts.9.w1.weight", one()),
            ("layers.1.experts.7.w1.weight", one()),
            ("layers.1.experts.gate_up_proj", (BTreeSet::from([1, 6]), 8)),
            ("layers.2.experts.gate_up_proj", (BTreeSet::from([0, 1]), 2)),
        ]);
        let expected = [
            "layers.0.experts.{2-4, 9}.w1.weight",
            "layers.1.experts.7.w1.weight",
            "layers.1.experts.gate_up_proj, parts 1, 6 of 8",
            "layers.2.experts.gate_up_proj, all 2 parts",
            "lm_head.weight",
        ];
        assert_eq!(names(&found), expected);
    }

    #[test]
    fn a_note_names_the_first_and_counts_the_rest() {
        assert_eq!(note(&[]), None);
        let names: Vec<String> = (0..10).map(|index| format!("w{index}")).collect();
        let told = note(&names).unwrap();
        assert!(
            told.starts_with("too little is known of what goes into `w0`, `w1`, ") && told.contains("`w7` and 2 more"),
            "{told}"
        );
        assert!(note(&names[..1]).unwrap().contains("`w0`: their codes"));
    }
}
