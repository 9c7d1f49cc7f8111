//! What is known of the inputs of weights: the mean square of each column, by entry of the checkpoint and, where an entry holds the
//! weights of several experts or heads, by these.

use std::collections::{BTreeMap, BTreeSet};

use planish_checkpoint::{Checksum, EntryInputs, Imatrix};

use crate::UnseenParts;

/// Sums over rows of inputs.
#[derive(Clone, Debug, Default)]
struct Sums {
    rows: u64,
    squares: Vec<f64>, // (cols)
}

/// Mean squares of the inputs of weights.
#[derive(Clone, Debug, Default)]
pub struct InputSquares {
    description: String,
    entries: BTreeMap<String, Vec<Sums>>, // of each part
}

impl From<Imatrix> for InputSquares {
    fn from(imatrix: Imatrix) -> InputSquares {
        let sums = |inputs: EntryInputs| {
            let (rows, squares) = (inputs.rows, inputs.squares);
            (inputs.entry, vec![Sums { rows, squares }])
        };
        InputSquares {
            description: imatrix.description,
            entries: imatrix.inputs.into_iter().map(sums).collect(),
        }
    }
}

impl InputSquares {
    /// The same, with a word on the text that the model ran over, for cards.
    pub fn described(self, description: String) -> InputSquares {
        InputSquares { description, ..self }
    }

    /// A word on the text that the model ran over.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Of all that is known.
    pub(crate) fn checksum(&self) -> String {
        let mut sum = Checksum::default();
        for (entry, parts) in &self.entries {
            sum.update(entry.as_bytes());
            for part in parts {
                sum.update(&part.rows.to_le_bytes());
                part.squares.iter().for_each(|square| sum.update(&square.to_le_bytes()));
            }
        }
        format!("{:016x}", sum.value())
    }

    /// Counts rows of `cols` values that part `part` of the `parts` equal parts of an entry's rows is multiplied by. // (rows, cols)
    ///
    /// # Panics
    /// If the number of parts or columns is not that of earlier calls.
    pub fn add(&mut self, entry: &str, (part, parts): (usize, usize), values: &[f32], cols: usize) {
        if !self.entries.contains_key(entry) {
            self.entries.insert(entry.to_owned(), vec![Sums::default(); parts]);
        }
        let Some(all) = self.entries.get_mut(entry) else {
            unreachable!("it was just inserted")
        };
        assert_eq!(all.len(), parts, "parts of {entry}");
        let sums = &mut all[part];
        sums.squares.resize(cols, 0.0);
        for row in values.chunks_exact(cols) {
            for (sum, value) in sums.squares.iter_mut().zip(row) {
                *sum += f64::from(value * value);
            }
            sums.rows += 1;
        }
    }

    /// The mean squares of the columns of each part of an entry, `None` for a part that had no input. Nothing where the entry had
    /// none, or has other columns. // (parts, cols)
    pub fn of(&self, entry: &str, cols: usize) -> Vec<Option<Vec<f32>>> {
        let parts = self.entries.get(entry).map_or(&[][..], Vec::as_slice);
        let fits = parts
            .iter()
            .all(|part| part.squares.is_empty() || part.squares.len() == cols);
        let mean = |part: &Sums| {
            let means = part.squares.iter().map(|square| square / part.rows as f64);
            // Values of no use, as after an overflow, are none.
            let means: Vec<f32> = means.map(|mean| mean as f32).collect();
            let useful =
                part.rows > 0 && means.iter().all(|mean| mean.is_finite()) && means.iter().any(|mean| *mean > 0.0);
            useful.then_some(means)
        };
        match fits {
            true => parts.iter().map(mean).collect(),
            false => Vec::new(),
        }
    }

    /// The parts of an entry that had no input of use.
    pub(crate) fn unseen(&self, entry: &str, cols: usize) -> UnseenParts {
        let parts = self.of(entry, cols);
        match parts.len() {
            0 => (BTreeSet::from([0]), 1),
            count => ((0..count).filter(|&part| parts[part].is_none()).collect(), count),
        }
    }

    /// Rows that the part with the fewest had, of those with an input; 0 where there is none.
    pub fn fewest_rows(&self) -> u64 {
        let rows = self.entries.values().flatten().map(|part| part.rows);
        rows.filter(|rows| *rows > 0).min().unwrap_or(0)
    }

    /// Entries that have inputs.
    pub fn entries(&self) -> BTreeSet<&str> {
        self.entries.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_by_part_and_column() {
        let mut squares = InputSquares::default();
        squares.add("experts", (1, 3), &[1.0, 2.0, 3.0, -4.0], 2);
        squares.add("experts", (1, 3), &[1.0, 0.0], 2);
        squares.add("experts", (2, 3), &[0.0, 0.0], 2);
        squares.add("linear", (0, 1), &[3.0], 1);
        let expected = vec![None, Some(vec![11.0 / 3.0, 20.0 / 3.0]), None];
        assert_eq!(
            squares.of("experts", 2),
            expected,
            "a part of nothing but zeros tells nothing"
        );
        assert_eq!(squares.of("linear", 1), [Some(vec![9.0])]);
        assert_eq!(squares.of("linear", 2), []);
        assert_eq!(squares.of("other", 2), []);
        assert_eq!(squares.fewest_rows(), 1);
    }
}
