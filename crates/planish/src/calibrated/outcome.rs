//! What came of packing an entry.

use std::collections::{BTreeMap, BTreeSet};

use planish_quantize::UnseenParts;
use serde_json::{Value, json};

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub entry: String,
    pub weights: u64,
    /// Mean square errors of outputs, of the parts whose inputs were seen: of searched codes, and of those that were chosen.
    pub searched: f64,
    pub chosen: f64,
    /// Parts, and those of too few rows.
    pub parts: usize,
    pub unseen: BTreeSet<usize>,
}

impl Outcome {
    pub fn to_json(&self) -> Value {
        json!([
            self.entry,
            self.weights,
            self.searched,
            self.chosen,
            self.parts,
            self.unseen
        ])
    }

    pub fn from_json(value: &Value) -> Option<Outcome> {
        let unseen = value[5].as_array()?.iter();
        let unseen = unseen.map(|part| usize::try_from(part.as_u64()?).ok());
        Some(Outcome {
            entry: value[0].as_str()?.to_owned(),
            weights: value[1].as_u64()?,
            searched: value[2].as_f64()?,
            chosen: value[3].as_f64()?,
            parts: usize::try_from(value[4].as_u64()?).ok()?,
            unseen: unseen.collect::<Option<_>>()?,
        })
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the codes are used: they bring the model closer than those that are searched for.
    pub used: bool,
    /// What cards say of the codes.
    pub description: String,
    /// What else a user should know.
    pub notes: Vec<String>,
    /// Of each entry that a layer multiplies by.
    pub unseen: BTreeMap<String, UnseenParts>,
}

/// The parts of entries whose inputs told too little.
pub fn unseen(outcomes: &[Outcome]) -> BTreeMap<String, UnseenParts> {
    let of_entry = |outcome: &Outcome| (outcome.entry.clone(), (outcome.unseen.clone(), outcome.parts));
    outcomes.iter().map(of_entry).collect()
}

/// What came of all of them, in words; `None` where nothing was packed by inputs.
pub fn gain(outcomes: &[Outcome]) -> Option<String> {
    let sum = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>();
    let (searched, chosen) = (sum(|outcome| outcome.searched), sum(|outcome| outcome.chosen));
    let gain = format!(
        "the mean square error of the layers' outputs is {:.1} % of that of searched codes",
        100.0 * chosen / searched
    );
    (searched > 0.0).then_some(gain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_kept_and_added_up() {
        let outcome = |entry: &str, searched: f64, unseen: &[usize]| Outcome {
            entry: entry.to_owned(),
            weights: 1,
            searched,
            chosen: 1.0,
            parts: 8,
            unseen: unseen.iter().copied().collect(),
        };
        let told = gain(&[outcome("a", 3.0, &[]), outcome("b", 1.0, &[1, 6])]).unwrap();
        assert!(told.ends_with("is 50.0 % of that of searched codes"), "{told}");
        assert_eq!(gain(&[]), None);
        let kept = outcome("c", 2.0, &[1, 6]);
        assert_eq!(Outcome::from_json(&kept.to_json()), Some(kept));
    }
}
