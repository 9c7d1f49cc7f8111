//! What came of packing an entry, and what of it a user should know.

use serde_json::{Value, json};

/// Names in a note.
const NAMED: usize = 8;

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
    pub unseen: usize,
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
        Some(Outcome {
            entry: value[0].as_str()?.to_owned(),
            weights: value[1].as_u64()?,
            searched: value[2].as_f64()?,
            chosen: value[3].as_f64()?,
            parts: usize::try_from(value[4].as_u64()?).ok()?,
            unseen: usize::try_from(value[5].as_u64()?).ok()?,
        })
    }
}

/// What a user should know of all outcomes.
pub fn notes(outcomes: &[Outcome]) -> Vec<String> {
    let unseen = outcomes.iter().filter(|outcome| outcome.unseen > 0);
    let mut names: Vec<String> = unseen
        .map(|outcome| match outcome.parts {
            1 => outcome.entry.clone(),
            parts => format!("{} ({} of {parts} experts)", outcome.entry, outcome.unseen),
        })
        .collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(NAMED);
    let names = names.join("`, `");
    let unseen = format!("too little went into `{names}`{more}: their codes are searched for without");
    let sum = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>();
    let (searched, chosen) = (sum(|outcome| outcome.searched), sum(|outcome| outcome.chosen));
    let gain = format!(
        "the mean square error of the layers' outputs is {:.1} % of that of searched codes",
        100.0 * chosen / searched
    );
    let gain = (searched > 0.0).then_some(gain);
    (!names.is_empty()).then_some(unseen).into_iter().chain(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_named() {
        let outcome = |entry: &str, parts, unseen| Outcome {
            entry: entry.to_owned(),
            weights: 1,
            searched: 2.0,
            chosen: 1.0,
            parts,
            unseen,
        };
        let found = notes(&[outcome("a", 1, 0), outcome("b", 1, 1), outcome("c", 8, 3)]);
        assert_eq!(
            found,
            [
                "too little went into `b`, `c (3 of 8 experts)`: their codes are searched for without",
                "the mean square error of the layers' outputs is 50.0 % of that of searched codes"
            ]
        );
        assert_eq!(notes(&[outcome("a", 1, 0)]).len(), 1);
        let value = outcome("c", 8, 3).to_json();
        assert_eq!(Outcome::from_json(&value), Some(outcome("c", 8, 3)));
    }
}
