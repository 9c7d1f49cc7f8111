//! Where the time of a forward pass goes, when asked.

use std::time::{Duration, Instant};

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Matmul,
    Attention,
    Head,
    Other,
}

/// Time spent in each kind of work since measuring began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Linear layers of attention and feed-forward blocks.
    pub matmul: Duration,
    /// Attention over the cache.
    pub attention: Duration,
    /// The last norm and the product with the head.
    pub head: Duration,
    /// Embedding, norms, rotation, activations, cache.
    pub other: Duration,
}

/// A stopwatch that hands every lap to a phase; costs nothing until started.
#[derive(Default)]
pub(crate) struct Clock {
    last: Option<Instant>,
    pub(crate) phases: Phases,
}

impl Clock {
    /// Begins to measure from zero, or stops measuring.
    pub(crate) fn measure(&mut self, on: bool) {
        *self = Clock {
            last: on.then(Instant::now),
            phases: Phases::default(),
        };
    }

    /// The time until now belongs to nothing.
    pub(crate) fn skip(&mut self) {
        if self.last.is_some() {
            self.last = Some(Instant::now());
        }
    }

    /// The time since the last lap belongs to `phase`.
    pub(crate) fn lap(&mut self, phase: Phase) {
        let Some(last) = self.last else { return };
        let now = Instant::now();
        let total = match phase {
            Phase::Matmul => &mut self.phases.matmul,
            Phase::Attention => &mut self.phases.attention,
            Phase::Head => &mut self.phases.head,
            Phase::Other => &mut self.phases.other,
        };
        *total += now - last;
        self.last = Some(now);
    }
}
