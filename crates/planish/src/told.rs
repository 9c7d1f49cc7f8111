//! An answer's text as it comes: whole characters, by part, up to a stop string.

use std::ops::ControlFlow;

use planish_generate::{Answer, AnswerText, Finish, GenerationPlan, Part, StopStrings};

use crate::{CausalLM, Error, TextAnswer, TextStep};

/// What was told of an answer.
pub(crate) struct Told<'a> {
    pieces: AnswerText<'a>,
    stops: StopStrings,
    text: String,
    reasoning: String,
}

impl<'a> Told<'a> {
    /// Nothing yet. An answer that goes on with a text has its tokens as `context`.
    pub(crate) fn new(model: &'a CausalLM, plan: &GenerationPlan, context: &[u32]) -> Result<Told<'a>, Error> {
        Ok(Told {
            pieces: AnswerText::new(model.tokenizer()?.tokenizer(), context)?,
            stops: StopStrings::new(&plan.stop_strings),
            text: String::new(),
            reasoning: String::new(),
        })
    }

    /// Tells what the next token makes certain. Breaks off at a stop string, and where the receiver does.
    pub(crate) fn take(
        &mut self,
        token: u32,
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let piece = self.pieces.push(token)?;
        Ok(self.tell(piece, on_step))
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
        })
    }

    fn tell(
        &mut self,
        (part, piece): (Part, String),
        on_step: &mut dyn FnMut(TextStep<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if part == Part::Reasoning {
            self.reasoning.push_str(&piece);
            return on_step(TextStep::Reasoning(&piece));
        }
        let shown = self.stops.push(&piece);
        self.text.push_str(&shown);
        let flow = on_step(TextStep::Text(&shown));
        match self.stops.is_stopped() {
            true => ControlFlow::Break(()),
            false => flow,
        }
    }
}
