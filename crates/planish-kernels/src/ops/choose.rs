//! Tokens chosen on the device: only they are read, and the next pass may begin before they are.

use std::collections::VecDeque;

use planish_format::FloatType;
use planish_gpu::{Error, Queue};

use super::{GpuOps, GpuTensor};
use crate::launch::{self, Argmax, NO_TOKEN};
use planish_ops::{Choice, Choose, Draw};

/// Tokens that may be under way; each lies at an address that kernels can take.
const SLOTS: usize = 4;
const SLOT_BYTES: usize = 16;

/// Chosen tokens, and what choosing needs.
pub struct GpuChosen<Q: Queue> {
    tokens: Q::Buffer, // (SLOTS)
    /// Of the last token chosen.
    slot: usize,
    /// Tokens on their way to the program, oldest first.
    under_way: VecDeque<Q::Ticket>,
    part_values: Q::Buffer,
    part_indices: Q::Buffer,
    /// Sums, and what was found, of a search and of the one before.
    searches: [(Q::Buffer, Q::Buffer); 2],
    /// None, after top-k, after top-p.
    thresholds: [Q::Buffer; 3],
}

impl<Q: Queue> GpuChosen<Q> {
    pub(super) fn new(queue: &Q) -> Result<GpuChosen<Q>, Error> {
        let parts = Argmax {
            value: FloatType::F32,
            rows: 1,
            cols: 1,
        };
        let found = || queue.allocate(launch::Choose::FOUND_BYTES);
        let search = || Ok::<_, Error>((queue.allocate(launch::Choose::SUM_BYTES)?, found()?));
        Ok(GpuChosen {
            tokens: queue.allocate(SLOTS * SLOT_BYTES)?,
            slot: 0,
            under_way: VecDeque::new(),
            part_values: queue.allocate(parts.part_bytes())?,
            part_indices: queue.allocate(parts.part_bytes())?,
            searches: [search()?, search()?],
            thresholds: [found()?, found()?, found()?],
        })
    }

    /// Where the last token lies.
    pub(super) fn last(&self) -> (&Q::Buffer, usize) {
        (&self.tokens, self.slot * SLOT_BYTES)
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_choose(&self, problem: Choose<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Choose {
            logits,
            choice,
            afresh,
            chosen,
        } = problem;
        if afresh {
            chosen.under_way.clear();
        }
        assert!(chosen.under_way.len() < SLOTS, "tokens are taken as they are chosen");
        chosen.slot = (chosen.slot + 1) % SLOTS;
        let largest = Argmax {
            value: logits.float_type,
            rows: 1,
            cols: logits.cols as u32,
        };
        let parts = [(&chosen.part_values, 0), (&chosen.part_indices, 0)];
        self.run(&largest.parts(), &[logits.all(), parts[0], parts[1]]);
        match choice {
            Choice::Likeliest => self.run(&largest.tokens(), &[parts[0], parts[1], chosen.last()]),
            Choice::Drawn(draw) => self.run_draw(logits, draw, chosen),
        }
        let (tokens, offset) = chosen.last();
        let ticket = self.queue.begin_download(tokens, offset, 4)?;
        chosen.under_way.push_back(ticket);
        Ok(())
    }

    fn run_draw(&self, logits: &GpuTensor<Q>, draw: Draw, chosen: &GpuChosen<Q>) {
        let choose = launch::Choose {
            cols: logits.cols as u32,
            draw,
        };
        let logits = logits.all();
        let largest = (&chosen.part_values, 0);
        let [(sums, found), (next_sums, next_found)] = &chosen.searches;
        let (mut before, mut next) = ([(sums, 0), (found, 0)], [(next_sums, 0), (next_found, 0)]);
        let searches = choose.searches();
        for (index, &search) in searches.iter().enumerate() {
            let floor = (&chosen.thresholds[index], 0);
            for launch in choose.search(search) {
                let buffers = [logits, largest, floor, before[0], before[1], next[0], next[1]];
                self.run(&launch, &buffers);
                std::mem::swap(&mut before, &mut next);
            }
            let threshold = (&chosen.thresholds[index + 1], 0);
            self.run(&choose.settle(search), &[before[0], before[1], floor, threshold]);
        }
        let (threshold, masses) = ((&chosen.thresholds[searches.len()], 0), before[0]);
        self.run(&choose.weigh(), &[logits, largest, threshold, masses]);
        self.run(&choose.token(), &[logits, largest, threshold, masses, chosen.last()]);
    }

    pub(super) fn take_token(&self, chosen: &mut GpuChosen<Q>) -> Result<Option<u32>, Error> {
        self.check_failure()?;
        let ticket = chosen.under_way.pop_front().expect("a token was chosen");
        let mut bytes = [0; 4];
        self.queue.finish_download(ticket, &mut bytes)?;
        let token = u32::from_le_bytes(bytes);
        Ok((token != NO_TOKEN).then_some(token))
    }
}
