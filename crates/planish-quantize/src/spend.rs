//! Bits to a budget: of each unit one width, so that the sum of costs is least while the sum of bits stays within the budget.
//!
//! Every unit begins with the first width. Then the step to a wider one that saves most cost for its bits is taken, again and again,
//! as long as the budget allows one: what bisection on the multiplier of the budget finds, and what is left over after it. Widths that
//! others make pointless (above the convex hull of a unit's bits and costs) are never taken. A large unit may be left out so, because
//! small ones were served first: at the end each that still waits is given its step at the cost of those that lose least.

/// Tensors that share a width.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// How many weights they have.
    pub weights: u64,
    /// What each width costs. // (widths)
    pub costs: Vec<f64>,
}

/// Exchanges at most: each lowers the cost, and few are left after the first.
const EXCHANGES: usize = 64;

/// The width of each unit, as an index into `widths`: bits for each weight, in rising order, of which all units together may spend
/// `budget` for each weight. The first width is taken whatever the budget.
pub fn spend(units: &[Unit], widths: &[f64], budget: f64) -> Vec<usize> {
    let weights: f64 = units.iter().map(|unit| unit.weights as f64).sum();
    let least = widths.first().copied().unwrap_or(0.0);
    let mut state = Spending {
        units,
        widths,
        chosen: vec![0; units.len()],
        // A rounding error should not keep the last step of a whole width back.
        left: (budget - least) * weights * (1.0 + 1e-12),
    };
    state.fill();
    for _ in 0..EXCHANGES {
        let exchanges = (0..units.len()).filter_map(|index| state.exchanged(index));
        let best = exchanges.reduce(|best, other| if other.cost() < best.cost() { other } else { best });
        match best {
            Some(better) if better.cost() < state.cost() => state = better,
            _ => break,
        }
    }
    state.chosen
}

/// What was chosen so far.
#[derive(Clone)]
struct Spending<'a> {
    units: &'a [Unit],
    widths: &'a [f64],
    chosen: Vec<usize>,
    left: f64, // bits
}

/// A unit with another width.
struct Step {
    unit: usize,
    width: usize,
    bits: f64, // more
    rate: f64, // cost saved for a bit
}

impl Spending<'_> {
    fn cost(&self) -> f64 {
        self.units
            .iter()
            .zip(&self.chosen)
            .map(|(unit, &width)| unit.costs[width])
            .sum()
    }

    fn step(&self, unit: usize, width: usize) -> Step {
        let (of, from) = (&self.units[unit], self.chosen[unit]);
        let bits = (self.widths[width] - self.widths[from]) * of.weights as f64;
        let rate = (of.costs[from] - of.costs[width]) / bits;
        Step {
            unit,
            width,
            bits,
            rate,
        }
    }

    /// The wider width that saves most for a bit.
    fn wider(&self, unit: usize) -> Option<Step> {
        let steps = (self.chosen[unit] + 1..self.widths.len()).map(|width| self.step(unit, width));
        steps.filter(|step| step.rate > 0.0).reduce(better)
    }

    /// The narrower width that loses least for a bit.
    fn narrower(&self, unit: usize) -> Option<Step> {
        let steps = (0..self.chosen[unit]).map(|width| self.step(unit, width));
        steps.reduce(|best, step| if step.rate < best.rate { step } else { best })
    }

    fn take(&mut self, step: &Step) {
        self.chosen[step.unit] = step.width;
        self.left -= step.bits;
    }

    /// Takes steps as long as one fits.
    fn fill(&mut self) {
        let fitting = |state: &Self| {
            let steps = (0..state.units.len()).filter_map(|unit| state.wider(unit));
            steps.filter(|step| step.bits <= state.left).reduce(better)
        };
        while let Some(step) = fitting(self) {
            self.take(&step);
        }
    }

    /// With the next step of a unit that does not fit, for which others gave way.
    fn exchanged(&self, unit: usize) -> Option<Self> {
        let step = self.wider(unit)?;
        let mut other = self.clone();
        other.take(&step);
        while other.left < 0.0 {
            let steps = (0..self.units.len()).filter(|&index| index != unit);
            let steps = steps.filter_map(|index| other.narrower(index));
            let least = steps.reduce(|best, step| if step.rate < best.rate { step } else { best })?;
            other.take(&least);
        }
        other.fill();
        Some(other)
    }
}

/// The first of equals: nothing depends on chance.
fn better(best: Step, step: Step) -> Step {
    if step.rate > best.rate { step } else { best }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTHS: [f64; 3] = [2.5, 3.5, 4.5];

    fn cost(units: &[Unit], chosen: &[usize]) -> f64 {
        units.iter().zip(chosen).map(|(unit, &width)| unit.costs[width]).sum()
    }

    fn bits(units: &[Unit], chosen: &[usize]) -> f64 {
        let spent = units
            .iter()
            .zip(chosen)
            .map(|(unit, &width)| unit.weights as f64 * WIDTHS[width]);
        spent.sum::<f64>() / units.iter().map(|unit| unit.weights as f64).sum::<f64>()
    }

    /// Of all choices within the budget the cheapest.
    fn cheapest(units: &[Unit], budget: f64) -> f64 {
        let all = 3usize.pow(units.len() as u32);
        let choice = |code: usize| -> Vec<usize> {
            (0..units.len())
                .map(|index| code / 3usize.pow(index as u32) % 3)
                .collect()
        };
        let within = (0..all)
            .map(choice)
            .filter(|chosen| bits(units, chosen) <= budget + 1e-9);
        within.map(|chosen| cost(units, &chosen)).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn a_whole_width_is_given_to_all() {
        let unit = |weights| Unit {
            weights,
            costs: vec![1.0, 0.2, 0.05],
        };
        let units = [unit(10), unit(300), unit(7)];
        assert_eq!(spend(&units, &WIDTHS, 3.5), [1, 1, 1]);
        assert_eq!(spend(&units, &WIDTHS, 2.5), [0, 0, 0]);
        assert_eq!(spend(&units, &WIDTHS, 100.0), [2, 2, 2]);
    }

    #[test]
    fn bits_go_where_they_save_most() {
        let units = [(100, 0.1), (100, 0.9), (100, 0.2)].map(|(weights, cost)| Unit {
            weights,
            costs: vec![cost, cost / 4.0, cost / 16.0],
        });
        assert_eq!(spend(&units, &WIDTHS, 2.5 + 1.0 / 3.0), [0, 1, 0]);
        assert_eq!(spend(&units, &WIDTHS, 2.5 + 2.0 / 3.0), [0, 2, 0]);
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_little_is_left_to_gain(
            sizes in prop::collection::vec((1u64..50, 0.01f64..1.0, 0.1f64..0.9, 0.1f64..0.9), 1..7),
            budget in 2.5f64..4.6,
        ) {
            let units: Vec<Unit> = sizes.iter().map(|&(weights, first, second, third)| Unit {
                weights,
                costs: vec![first, first * second, first * second * third],
            }).collect();
            let chosen = spend(&units, &WIDTHS, budget);
            prop_assert!(bits(&units, &chosen) <= budget + 1e-9);
            // What is lost against trying every choice is at most what one more step of one unit would save.
            let found = cost(&units, &chosen);
            let step = units.iter().map(|unit| unit.costs[0] - unit.costs[2]).fold(0.0, f64::max);
            prop_assert!(found <= cheapest(&units, budget) + step + 1e-9);
        }
    }
}
