//! Where the time of a device goes by kind of operation, and how much it reads and computes meanwhile. For reports.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

use crate::Work;

/// What a kind of work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// From start to end.
    pub time: Duration,
    /// Bytes of weights, keys and values, and operations on them; nothing else is counted.
    pub work: Work,
}

/// What each kind of work took since measuring began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Linear layers of attention and feed-forward blocks.
    pub matmul: Spent,
    /// Attention over the cache, and recurrences.
    pub attention: Spent,
    /// The last norm and the product with the head.
    pub head: Spent,
    /// Embedding, norms, rotation, activations, cache.
    pub other: Spent,
    /// Choosing tokens by their logits.
    pub choice: Spent,
}

impl Phases {
    /// The same, with what `part` holds of products and the rest under the head.
    pub fn with_head(self, part: Phases) -> Phases {
        let mut head = self.head;
        head += part.matmul;
        head += part.other;
        Phases {
            matmul: self.matmul - part.matmul,
            other: self.other - part.other,
            head,
            ..self
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.time += other.time;
        self.work += other.work;
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, other: Spent) -> Spent {
        Spent {
            time: self.time.saturating_sub(other.time),
            work: Work {
                bytes: self.work.bytes - other.work.bytes,
                operations: self.work.operations - other.work.operations,
            },
        }
    }
}

impl AddAssign for Phases {
    fn add_assign(&mut self, other: Phases) {
        self.matmul += other.matmul;
        self.attention += other.attention;
        self.head += other.head;
        self.other += other.other;
        self.choice += other.choice;
    }
}

impl Sub for Phases {
    type Output = Phases;

    fn sub(self, other: Phases) -> Phases {
        Phases {
            matmul: self.matmul - other.matmul,
            attention: self.attention - other.attention,
            head: self.head - other.head,
            other: self.other - other.other,
            choice: self.choice - other.choice,
        }
    }
}
