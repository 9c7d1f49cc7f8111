//! Which chunks of a call go through the layers together. A chunk of several tokens goes alone, in passes of some hundred rows, and
//! so does one of a token of a longer prompt where that is computed otherwise; other chunks of one token go together: a row equals itself alone where [`planish_ops::PassSize::batch`] says so.

use planish_ops::{Ops, Span};

use super::pass::RowTokens;
use super::{Decoder, Lists};
use crate::Error;
use crate::batch::{Chunk, Row, Ticket, Want};

/// Chunks that go through the layers together: a part of [`Lists::order`].
struct Group {
    first: usize,
    count: usize,
}

impl<O: Ops> Decoder<O> {
    /// Chunks that want a choice first, then those that want logits; in each, several tokens before one. Few chunks: no sort that
    /// takes memory.
    fn order(chunks: &[Chunk<'_>], order: &mut Vec<usize>) {
        let rank = |chunk: &Chunk<'_>| match (chunk.want, chunk.input.is_alone::<O>()) {
            (Want::Choice { .. } | Want::Later, true) => 0,
            (Want::Choice { .. } | Want::Later, false) => 1,
            (Want::Logits | Want::AllLogits, false) => 2,
            (Want::Nothing, false) => 3,
            (Want::Logits, true) => 4,
            (Want::AllLogits | Want::Nothing, true) => 5,
        };
        order.clear();
        for wanted in 0..=5 {
            let of_rank = chunks.iter().enumerate().filter(|(_, chunk)| rank(chunk) == wanted);
            order.extend(of_rank.map(|(index, _)| index));
        }
    }

    /// All groups of chunks, then the head for those that want something.
    pub(super) fn run_groups(
        &mut self,
        lists: &mut Lists,
        chunks: &mut [Chunk<'_>],
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<Option<Ticket>, Error> {
        Self::order(chunks, &mut lists.order);
        let mut done = 0;
        while done < chunks.len() {
            let single = |&index: &usize| !chunks[index].input.is_alone::<O>();
            let run = lists.order[done..]
                .iter()
                .take(O::PASS.batch)
                .take_while(|index| single(index));
            let group = Group {
                first: done,
                count: run.count().max(1),
            };
            let whole = group.count == chunks.len();
            done += group.count;
            match &chunks[lists.order[group.first]] {
                chunk if chunk.input.is_alone::<O>() => self.run_alone(lists, &group, chunks, whole, each)?,
                _ => self.run_together(lists, &group, chunks, whole)?,
            }
        }
        self.run_finals(lists, chunks, each)
    }

    /// One chunk of several tokens, or of one of a longer prompt, in passes.
    fn run_alone(
        &mut self,
        lists: &mut Lists,
        group: &Group,
        chunks: &mut [Chunk<'_>],
        whole: bool,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        let index = lists.order[group.first];
        let Chunk { cache, input, want } = &mut chunks[index];
        let Some(tokens) = input.tokens() else {
            unreachable!("tokens of a prompt are known")
        };
        let of_prompt = input.whole();
        // Tokens of an answer are computed as in a batch of steps.
        let rows = match O::PASS.few.filter(|&few| of_prompt <= few) {
            Some(few) => self.workspace.rows.min(few),
            None => self.workspace.rows,
        };
        lists.lengths.clear();
        lists.lengths.push(cache.fix_rope_length(tokens.len()));
        let mut done = 0;
        for pass in passes(tokens, cache.len(), rows, self.period) {
            self.ops.read_as(of_prompt);
            lists.spans.clear();
            lists.spans.push(Span {
                slot: cache.slot_of(&self.slots),
                first_row: 0,
                rows: pass.len(),
                first_position: cache.len(),
            });
            let pending = self
                .run_layers(lists, RowTokens::Known(pass))
                .inspect_err(|_| cache.fail())?;
            cache.advance(pass.len());
            if matches!(want, Want::AllLogits) {
                let first = (index, done);
                self.report_all(first, pass.len(), pending, each)?;
            }
            done += pass.len();
            if done == tokens.len() && (want.is_choice() || matches!(want, Want::Logits)) {
                self.finish_rows(pass.len() - 1..pass.len(), pending, whole)?;
            }
        }
        Ok(())
    }

    /// Chunks of one token each, in one pass.
    fn run_together(
        &mut self,
        lists: &mut Lists,
        group: &Group,
        chunks: &mut [Chunk<'_>],
        whole: bool,
    ) -> Result<(), Error> {
        self.ops.read_as(1);
        let mut known = std::mem::take(&mut lists.known);
        let mut tokens = std::mem::take(&mut lists.tokens);
        known.clear();
        tokens.clear();
        lists.spans.clear();
        lists.lengths.clear();
        let members = group.first..group.first + group.count;
        let mut wanted = 0;
        for (row, &index) in lists.order[members.clone()].iter().enumerate() {
            let Chunk { cache, input, want } = &mut chunks[index];
            let token = input.tokens().map(|token| token[0]);
            known.push(token);
            tokens.extend(token);
            lists.lengths.push(cache.fix_rope_length(1));
            lists.spans.push(Span {
                slot: cache.slot_of(&self.slots),
                first_row: row,
                rows: 1,
                first_position: cache.len(),
            });
            wanted += usize::from(!matches!(want, Want::Nothing));
        }
        let of_rows = match tokens.len() == known.len() {
            true => RowTokens::Known(&tokens),
            false => RowTokens::Mixed(&known),
        };
        let result = self.run_layers(lists, of_rows);
        (lists.known, lists.tokens) = (known, tokens);
        let caches = lists.order[members].iter();
        match &result {
            Ok(_) => caches.for_each(|&index| chunks[index].cache.advance(1)),
            Err(_) => caches.for_each(|&index| chunks[index].cache.fail()),
        }
        let pending = result?;
        match wanted {
            0 => Ok(()),
            _ => self.finish_rows(0..wanted, pending, whole),
        }
    }
}

/// Tokens from `position` on in runs of at most `rows` that do not cross a multiple of `period`.
pub(crate) fn passes(
    tokens: &[u32],
    position: usize,
    rows: usize,
    period: Option<usize>,
) -> impl Iterator<Item = &[u32]> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let to_boundary = period.map_or(rows, |period| period - (position + done) % period);
        let end = tokens.len().min(done + rows.min(to_boundary));
        let pass = &tokens[done..end];
        done = end;
        (!pass.is_empty()).then_some(pass)
    })
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn passes_end_at_multiples_of_the_period() {
        let tokens: Vec<u32> = (0..20).collect();
        let lengths = |position, rows, period| -> Vec<usize> {
            let passes: Vec<&[u32]> = passes(&tokens, position, rows, period).collect();
            assert_eq!(passes.concat(), tokens);
            passes.iter().map(|pass| pass.len()).collect()
        };
        assert_eq!(lengths(0, 8, None), [8, 8, 4]);
        assert_eq!(lengths(3, 8, Some(10)), [7, 8, 2, 3]);
        assert_eq!(lengths(10, 64, Some(10)), [10, 10]);
    }
}
