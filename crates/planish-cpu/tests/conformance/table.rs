//! The table that the conformance matrix fills: products compared with f64 and with rows of x alone, by instruction set and way to
//! multiply.

use std::collections::BTreeMap;
use std::fmt;

use planish_cpu::instruction_sets;

use crate::case::relative_error;

/// Of an error, relative to the sum of the terms' magnitudes.
const BOUND: f64 = 1e-5;
/// Rows of x up to which each must have the same bits alone and among others.
const ALIKE: usize = 16;

/// What a line of the table adds up.
#[derive(Default)]
struct Line {
    errors: BTreeMap<String, f64>,
    products: usize,
    /// The fewest rows of x of a product in which one had other bits than alone.
    differs: Option<usize>,
}

/// Lines by number of the instruction set, its name and the product; and what was wrong.
#[derive(Default)]
pub struct Table {
    lines: BTreeMap<(usize, &'static str, String), Line>,
    failures: Vec<String>,
}

/// A product that was made: what it was, with which values.
pub struct Made<'a> {
    pub line: (usize, &'static str, String),
    pub column: String,
    pub what: String,
    pub m: usize,
    pub rows: usize,
    pub values: &'a [f32], // (m, rows)
}

impl Table {
    /// Compares with f64, and with rows of x alone. // expected: (m and more, rows and more)
    pub fn check(&mut self, made: &Made<'_>, most_rows: usize, expected: &[(f64, f64)], alone: &[(usize, Vec<f32>)]) {
        let Made { m, rows, values, .. } = *made;
        let line = self.lines.entry(made.line.clone()).or_default();
        line.products += 1;
        let mut worst: f64 = 0.0;
        for (input, found) in values.chunks_exact(rows).enumerate() {
            let expected = &expected[input * most_rows..][..rows];
            for (row, (&found, &(sum, size))) in found.iter().zip(expected).enumerate() {
                if !sum.is_nan() {
                    let error = relative_error(found, sum, size);
                    worst = if error.is_nan() || error > worst { error } else { worst };
                    if error.is_nan() || error > BOUND {
                        let what = format!(
                            "{}, row {input} of x, row {row}: {found} for {sum}, terms of {size}",
                            made.what
                        );
                        self.failures.push(what);
                    }
                }
            }
        }
        let alike = alone
            .iter()
            .filter(|(input, _)| *input < m)
            .all(|(input, alone)| same_bits(&values[input * rows..][..rows], alone));
        let cell = line.errors.entry(made.column.clone()).or_default();
        *cell = if worst > *cell || worst.is_nan() { worst } else { *cell };
        if !alike {
            line.differs = Some(line.differs.map_or(m, |least| least.min(m)));
            if m <= ALIKE {
                self.failures
                    .push(format!("{}: a row of x has other bits than alone", made.what));
            }
        }
    }

    /// Prints the table; panics if something was wrong, or an instruction set has no line.
    pub fn report(&self, title: &str) {
        println!("{title}\n{self}");
        for name in instruction_sets() {
            assert!(
                self.lines.keys().any(|(_, isa, _)| *isa == name),
                "no product of {name}"
            );
        }
        let shown: Vec<&str> = self.failures.iter().take(12).map(String::as_str).collect();
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            shown.join("\n")
        );
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&String> = {
            let mut all: Vec<&String> = self.lines.values().flat_map(|line| line.errors.keys()).collect();
            all.sort();
            all.dedup();
            all
        };
        write!(formatter, "{:<12} {:<22}", "instructions", "product")?;
        for column in &columns {
            write!(formatter, " {column:>8}")?;
        }
        writeln!(formatter, " {:>9}  rows as alone", "products")?;
        for ((_, isa, product), line) in &self.lines {
            write!(formatter, "{isa:<12} {product:<22}")?;
            for column in &columns {
                match line.errors.get(*column) {
                    Some(error) => write!(formatter, " {error:>8.1e}")?,
                    None => write!(formatter, " {:>8}", "-")?,
                }
            }
            let alike = line.differs.map_or("all".to_owned(), |m| format!("below {m}"));
            writeln!(formatter, " {:>9}  {alike}", line.products)?;
        }
        Ok(())
    }
}

pub fn same_bits(left: &[f32], right: &[f32]) -> bool {
    left.iter()
        .zip(right)
        .all(|(left, right)| left.to_bits() == right.to_bits())
}
