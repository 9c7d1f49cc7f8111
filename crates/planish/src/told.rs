//! An answer's text as it comes: whole characters, by part, up to a stop string.

use std::ops::ControlFlow;

use planish_generate::{Answer, AnswerText, Call, Finish, GenerationPlan, Piece, StopStrings};

use crate::{CausalLM, Error, TextAnswer, TextStep};

/// What was told of an answer.
pub(crate) struct Told<'a> {
    pieces: AnswerText<'a>,
    stops: StopStrings,
    text: String,
    reasoning: String,
    reasoning_tokens: usize,
    calls: Vec<Call>,
}

impl<'a> Told<'a> {
    /// Nothing yet. An answer that goes on with a text has its tokens as `context`.
    pub(crate) fn new(model: &'a CausalLM, plan: &GenerationPlan, context: &[u32]) -> Result<Told<'a>, Error> {
        Ok(Told {
            pieces: AnswerText::new(model.tokenizer()?.tokenizer(), context, &plan.reading)?,
            stops: StopStrings::new(&plan.stop_strings),
            text: String::new(),
            reasoning: String::new(),
            reasoning_tokens: 0,
            calls: Vec::new(),
        })
    }

    /// Whether the next token is taken for one of the answer itself.
    pub(crate) fn is_in_answer(&self) -> bool {
        self.pieces.is_in_answer()
    }

    /// Tells what the next token makes certain. Breaks off at a stop string, and where the receiver does.
    pub(crate) fn take(
        &mut self,
        token: u32,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        self.reasoning_tokens += usize::from(self.pieces.is_in_reasoning());
        let pieces = self.pieces.push(token)?;
        Ok(self.tell(pieces, on_step))
    }

    /// Tells what was held back. The answer is whole: there is nothing to break off.
    pub(crate) fn finish(
        mut self,
        mut answer: Answer,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<TextAnswer, Error> {
        let last = self.pieces.finish()?;
        let _ = self.tell(last, on_step);
        let rest = self.stops.finish();
        if !rest.is_empty() {
            self.text.push_str(&rest);
            let _ = on_step(TextStep::Text(&rest));
        }
        if self.stops.is_stopped() {
            answer.finish = Finish::StopString;
        }
        Ok(TextAnswer {
            answer,
            text: self.text,
            reasoning: self.reasoning,
            stop: self.stops.found().map(str::to_owned),
            reasoning_tokens: self.reasoning_tokens,
            calls: self.calls,
        })
    }

    fn tell(
        &mut self,
        pieces: Vec<Piece>,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for piece in pieces {
            if self.stops.is_stopped() {
                break;
            }
            match piece {
                Piece::Text(piece) => {
                    let shown = self.stops.push(&piece);
                    self.text.push_str(&shown);
                    on_step(TextStep::Text(&shown))?;
                }
                Piece::Reasoning(piece) => {
                    self.reasoning.push_str(&piece);
                    on_step(TextStep::Reasoning(&piece))?;
                }
                Piece::Call(name) => {
                    // What may be the beginning of a stop string is none.
                    let held = self.stops.finish();
                    self.text.push_str(&held);
                    on_step(TextStep::Text(&held))?;
                    on_step(TextStep::Call(&name))?;
                    self.calls.push(Call {
                        name,
                        arguments: String::new(),
                    });
                }
                Piece::Arguments(piece) => {
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(&piece);
                    }
                    on_step(TextStep::Arguments(&piece))?;
                }
            }
        }
        match self.stops.is_stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
