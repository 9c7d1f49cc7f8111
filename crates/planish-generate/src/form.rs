//! What an answer must look like: reasoning within its budget, then text by a grammar.

use crate::structured::{Grammar, Position};
use crate::{Error, GenerationPlan, Reasoning};

/// Where an answer is in its form.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    grammar: Option<Position>,
    ends: Vec<u32>,
    thinking: Thinking,
    /// Tokens that begin and end reasoning.
    marks: Option<(u32, u32)>,
    budget: Option<usize>,
    vocabulary: usize,
    /// Tokens that may follow: bit `token % 32` of word `token / 32`.
    words: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thinking {
    /// The first token may begin it.
    Perhaps,
    /// After so many tokens of it.
    Yes(usize),
    /// Not any more, or not at all.
    No,
}

impl Form {
    /// `None` where every token may follow at any time.
    pub(crate) fn of(plan: &GenerationPlan, vocabulary: usize) -> Option<Form> {
        let reasoning = plan.reading.reasoning.as_ref();
        let marks = reasoning.and_then(|marks| marks.tokens);
        let marks = marks.filter(|(open, close)| (*open.max(close) as usize) < vocabulary);
        let budget = reasoning.and_then(|marks| marks.budget).filter(|_| marks.is_some());
        if plan.grammar.is_none() && budget.is_none() {
            return None;
        }
        let thinking = |reasoning: &Reasoning| match (reasoning.opened, reasoning.may_open) {
            (true, _) => Thinking::Yes(0),
            (false, true) => Thinking::Perhaps,
            (false, false) => Thinking::No,
        };
        Some(Form {
            grammar: plan.grammar.as_ref().map(Grammar::begin),
            ends: plan.eos_token_id.clone(),
            thinking: match (marks, reasoning) {
                (Some(_), Some(reasoning)) => thinking(reasoning),
                _ => Thinking::No,
            },
            marks,
            budget,
            vocabulary,
            words: Vec::new(),
        })
    }

    /// The tokens that may follow; `None` is all.
    pub(crate) fn allowed(&mut self) -> Result<Option<&[u32]>, Error> {
        let close = self.marks.map(|(_, close)| close);
        match (self.thinking, close) {
            (Thinking::Yes(tokens), Some(close)) if self.budget.is_some_and(|budget| tokens >= budget) => {
                self.words.clear();
                self.words.resize(self.vocabulary.div_ceil(32), 0);
                self.set(close);
            }
            (Thinking::Yes(_), _) => {
                // An answer that ends in the middle of thinking has no form.
                self.words.clear();
                self.words.resize(self.vocabulary.div_ceil(32), u32::MAX);
                for index in 0..self.ends.len() {
                    let end = self.ends[index] as usize;
                    if let Some(word) = self.words.get_mut(end / 32) {
                        *word &= !(1 << (end % 32));
                    }
                }
            }
            (thinking, _) => {
                let Some(grammar) = &mut self.grammar else {
                    return Ok(None);
                };
                grammar.allow(&self.ends, &mut self.words)?;
                if let (Thinking::Perhaps, Some((open, _))) = (thinking, self.marks) {
                    self.set(open);
                }
            }
        }
        Ok(Some(&self.words))
    }

    fn set(&mut self, token: u32) {
        self.words[token as usize / 32] |= 1 << (token % 32);
    }

    /// Goes on by a token of the answer. Whether nothing can follow.
    pub(crate) fn take(&mut self, token: u32) -> Result<bool, Error> {
        let (open, close) = self.marks.unzip();
        match self.thinking {
            Thinking::Perhaps if Some(token) == open => {
                self.thinking = Thinking::Yes(0);
                return Ok(false);
            }
            Thinking::Yes(_) if Some(token) == close => {
                self.thinking = Thinking::No;
                return Ok(false);
            }
            Thinking::Yes(tokens) => {
                self.thinking = Thinking::Yes(tokens + 1);
                return Ok(false);
            }
            Thinking::Perhaps | Thinking::No => self.thinking = Thinking::No,
        }
        match &mut self.grammar {
            Some(grammar) => grammar.take(token),
            None => Ok(false),
        }
    }
}
