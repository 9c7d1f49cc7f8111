//! Tokens chosen on the device: only they are read, and the next pass may begin before they are.

use std::collections::VecDeque;

use planish_format::FloatType;
use planish_gpu::{Error, Queue, TICKET_BYTES};

use smallvec::SmallVec;

use super::{GpuOps, GpuTensor, Scratch};
use crate::launch::{self, Adjust, Argmax, MOST_WORDS, NO_TOKEN, SETTING_WORDS, WriteWords, give_back, settings_of};
use planish_ops::{Choice, Choose, Draw, MOST_CHOICES, RowChoice};

/// Draws for which no memory is taken.
const FEW_DRAWS: usize = 64;
/// Rows of one choice.
const MOST_ROWS: usize = TICKET_BYTES / 4;
/// Sequences that there is room for at first; room doubles from there.
const FIRST_SLOTS: usize = 64;

/// Chosen tokens, and what choosing needs.
pub struct GpuChosen<Q: Queue> {
    tokens: Q::Buffer, // (MOST_CHOICES, MOST_ROWS)
    /// Of the last choice.
    turn: usize,
    /// Rows of choices on their way to the program, oldest first.
    under_way: VecDeque<(usize, Q::Ticket)>,
    /// Sequences that there is room for.
    slots: usize,
    of_slots: Q::Buffer, // (slots), the last token of each
    /// Rows that there is room for.
    rows: usize,
    buffers: Buffers<Q>,
    /// What the device's settings are. // (rows, SETTING_WORDS)
    settings: Vec<u32>,
    /// Of the choice that is made now.
    words: Vec<u32>,
    /// Of launches that bring settings.
    memory: Vec<u8>,
    adjustments: Scratch<Q>,
    masks: Scratch<Q>,
}

/// Between the kernels, for some number of rows.
struct Buffers<Q: Queue> {
    settings: Q::Buffer,
    part_values: Q::Buffer,
    part_indices: Q::Buffer,
    /// Sums, and what was found, of a search and of the one before.
    searches: [(Q::Buffer, Q::Buffer); 2],
    /// None, after top-k, after top-p.
    thresholds: [Q::Buffer; 3],
}

impl<Q: Queue> Buffers<Q> {
    fn new(queue: &Q, rows: usize) -> Result<Buffers<Q>, Error> {
        let rows = rows as u32;
        let parts = Argmax {
            value: FloatType::F32,
            rows,
            cols: 1,
        };
        let choose = launch::Choose { rows, cols: 1 };
        let found = || queue.allocate(choose.found_bytes());
        let search = || Ok::<_, Error>((queue.allocate(choose.sum_bytes())?, found()?));
        Ok(Buffers {
            settings: queue.allocate(4 * SETTING_WORDS * rows as usize)?,
            part_values: queue.allocate(parts.part_bytes())?,
            part_indices: queue.allocate(parts.part_bytes())?,
            searches: [search()?, search()?],
            thresholds: [found()?, found()?, found()?],
        })
    }
}

impl<Q: Queue> GpuChosen<Q> {
    pub(super) fn new(queue: &Q) -> Result<GpuChosen<Q>, Error> {
        Ok(GpuChosen {
            tokens: queue.allocate(MOST_CHOICES * TICKET_BYTES)?,
            turn: 0,
            under_way: VecDeque::with_capacity(MOST_CHOICES),
            slots: FIRST_SLOTS,
            of_slots: queue.allocate(4 * FIRST_SLOTS)?,
            rows: 1,
            buffers: Buffers::new(queue, 1)?,
            settings: Vec::new(),
            words: Vec::new(),
            memory: Vec::new(),
            adjustments: Scratch::new(),
            masks: Scratch::new(),
        })
    }

    /// The last token of every slot below the bound. // (slots)
    pub(super) fn of_slots(&self) -> (&Q::Buffer, usize) {
        (&self.of_slots, self.slots)
    }

    fn reserve(&mut self, queue: &Q, rows: &[RowChoice<'_>]) -> Result<(), Error> {
        let slots = rows.iter().map(|row| row.slot + 1).max().unwrap_or(0);
        if slots > self.slots {
            let larger = slots.next_power_of_two();
            let of_slots = queue.allocate(4 * larger)?;
            queue.copy(&self.of_slots, &of_slots, 4 * self.slots)?;
            (self.of_slots, self.slots) = (of_slots, larger);
        }
        if rows.len() > self.rows {
            let larger = rows.len().next_power_of_two();
            self.buffers = Buffers::new(queue, larger)?;
            self.rows = larger;
            self.settings.clear();
        }
        Ok(())
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_choose(&self, problem: Choose<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Choose { logits, rows, chosen } = problem;
        assert!(
            chosen.under_way.len() < MOST_CHOICES,
            "tokens are taken as they are chosen"
        );
        assert!(rows.len() <= MOST_ROWS, "{} rows, at most {MOST_ROWS}", rows.len());
        chosen.reserve(&self.queue, rows)?;
        self.adjust(logits, rows, chosen)?;
        self.write_settings(rows, chosen);
        chosen.turn = (chosen.turn + 1) % MOST_CHOICES;

        let buffers = &chosen.buffers;
        let largest = Argmax {
            value: logits.float_type,
            rows: rows.len() as u32,
            cols: logits.cols as u32,
        };
        let parts = [(&buffers.part_values, 0), (&buffers.part_indices, 0)];
        let tokens = (&chosen.tokens, chosen.turn * TICKET_BYTES);
        self.run(&largest.parts(), &[logits.all(), parts[0], parts[1]]);
        if rows.iter().any(|row| row.choice == Choice::Likeliest) {
            let bound = [
                parts[0],
                parts[1],
                (&buffers.settings, 0),
                tokens,
                (&chosen.of_slots, 0),
            ];
            self.run(&largest.tokens(), &bound);
        }
        if rows.iter().any(|row| row.choice != Choice::Likeliest) {
            self.run_draw(logits, rows, chosen, tokens);
        }
        let ticket = self.queue.begin_download(tokens.0, tokens.1, 4 * rows.len())?;
        chosen.under_way.push_back((rows.len(), ticket));
        Ok(())
    }

    /// Penalties, biases and masks, where there are any.
    fn adjust(&self, logits: &GpuTensor<Q>, rows: &[RowChoice<'_>], chosen: &mut GpuChosen<Q>) -> Result<(), Error> {
        let adjust = Adjust {
            cols: logits.cols as u32,
        };
        let words = &mut chosen.words;
        words.clear();
        for (row, choice) in rows.iter().enumerate() {
            let adjustments = choice.adjustments.iter();
            let of_row = adjustments.flat_map(|one| [row as u32, one.token, one.penalty.to_bits(), one.bias.to_bits()]);
            words.extend(of_row);
        }
        if !words.is_empty() {
            let buffer = chosen.adjustments.at_least(&self.queue, 4 * words.len())?;
            self.queue.upload(bytemuck::cast_slice(words), buffer, 0)?;
            self.run(&adjust.adjust(words.len() as u32 / 4), &[logits.all(), (buffer, 0)]);
        }
        words.clear();
        for (row, choice) in rows.iter().enumerate() {
            if let Some(mask) = choice.mask {
                words.push(row as u32);
                words.extend_from_slice(mask);
            }
        }
        if !words.is_empty() {
            let buffer = chosen.masks.at_least(&self.queue, 4 * words.len())?;
            self.queue.upload(bytemuck::cast_slice(words), buffer, 0)?;
            let masks = (words.len() / adjust.mask_words()) as u32;
            self.run(&adjust.mask(masks), &[logits.all(), (buffer, 0)]);
        }
        Ok(())
    }

    /// Settings that are not those of the last choice.
    fn write_settings(&self, rows: &[RowChoice<'_>], chosen: &mut GpuChosen<Q>) {
        let GpuChosen {
            words,
            settings,
            buffers,
            memory,
            ..
        } = chosen;
        words.clear();
        words.extend(rows.iter().flat_map(|row| settings_of(row.slot as u32, row.choice)));
        if settings.starts_with(words) {
            return;
        }
        for (index, words) in words.chunks(MOST_WORDS).enumerate() {
            let first = (index * MOST_WORDS) as u32;
            let launch = WriteWords { first, words }.launch_in(memory);
            self.run(&launch, &[(&buffers.settings, 0)]);
            give_back(launch, memory);
        }
        let beyond = settings.get(words.len()..).unwrap_or_default();
        words.extend_from_slice(beyond);
        std::mem::swap(words, settings);
    }

    fn run_draw(
        &self,
        logits: &GpuTensor<Q>,
        rows: &[RowChoice<'_>],
        chosen: &GpuChosen<Q>,
        tokens: (&Q::Buffer, usize),
    ) {
        let choose = launch::Choose {
            rows: rows.len() as u32,
            cols: logits.cols as u32,
        };
        let draw_of = |row: &'_ RowChoice<'_>| match row.choice {
            Choice::Drawn(draw) => Some(draw),
            Choice::Likeliest => None,
        };
        let draws: SmallVec<[Draw; FEW_DRAWS]> = rows.iter().filter_map(draw_of).collect();
        let buffers = &chosen.buffers;
        let (logits, largest, settings) = (logits.all(), (&buffers.part_values, 0), (&buffers.settings, 0));
        let [(sums, found), (next_sums, next_found)] = &buffers.searches;
        let (mut before, mut next) = ([(sums, 0), (found, 0)], [(next_sums, 0), (next_found, 0)]);
        let mut thresholds = buffers.thresholds.iter().map(|threshold| (threshold, 0));
        let mut floor = thresholds.next().expect("zeros");
        for search in choose.searches(draws.iter()) {
            for launch in choose.search(search) {
                let bound = [logits, largest, settings, floor, before[0], before[1], next[0], next[1]];
                self.run(&launch, &bound);
                std::mem::swap(&mut before, &mut next);
            }
            let threshold = thresholds.next().expect("one for each search");
            let bound = [settings, before[0], before[1], floor, threshold];
            self.run(&choose.settle(search), &bound);
            floor = threshold;
        }
        let masses = before[0];
        self.run(&choose.weigh(), &[logits, largest, settings, floor, masses]);
        let of_slots = (&chosen.of_slots, 0);
        let bound = [logits, largest, settings, floor, masses, tokens, of_slots];
        self.run(&choose.tokens(), &bound);
    }

    pub(super) fn take_tokens(&self, chosen: &mut GpuChosen<Q>, tokens: &mut Vec<Option<u32>>) -> Result<(), Error> {
        self.check_failure()?;
        let (rows, ticket) = chosen.under_way.pop_front().expect("tokens were chosen");
        let mut words = [0u32; MOST_ROWS];
        let words = &mut words[..rows];
        self.queue.finish_download(ticket, bytemuck::cast_slice_mut(words))?;
        tokens.clear();
        tokens.extend(words.iter().map(|&token| (token != NO_TOKEN).then_some(token)));
        Ok(())
    }
}
