//! A lock that is given in the order in which it is asked for.
//!
//! Whoever computes pass after pass lets go of the model between two of them for an instant only. The standard library's lock would
//! nearly always be taken again before somebody who waits wakes up.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A value that one at a time may use.
pub(crate) struct Turns<T> {
    value: Mutex<T>,
    line: Mutex<Line>,
    moved: Condvar,
}

/// Numbers of those who wait.
#[derive(Default)]
struct Line {
    /// The next to be given.
    next: u64,
    /// Whose turn it is.
    called: u64,
}

/// The value, for as long as this lives.
pub(crate) struct Turn<'a, T> {
    turns: &'a Turns<T>,
    value: MutexGuard<'a, T>,
}

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Turns<T> {
        Turns {
            value: Mutex::new(value),
            line: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// Waits for the turn. A panic of somebody else leaves the value usable.
    pub(crate) fn lock(&self) -> Turn<'_, T> {
        let mut line = self.line();
        let own = line.next;
        line.next += 1;
        while line.called != own {
            line = self.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        drop(line);
        Turn {
            turns: self,
            value: self.value.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.turns.line().called += 1;
        self.turns.moved.notify_all();
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_first() {
        let turns = Turns::new(Vec::new());
        let held = turns.lock();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let turns = &turns;
                scope.spawn(move || turns.lock().push(number));
                while turns.line().next < number + 2 {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(*turns.lock(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
