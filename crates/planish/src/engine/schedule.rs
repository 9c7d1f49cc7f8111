//! What an engine does next: a function of what is there, without a model.

/// Positions that one memory block has; sequences take whole blocks.
pub(super) const BLOCK: usize = 64;

/// What is there, in positions of sequences.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    /// Positions that fit.
    pub limit: usize,
    /// Answers side by side, at most.
    pub answers: usize,
    /// Running answers.
    pub running: usize,
    /// Positions that these have or are reading, as memory is taken for them.
    pub held: usize,
    /// Finished sequences that are remembered.
    pub kept: usize,
    /// Positions that these hold and no running answer does.
    pub more: usize,
    /// Positions that the first one who waits would begin with, besides those that it would share.
    pub next: Option<usize>,
}

/// What to do, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Forget the sequence that was not used for the longest time.
    Forget,
    /// Pause the youngest answer.
    Pause,
    /// Begin the first one that waits.
    Begin,
    /// One pass.
    Pass,
    /// Wait for requests.
    Wait,
}

/// Memory for a sequence of so many positions, with one more.
pub(super) fn room(positions: usize) -> usize {
    (positions + 1).next_multiple_of(BLOCK)
}

impl Load {
    /// The oldest answer always goes on, so that everything ends some time.
    pub(super) fn action(&self) -> Action {
        if self.held + self.more > self.limit {
            if self.kept > 0 {
                return Action::Forget;
            }
            if self.running > 1 {
                return Action::Pause;
            }
        }
        if let Some(next) = self.next.filter(|_| self.running < self.answers) {
            // With a block for each to grow by: who begins does not pause in the next moment.
            let growth = match self.running {
                0 => 0,
                others => (others + 1) * BLOCK,
            };
            let wanted = self.held + room(next) + growth;
            if wanted + self.more <= self.limit || (self.running == 0 && self.kept == 0) {
                return Action::Begin;
            }
            if self.kept > 0 && (wanted <= self.limit || self.running == 0) {
                return Action::Forget;
            }
        }
        match self.running {
            0 => Action::Wait,
            _ => Action::Pass,
        }
    }
}

/// Tokens of a prompt in a pass, at least, and what more come in: fewer would take almost as long.
pub(super) const LEAST_PIECE: usize = 32;

/// Tokens of a prompt in a pass that takes about `seconds`, by the rate at which prompts were read.
pub(super) fn piece(tokens_per_s: f64, seconds: f64, most: usize) -> usize {
    let tokens = (tokens_per_s * seconds) as usize / LEAST_PIECE * LEAST_PIECE;
    tokens.clamp(LEAST_PIECE, most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A world of requests (prompt, answer) that come and are worked off by actions, without a model.
    fn simulate(requests: &[(usize, usize)], limit: usize, answers: usize) -> Result<(), TestCaseError> {
        let mut waiting: Vec<(usize, usize)> = requests.to_vec();
        waiting.reverse();
        let (mut running, mut kept): (Vec<(usize, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut finished = 0;
        let most: usize = requests.iter().map(|(prompt, answer)| prompt + answer + 2).sum();
        for _ in 0..1000 * (most + requests.len()) {
            let load = Load {
                limit,
                answers,
                running: running.len(),
                held: running.iter().map(|(positions, _)| room(*positions)).sum(),
                kept: kept.len(),
                more: kept.iter().map(|&positions| room(positions)).sum(),
                next: waiting.last().map(|(positions, _)| *positions),
            };
            match load.action() {
                Action::Forget => drop(kept.remove(0)),
                Action::Pause => {
                    prop_assert!(kept.is_empty() && running.len() > 1);
                    waiting.push(running.pop().unwrap());
                }
                Action::Begin => {
                    running.push(waiting.pop().unwrap());
                    prop_assert!(running.len() <= answers);
                }
                Action::Pass => {
                    prop_assert!(!running.is_empty());
                    let held: usize = running.iter().map(|(positions, _)| room(*positions)).sum();
                    prop_assert!(running.len() == 1 || held + kept.iter().map(|&p| room(p)).sum::<usize>() <= limit);
                    for (positions, left) in &mut running {
                        (*positions, *left) = (*positions + 1, *left - 1);
                    }
                    let ended = running.iter().filter(|(_, left)| *left == 0);
                    kept.extend(ended.map(|(positions, _)| *positions));
                    running.retain(|(_, left)| *left > 0);
                    finished = requests.len() - running.len() - waiting.len();
                }
                Action::Wait => break,
            }
        }
        prop_assert_eq!(finished, requests.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn every_request_ends_within_the_limits(
            requests in prop::collection::vec((1usize..500, 1usize..300), 1..20),
            limit in 64usize..3000,
            answers in 1usize..9,
        ) {
            simulate(&requests, limit, answers)?;
        }
    }

    #[test]
    fn what_is_remembered_goes_before_answers_pause() {
        let mut load = Load {
            limit: 384,
            answers: 4,
            running: 2,
            held: 128,
            kept: 1,
            more: 128,
            next: Some(10),
        };
        assert_eq!(load.action(), Action::Forget, "64 + 64 + 64 + 3 blocks to grow");
        load.more = 0;
        assert_eq!(load.action(), Action::Begin, "what running answers share takes no room");
        load.kept = 0;
        assert_eq!(load.action(), Action::Begin);
        load.next = Some(100);
        assert_eq!(load.action(), Action::Pass, "no room to begin");
        load.held = 448;
        assert_eq!(load.action(), Action::Pause);
        (load.running, load.held) = (1, 1024);
        assert_eq!(load.action(), Action::Pass, "the oldest always goes on");
        (load.running, load.held) = (0, 0);
        assert_eq!(load.action(), Action::Begin);
        load.next = None;
        assert_eq!(load.action(), Action::Wait);
        assert_eq!(
            (piece(1000.0, 0.1, 512), piece(1e9, 0.1, 512), piece(1.0, 0.1, 512)),
            (96, 512, 32)
        );
    }
}
