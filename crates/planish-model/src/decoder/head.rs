//! The end of a call: rows whose logits are wanted meet at the head, tokens are chosen, logits are reported.

use std::ops::Range;

use planish_ops::{Activation, Choose, CopyRows, Gate, Linear, MOST_CHOICES, Norm, Ops, RowChoice, Shape};
use smallvec::SmallVec;

use super::{Decoder, Lists};
use crate::batch::{Chunk, FEW_ROWS, LateChoice, Row, Ticket, Want};
use crate::blocks::device_error;
use crate::step::Pending;
use crate::{Architecture, Error, Phases};

/// Rows whose logits are computed together where those of all tokens are wanted.
const LOGIT_ROWS: usize = 32;

/// What the head reads and leaves.
pub(super) struct Finals<O: Ops> {
    gathered: Option<O::Tensor>, // (rows, hidden): normed rows of several groups
    rows: usize,                 // that wait for the head
    logits: O::Tensor,           // (rows, vocabulary)
    staging: Vec<f32>,
    /// The rows of logits by which tokens are chosen later, in the order of their chunks.
    late: SmallVec<[u16; FEW_ROWS]>,
    chosen: O::Chosen,
    launched: u64, // calls that chose tokens
    taken: u64,    // of these, calls whose tokens were taken or given up
}

impl<O: Ops> Finals<O> {
    pub(super) fn new(ops: &O, architecture: &Architecture) -> Result<Finals<O>, Error> {
        Ok(Finals {
            gathered: None,
            rows: 0,
            logits: ops.tensor_f32(1, architecture.vocabulary).map_err(device_error)?,
            staging: Vec::new(),
            late: SmallVec::new(),
            chosen: ops.chosen().map_err(device_error)?,
            launched: 0,
            taken: 0,
        })
    }

    /// Forgets rows that a call left behind when it failed, or for a choice that was not made.
    pub(super) fn begin(&mut self) {
        self.rows = 0;
        self.late.clear();
    }

    /// The last token chosen for each sequence.
    pub(super) fn chosen(&self) -> &O::Chosen {
        &self.chosen
    }

    /// Room for the logits of so many rows.
    fn reserve_logits(&mut self, ops: &O, rows: usize) -> Result<(), Error> {
        if self.logits.rows() < rows {
            let larger = ops.tensor_f32(rows.next_power_of_two(), self.logits.cols());
            self.logits = larger.map_err(device_error)?;
        }
        Ok(())
    }

    /// Room for so many gathered rows; those that wait stay.
    fn reserve_gathered(&mut self, ops: &O, normed: &O::Tensor, rows: usize) -> Result<&mut O::Tensor, Error> {
        let found = self.gathered.as_ref().map_or(0, Shape::rows);
        if found < rows {
            let larger = ops.tensor(rows.next_power_of_two().max(FEW_ROWS), normed.cols());
            let mut larger = larger.map_err(device_error)?;
            if let Some(source) = &self.gathered {
                ops.copy_rows(CopyRows {
                    source: Some(source),
                    from: 0,
                    target: &mut larger,
                    to: 0,
                    rows: self.rows,
                });
            }
            self.gathered = Some(larger);
        }
        Ok(self.gathered.as_mut().expect("made above"))
    }

    /// The tokens of a ticket, in the order of the chunks that wanted a choice. Those of earlier tickets are given up.
    pub(super) fn take(&mut self, ops: &O, ticket: &Ticket, tokens: &mut Vec<Option<u32>>) -> Result<(), Error> {
        assert!(
            ticket.number > self.taken,
            "the tokens of this ticket were given up for later ones"
        );
        while self.taken < ticket.number {
            ops.take(&mut self.chosen, tokens).map_err(device_error)?;
            self.taken += 1;
        }
        let found: SmallVec<[Option<u32>; FEW_ROWS]> = SmallVec::from_slice(tokens);
        let of_chunks = ticket.places.iter().map(|&place| found[place as usize]);
        tokens
            .iter_mut()
            .zip(of_chunks)
            .for_each(|(token, found)| *token = found);
        Ok(())
    }
}

impl<O: Ops> Decoder<O> {
    /// The final norm of rows of the pass that was just run: they wait for the head. `whole` says that no other rows will join.
    pub(super) fn finish_rows(
        &mut self,
        rows: Range<usize>,
        pending: Option<Pending>,
        whole: bool,
    ) -> Result<(), Error> {
        let count = rows.len();
        self.normalize(rows, pending);
        let Decoder {
            ops, workspace, finals, ..
        } = self;
        if !whole {
            let to = finals.rows;
            let target = finals.reserve_gathered(ops, &workspace.normed, to + count)?;
            ops.copy_rows(CopyRows {
                source: Some(&workspace.normed),
                from: 0,
                target,
                to,
                rows: count,
            });
        }
        finals.rows += count;
        Ok(())
    }

    /// The final norm of rows of the pass into the first rows of `normed`.
    fn normalize(&mut self, rows: Range<usize>, pending: Option<Pending>) {
        let before = self.phases_so_far();
        let workspace = &mut self.workspace;
        let (hidden, deltas) = (&mut workspace.hidden, &workspace.deltas);
        self.ops.norm(Norm {
            residual: pending.map(|pending| pending.residual(deltas)),
            output: Some(&mut workspace.normed),
            ..self.final_norm.of(rows, hidden)
        });
        self.count_head(before);
    }

    /// What the device measured, when it measures.
    fn phases_so_far(&self) -> Phases {
        match self.measuring {
            true => self.ops.phases(),
            false => Phases::default(),
        }
    }

    /// What was measured since then belongs to the head.
    fn count_head(&mut self, before: Phases) {
        if self.measuring {
            self.head_share += self.ops.phases() - before;
        }
    }

    /// Logits of the first rows of `normed`, or of the gathered ones.
    fn run_head(&mut self, rows: usize, gathered: bool) -> Result<(), Error> {
        let before = self.phases_so_far();
        let Decoder {
            ops, workspace, finals, ..
        } = self;
        ops.read_as(0);
        finals.reserve_logits(ops, rows)?;
        let (weight, bias) = match &self.head {
            Some(head) => (&head.weight, head.bias.as_ref()),
            None => (self.embedding.table(), None),
        };
        let normed = match &finals.gathered {
            Some(rows) if gathered => rows,
            _ => &workspace.normed,
        };
        let input = match &mut workspace.embedded {
            Some(output) => self.embedding.project_out(ops, rows, normed, output),
            None => normed,
        };
        ops.linear(Linear {
            rows,
            input,
            weights: &[weight],
            biases: &[bias],
            outputs: &mut [&mut finals.logits],
        });
        if let Some(cap) = self.architecture.logits.softcap {
            ops.gate(Gate {
                rows,
                activation: Activation::Softcap(cap),
                gate: &mut finals.logits,
                up: None,
            });
        }
        self.count_head(before);
        Ok(())
    }

    /// The logits of all rows of a pass; `first` is the chunk and its token of row 0.
    pub(super) fn report_all(
        &mut self,
        (chunk, first): (usize, usize),
        rows: usize,
        pending: Option<Pending>,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        for start in (0..rows).step_by(LOGIT_ROWS) {
            let count = LOGIT_ROWS.min(rows - start);
            // `hidden` takes up what is pending when it is normed: once for every row.
            self.normalize(start..start + count, pending);
            self.run_head(count, false)?;
            let Finals { logits, staging, .. } = &mut self.finals;
            let values = self.ops.read(logits, 0..count, staging).map_err(device_error)?;
            for (index, logits) in values.chunks_exact(self.architecture.vocabulary).enumerate() {
                let token = first + start + index;
                each(Row { chunk, token, logits });
            }
        }
        Ok(())
    }

    /// The head for all rows that wait: chooses tokens for the first of them, reports the logits of the others, and of those first
    /// ones that want both.
    pub(super) fn run_finals(
        &mut self,
        lists: &Lists,
        chunks: &[Chunk<'_>],
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<Option<Ticket>, Error> {
        let rows = std::mem::take(&mut self.finals.rows);
        if rows == 0 {
            return Ok(None);
        }
        let choices = chunks.iter().filter(|chunk| chunk.want.is_choice()).count();
        let gathered = !lists.is_whole(chunks);
        self.run_head(rows, gathered)?;
        for (row, &chunk) in lists.order[..choices].iter().enumerate() {
            if matches!(chunks[chunk].want, Want::Choice { report: true, .. }) {
                let Finals { logits, staging, .. } = &mut self.finals;
                let logits = self.ops.read(logits, row..row + 1, staging).map_err(device_error)?;
                let token = chunks[chunk].input.count() - 1;
                each(Row { chunk, token, logits });
            }
        }
        let late = chunks.iter().any(|chunk| matches!(chunk.want, Want::Later));
        let ticket = match choices {
            0 => None,
            _ if late => {
                self.finals.late = places(&lists.order[..choices], chunks);
                self.ops.flush().map_err(device_error)?;
                None
            }
            _ => Some(self.choose(&lists.order[..choices], chunks)?),
        };
        if choices < rows {
            let Finals { logits, staging, .. } = &mut self.finals;
            let values = self.ops.read(logits, choices..rows, staging).map_err(device_error)?;
            let wants_logits = |&&index: &&usize| {
                let chunk = &chunks[index];
                let all_of_one = matches!(chunk.want, Want::AllLogits) && chunk.input.count() == 1;
                matches!(chunk.want, Want::Logits) || all_of_one
            };
            let indices = lists.order.iter().filter(wants_logits);
            for (logits, &chunk) in values.chunks_exact(self.architecture.vocabulary).zip(indices) {
                let token = chunks[chunk].input.count() - 1;
                each(Row { chunk, token, logits });
            }
        }
        Ok(ticket)
    }

    /// Tokens by the first rows of logits, for these chunks.
    fn choose(&mut self, order: &[usize], chunks: &[Chunk<'_>]) -> Result<Ticket, Error> {
        let rows = order.iter().map(|&index| {
            let Chunk { cache, want, .. } = &chunks[index];
            let Want::Choice {
                choice,
                adjustments,
                mask,
                report: _,
            } = *want
            else {
                panic!("chunks want their choices now or later, all of them")
            };
            RowChoice {
                slot: cache.slot_of(&self.slots),
                choice,
                adjustments,
                mask,
            }
        });
        let rows: SmallVec<[RowChoice<'_>; FEW_ROWS]> = rows.collect();
        self.choose_rows(&rows, places(order, chunks))
    }

    /// Tokens by the logits that the last call left for that, in the order of its chunks.
    pub(super) fn choose_late(&mut self, choices: &[LateChoice<'_>]) -> Result<Ticket, Error> {
        let places = std::mem::take(&mut self.finals.late);
        assert_eq!(choices.len(), places.len(), "a choice for each chunk that wanted one");
        let row = |row: usize| {
            let index = places.iter().position(|&place| place as usize == row);
            let LateChoice {
                cache,
                choice,
                adjustments,
                mask,
            } = choices[index.expect("a place")];
            RowChoice {
                slot: cache.slot_of(&self.slots),
                choice,
                adjustments,
                mask,
            }
        };
        let rows: SmallVec<[RowChoice<'_>; FEW_ROWS]> = (0..choices.len()).map(row).collect();
        self.choose_rows(&rows, places)
    }

    fn choose_rows(&mut self, rows: &[RowChoice<'_>], places: SmallVec<[u16; FEW_ROWS]>) -> Result<Ticket, Error> {
        let Finals {
            logits,
            chosen,
            launched,
            taken,
            ..
        } = &mut self.finals;
        if *launched - *taken == MOST_CHOICES as u64 {
            // Given up by whoever asked for them.
            self.ops.take(chosen, &mut Vec::new()).map_err(device_error)?;
            *taken += 1;
        }
        let problem = Choose { logits, rows, chosen };
        self.ops.choose(problem).map_err(device_error)?;
        *launched += 1;
        Ok(Ticket {
            number: *launched,
            places,
        })
    }
}

/// Of every chunk that wants a choice, its place in the order.
fn places(order: &[usize], chunks: &[Chunk<'_>]) -> SmallVec<[u16; FEW_ROWS]> {
    let wanting = chunks.iter().enumerate().filter(|(_, chunk)| chunk.want.is_choice());
    let place = |index: usize| order.iter().position(|&ordered| ordered == index).expect("ordered") as u16;
    wanting.map(|(index, _)| place(index)).collect()
}

impl Lists {
    /// Whether one group held all chunks.
    fn is_whole(&self, chunks: &[Chunk<'_>]) -> bool {
        self.spans.len() == chunks.len()
    }
}
