//! Where the time of a forward pass goes, and how much it reads and computes meanwhile, when asked.
//!
//! Laps are those of a device that is done when an operation returns: the CPU.

use std::time::{Duration, Instant};

use planish_ops::{Attention, Experts, HeadLinear, Linear, Ops, Work};

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Matmul,
    Attention,
    Head,
    Other,
}

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
    /// Attention over the cache.
    pub attention: Spent,
    /// The last norm and the product with the head.
    pub head: Spent,
    /// Embedding, norms, rotation, activations, cache.
    pub other: Spent,
}

impl Phases {
    fn of(&mut self, phase: Phase) -> &mut Spent {
        match phase {
            Phase::Matmul => &mut self.matmul,
            Phase::Attention => &mut self.attention,
            Phase::Head => &mut self.head,
            Phase::Other => &mut self.other,
        }
    }
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
        self.phases.of(phase).time += now - last;
        self.last = Some(now);
    }

    /// The operations of `ops`, each counted and timed as a lap of its own.
    pub(crate) fn timed<'a, O: Ops>(&'a mut self, ops: &'a O) -> Timed<'a, O> {
        Timed {
            clock: self,
            ops,
            linear: Phase::Matmul,
        }
    }

    /// As [`Clock::timed`], for the product with the head.
    pub(crate) fn timed_head<'a, O: Ops>(&'a mut self, ops: &'a O) -> Timed<'a, O> {
        Timed {
            clock: self,
            ops,
            linear: Phase::Head,
        }
    }

    /// The work of `phase` that is about to be done.
    fn count(&mut self, phase: Phase, work: impl FnOnce() -> Work) {
        if self.last.is_some() {
            self.phases.of(phase).work += work();
        }
    }
}

/// The operations that do nearly all the work, on their clock.
pub(crate) struct Timed<'a, O: Ops> {
    clock: &'a mut Clock,
    ops: &'a O,
    linear: Phase, // that linear layers belong to
}

impl<O: Ops> Timed<'_, O> {
    pub(crate) fn linear(self, problem: Linear<'_, O>) {
        self.clock.count(self.linear, || problem.work());
        self.ops.linear(problem);
        self.clock.lap(self.linear);
    }

    pub(crate) fn head_linear(self, problem: HeadLinear<'_, O>) {
        self.clock.count(Phase::Matmul, || problem.work());
        self.ops.head_linear(problem);
        self.clock.lap(Phase::Matmul);
    }

    pub(crate) fn experts(self, problem: Experts<'_, O>) {
        self.clock.count(Phase::Matmul, || problem.work());
        self.ops.experts(problem);
        self.clock.lap(Phase::Matmul);
    }

    pub(crate) fn attention(self, problem: Attention<'_, O>) {
        self.clock.count(Phase::Attention, || problem.work());
        self.ops.attention(problem);
        self.clock.lap(Phase::Attention);
    }
}
