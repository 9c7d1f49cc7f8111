//! What operations cost at least on any device: bytes of weights, keys and values that they read, and arithmetic operations.
//! For reports; nothing is computed with it.

use std::ops::AddAssign;

use crate::{Attention, ExpertLayer, Experts, HeadLinear, Linear, Ops, Shape, StackShape};

/// A matrix, or several, that stays on the device.
pub trait Resident {
    /// Bytes that reading all of it takes.
    fn bytes(&self) -> usize;
}

/// Keys and values that stay on the device.
pub trait ResidentKeyValues {
    /// Bytes of the keys and values of one position.
    fn position_bytes(&self) -> usize;

    /// Memory that all sequences take now; what several share counts once.
    fn held_bytes(&self) -> usize;
}

/// Bytes and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Of weights, keys and values, each read once.
    pub bytes: u64,
    /// Two for each product.
    pub operations: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.bytes += other.bytes;
        self.operations += other.operations;
    }
}

impl<O: Ops> Linear<'_, '_, O> {
    /// Every weight is read once, whatever the rows.
    pub fn work(&self) -> Work {
        let bytes = |weight: &&O::Weight| weight.bytes() as u64;
        let products = |weight: &&O::Weight| (self.rows * weight.rows() * weight.cols()) as u64;
        Work {
            bytes: self.weights.iter().map(bytes).sum(),
            operations: 2 * self.weights.iter().map(products).sum::<u64>(),
        }
    }
}

impl<O: Ops> HeadLinear<'_, O> {
    /// Every head's weight is read once.
    pub fn work(&self) -> Work {
        let products = self.rows * self.weights.count() * self.weights.rows() * self.weights.cols();
        Work {
            bytes: self.weights.bytes() as u64,
            operations: 2 * products as u64,
        }
    }
}

impl<O: Ops> Experts<'_, O> {
    /// As if no two rows chose the same expert, while there are enough of them.
    pub fn work(&self) -> Work {
        let chosen = self.rows * self.route.rule.chosen;
        let layers = [self.gate.as_ref(), Some(&self.up), Some(&self.down)];
        let mut work = Work::default();
        for ExpertLayer { weights, .. } in layers.into_iter().flatten() {
            work += Work {
                bytes: (weights.bytes() / weights.count() * chosen.min(weights.count())) as u64,
                operations: 2 * (chosen * weights.rows() * weights.cols()) as u64,
            };
        }
        work
    }
}

impl<O: Ops> Attention<'_, O> {
    /// Every position that some row of a sequence sees is read once.
    pub fn work(&self) -> Work {
        let window = self.window.unwrap_or(usize::MAX);
        let mut work = Work::default();
        for span in self.places.spans {
            let seen = |row: usize| (span.first_position + row + 1).min(window);
            let pairs: u64 = (0..span.rows).map(|row| seen(row) as u64).sum();
            let positions = span.end_position().min(window.saturating_add(span.rows - 1));
            work += Work {
                bytes: (positions * self.key_values.position_bytes()) as u64,
                operations: 2 * pairs * (self.queries.cols() + self.output.cols()) as u64,
            };
        }
        work
    }
}
