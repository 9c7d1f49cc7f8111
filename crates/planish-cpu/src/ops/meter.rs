//! A stopwatch between operations; costs nothing until started.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use planish_ops::{Phases, Spent, Work};

use super::lock;

/// Hands every lap to a phase.
#[derive(Default)]
pub(super) struct Meter {
    on: AtomicBool,
    laps: Mutex<Laps>,
}

#[derive(Default)]
struct Laps {
    last: Option<Instant>,
    phases: Phases,
}

/// Which part of the phases a lap belongs to.
pub(super) type Phase = fn(&mut Phases) -> &mut Spent;

impl Meter {
    /// Begins to measure from zero, or stops.
    pub(super) fn measure(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
        *lock(&self.laps) = Laps {
            last: on.then(Instant::now),
            phases: Phases::default(),
        };
    }

    pub(super) fn phases(&self) -> Phases {
        lock(&self.laps).phases
    }

    /// The time until now belongs to nothing.
    pub(super) fn skip(&self) {
        if self.on.load(Ordering::Relaxed) {
            lock(&self.laps).last = Some(Instant::now());
        }
    }

    /// What is about to be done, if it is to be counted.
    pub(super) fn count(&self, work: impl FnOnce() -> Work) -> Work {
        match self.on.load(Ordering::Relaxed) {
            true => work(),
            false => Work::default(),
        }
    }

    /// The time since the last lap belongs to a phase, and so does this work.
    pub(super) fn lap(&self, phase: Phase, work: Work) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let mut laps = lock(&self.laps);
        let now = Instant::now();
        if let Some(last) = laps.last.replace(now) {
            let time = now - last;
            *phase(&mut laps.phases) += Spent { time, work };
        }
    }
}
