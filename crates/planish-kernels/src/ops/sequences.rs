//! Which blocks of keys and values belong to which sequence, and where the rows of the current pass stand. All layers share it.

use planish_gpu::{Error, Queue};
use planish_ops::{Places, SequenceStore, Span, check_spans};

use super::GpuOps;
use crate::launch::{BLOCK, MOST_WORDS, PLACE_WORDS, PlaceRows, give_back};

/// Blocks of a table that there is room for at first; room doubles from there.
const FIRST_STRIDE: usize = 64;
const PLACE_BYTES: usize = 4 * PLACE_WORDS;

/// Sequences, their blocks, and the places of a pass.
pub struct GpuSequences<Q: Queue> {
    slots: Vec<Table>,
    blocks: Blocks,
    /// Spans of the current pass.
    spans: Vec<Span>,
    /// Blocks that every layer copies in this pass: from and to of each.
    copies: Vec<u32>,
    /// Passes so far.
    pass: u64,
    /// Entries of tables on their way to the device. // (entries * 2)
    entries: Vec<u32>,
    /// // (spans * 4)
    span_words: Vec<u32>,
    /// Of launches that bring them.
    memory: Vec<u8>,
    /// Blocks of a sequence, and sequences, that the tables have room for.
    stride: usize,
    table_slots: usize,
    tables: Q::Buffer, // (table_slots, stride)
    /// Rows and spans that there is room for.
    rows: usize,
    places: Q::Buffer,      // (rows, PLACE_WORDS)
    span_buffer: Q::Buffer, // (rows, 4)
}

/// Blocks of one sequence, in the order of positions.
#[derive(Default)]
struct Table {
    blocks: Vec<u32>,
    /// So many of them are in the device's table.
    written: usize,
}

/// Blocks by their number, the same in all layers.
#[derive(Default)]
struct Blocks {
    /// Sequences that have each.
    references: Vec<u32>,
    free: Vec<u32>,
}

impl Blocks {
    fn take(&mut self) -> u32 {
        let block = self.free.pop().unwrap_or_else(|| {
            self.references.push(0);
            self.references.len() as u32 - 1
        });
        self.references[block as usize] = 1;
        block
    }

    fn release(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        *references -= 1;
        if *references == 0 {
            self.free.push(block);
        }
    }
}

impl<Q: Queue> GpuSequences<Q> {
    pub(super) fn new(queue: &Q) -> Result<GpuSequences<Q>, Error> {
        Ok(GpuSequences {
            slots: Vec::new(),
            blocks: Blocks::default(),
            spans: Vec::new(),
            copies: Vec::new(),
            pass: 0,
            entries: Vec::new(),
            span_words: Vec::new(),
            memory: Vec::new(),
            stride: FIRST_STRIDE,
            table_slots: 1,
            tables: queue.allocate(4 * FIRST_STRIDE)?,
            rows: 1,
            places: queue.allocate(PLACE_BYTES)?,
            span_buffer: queue.allocate(PLACE_BYTES)?,
        })
    }

    /// Blocks that a layer must have room for.
    pub(super) fn most_blocks(&self) -> usize {
        self.blocks.references.len()
    }

    /// Blocks to copy in this pass, and which pass it is.
    pub(super) fn copies(&self) -> (&[u32], u64) {
        (&self.copies, self.pass)
    }

    /// (rows, 4)
    pub(super) fn places(&self) -> (&Q::Buffer, usize) {
        (&self.places, 0)
    }

    /// (slots, stride)
    pub(super) fn tables(&self) -> (&Q::Buffer, usize) {
        (&self.tables, 0)
    }

    /// Gives the spans' sequences the blocks that they need, each its own from the first new position on.
    fn assign(&mut self, spans: &[Span]) {
        self.pass += 1;
        self.copies.clear();
        let slots = spans.iter().map(|span| span.slot + 1).max().unwrap_or(0);
        if slots > self.slots.len() {
            self.slots.resize_with(slots, Table::default);
        }
        // All give back before one takes: a block that is copied is never one that is copied to.
        for span in spans {
            let table = &mut self.slots[span.slot];
            let kept = span.first_position.div_ceil(BLOCK);
            assert!(kept <= table.blocks.len(), "positions before a span were computed");
            table.blocks.drain(kept..).for_each(|block| self.blocks.release(block));
            table.written = table.written.min(kept);
        }
        for span in spans {
            let table = &mut self.slots[span.slot];
            let last = table.blocks.last().copied();
            let is_shared = |block: &u32| self.blocks.references[*block as usize] > 1;
            if let Some(block) = last.filter(is_shared)
                && !span.first_position.is_multiple_of(BLOCK)
            {
                let own = self.blocks.take();
                self.blocks.release(block);
                self.copies.extend([block, own]);
                let index = table.blocks.len() - 1;
                table.blocks[index] = own;
                table.written = table.written.min(index);
            }
            while table.blocks.len() * BLOCK < span.end_position() {
                table.blocks.push(self.blocks.take());
            }
        }
    }

    /// Gives shared blocks back to the sequences of a pass that failed: not every layer has copied them.
    pub(super) fn undo(&mut self) {
        for span in &self.spans {
            let table = &mut self.slots[span.slot];
            let index = span.first_position / BLOCK;
            let own = table.blocks.get(index).copied();
            let pair = self.copies.chunks_exact(2).find(|pair| Some(pair[1]) == own);
            let Some(&[shared, _]) = pair else { continue };
            table.blocks.drain(index..).for_each(|block| self.blocks.release(block));
            self.blocks.references[shared as usize] += 1;
            table.blocks.push(shared);
            table.written = table.written.min(index);
        }
        self.copies.clear();
    }

    /// Makes room for tables and places; what was in them is written again.
    fn reserve(&mut self, queue: &Q) -> Result<(), Error> {
        let blocks = self.spans.iter().map(|span| self.slots[span.slot].blocks.len()).max();
        let blocks = blocks.unwrap_or(0);
        if blocks > self.stride || self.slots.len() > self.table_slots {
            let stride = self.stride.max(blocks.next_power_of_two());
            let slots = self.table_slots.max(self.slots.len().next_power_of_two());
            self.tables = queue.allocate(4 * stride * slots)?;
            (self.stride, self.table_slots) = (stride, slots);
            self.slots.iter_mut().for_each(|table| table.written = 0);
        }
        let rows = self.spans.last().map_or(0, Span::end_row);
        if rows > self.rows {
            let rows = rows.next_power_of_two();
            self.places = queue.allocate(PLACE_BYTES * rows)?;
            self.span_buffer = queue.allocate(PLACE_BYTES * rows)?;
            self.rows = rows;
        }
        Ok(())
    }

    /// What the device does not know yet.
    fn collect(&mut self) {
        self.entries.clear();
        self.span_words.clear();
        for span in &self.spans {
            let table = &mut self.slots[span.slot];
            let new = table.blocks.iter().enumerate().skip(table.written);
            let entries = new.flat_map(|(index, &block)| [(span.slot * self.stride + index) as u32, block]);
            self.entries.extend(entries);
            table.written = table.blocks.len();
            let Span {
                slot,
                first_row,
                rows,
                first_position,
            } = *span;
            self.span_words
                .extend([slot, first_row, rows, first_position].map(|word| word as u32));
        }
    }
}

impl<Q: Queue> SequenceStore for GpuSequences<Q> {
    fn fork(&mut self, from: usize, to: usize) {
        self.clear(to);
        let most = from.max(to) + 1;
        if most > self.slots.len() {
            self.slots.resize_with(most, Table::default);
        }
        let mut blocks = std::mem::take(&mut self.slots[to].blocks);
        blocks.extend_from_slice(&self.slots[from].blocks);
        for &block in &blocks {
            self.blocks.references[block as usize] += 1;
        }
        self.slots[to].blocks = blocks;
    }

    fn clear(&mut self, slot: usize) {
        let Some(table) = self.slots.get_mut(slot) else { return };
        table.written = 0;
        table.blocks.drain(..).for_each(|block| self.blocks.release(block));
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_begin_pass(&self, spans: &[Span], sequences: &mut GpuSequences<Q>) -> Result<(), Error> {
        check_spans(spans);
        self.queue.begin_pass()?;
        sequences.spans.clear();
        sequences.spans.extend_from_slice(spans);
        sequences.assign(spans);
        sequences.reserve(&self.queue).inspect_err(|_| sequences.undo())?;
        sequences.collect();
        let GpuSequences {
            entries,
            span_words,
            memory,
            stride,
            tables,
            places,
            span_buffer,
            ..
        } = sequences;
        // All entries before the first span: a row is stored where they say.
        let (mut entries, mut left) = (entries.as_slice(), span_words.as_slice());
        while !left.is_empty() {
            let (now, later) = entries.split_at(entries.len().min(MOST_WORDS));
            let room = if later.is_empty() { MOST_WORDS - now.len() } else { 0 };
            let (of_spans, rest) = left.split_at(left.len().min(room / 4 * 4));
            let launch = PlaceRows {
                entries: now,
                spans: of_spans,
                first_span: ((span_words.len() - left.len()) / 4) as u32,
                stride: *stride as u32,
            }
            .launch_in(memory);
            self.run(&launch, &[(tables, 0), (places, 0), (span_buffer, 0)]);
            give_back(launch, memory);
            (entries, left) = (later, rest);
        }
        Ok(())
    }

    /// The spans of a Problem on the device. // (spans, 4)
    pub(super) fn spans_of<'a>(&self, places: &Places<'a, GpuOps<Q>>) -> (&'a Q::Buffer, usize) {
        let all = &places.sequences.spans;
        let first = all.iter().position(|span| span.first_row == places.first_row());
        let first = first.expect("spans of this pass");
        assert!(all[first..].starts_with(places.spans), "spans of this pass");
        (&places.sequences.span_buffer, 16 * first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_given_back_is_taken_again() {
        let mut blocks = Blocks::default();
        let (a, b) = (blocks.take(), blocks.take());
        blocks.references[a as usize] += 1;
        blocks.release(a);
        assert_eq!((blocks.free.len(), blocks.references.len()), (0, 2));
        blocks.release(a);
        blocks.release(b);
        assert_eq!((blocks.take(), blocks.take(), blocks.take()), (b, a, 2));
    }
}
