//! A loaded model that answers: its tokenizer, chat template and memory, and the text of its answer as it comes.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context;
use planish_checkpoint::Checkpoint;
use planish_generate::{
    Answer, ChatTemplate, Files, GenerationDefaults, GenerationPlan, Message, Session, Step, TemplateInput, Tokenizer,
};
use planish_model::{LoadOptions, Model};

use super::interrupt;
use super::run_flags::RunFlags;
use super::source::open_or_demo;

/// A model with all that it takes to talk.
pub struct Speaker {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// What its generation_config.json suggests.
    pub defaults: GenerationDefaults,
    /// Time to open and load all this.
    pub load: Duration,
    session: Session,
}

/// An answer with its text.
pub struct Spoken {
    /// Tokens, times, and why it ended.
    pub answer: Answer,
    /// The text as it was written.
    pub text: String,
}

impl Speaker {
    /// Loads MODEL, or the demo model, as the flags ask.
    pub fn load(model: Option<&str>, flags: &RunFlags) -> anyhow::Result<Speaker> {
        let options = flags.load_options()?;
        let checkpoint = open_or_demo(model, flags.revision.as_deref())?.checkpoint;
        let speaker = Speaker::of(&checkpoint, &options)?;
        print_notice(&speaker.model);
        Ok(speaker)
    }

    /// Loads an opened model.
    pub fn of(checkpoint: &Checkpoint, options: &LoadOptions) -> anyhow::Result<Speaker> {
        let start = Instant::now();
        let files = Files::of(checkpoint)?;
        let tokenizer = Tokenizer::new(&files)?;
        let template = ChatTemplate::new(&files)?;
        let defaults = GenerationDefaults::read(&files, Some(&tokenizer))?;
        let model = Model::load(checkpoint, options)?;
        let session = Session::new(&model)?;
        Ok(Speaker {
            model,
            tokenizer,
            template,
            defaults,
            load: start.elapsed(),
            session,
        })
    }

    /// The tokens of a conversation, up to where the answer begins.
    pub fn chat_tokens(&self, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
        let template = self.template.as_ref().context(
            "the model has no chat template: it was not trained for conversations (`planish generate` continues texts)",
        )?;
        let input = TemplateInput {
            add_generation_prompt: true,
            ..TemplateInput::default()
        };
        Ok(self.tokenizer.encode_plain(&template.render(messages, &input)?)?)
    }

    /// Continues `prompt`, writing the text to `output` as it becomes certain. Ctrl-C ends the answer.
    ///
    /// # Errors
    /// A failing model, or output that cannot be written: a closed pipe keeps its kind, [`io::ErrorKind::BrokenPipe`].
    pub fn speak(&mut self, prompt: &[u32], plan: &GenerationPlan, output: &mut dyn Write) -> anyhow::Result<Spoken> {
        let mut writer = Writer {
            output,
            text: String::new(),
        };
        let mut detokenizer = self.tokenizer.detokenizer();
        let mut failure = None;
        let watch = interrupt::watch();
        let answer = self.session.generate(&mut self.model, prompt, plan, &mut |step| {
            if let Step::Token(token) = step {
                let written = detokenizer.push(token).map_err(anyhow::Error::from);
                if let Err(error) = written.and_then(|text| Ok(writer.write(&text)?)) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if watch.is_interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        let rest = detokenizer.finish()?;
        writer.write(&rest)?;
        Ok(Spoken {
            answer,
            text: writer.text,
        })
    }

    /// Forgets the conversation.
    pub fn forget(&mut self) {
        self.session.clear();
    }
}

struct Writer<'a> {
    output: &'a mut dyn Write,
    text: String,
}

impl Writer<'_> {
    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.text.push_str(text);
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }
}

/// Says on standard error why the GPU that is there was not taken.
pub fn print_notice(model: &Model) {
    if let Some(notice) = model.notice() {
        eprintln!("{notice}");
    }
}

/// One line about an answer, for people: what was read and written, and how fast.
pub fn statistics(answer: &Answer) -> String {
    let rate = match answer.tokens.len() {
        0 | 1 => String::new(),
        _ => format!(", then {:.1} tokens/s", answer.decode_tokens_per_s()),
    };
    let reused = match answer.reused_tokens {
        0 => String::new(),
        reused => format!(" ({reused} remembered)"),
    };
    format!(
        "{} tokens read{reused} in {:.2} s at {:.1} tokens/s; {} written{rate}",
        answer.prompt_tokens,
        answer.prefill.as_secs_f64(),
        answer.prefill_tokens_per_s(),
        answer.tokens.len(),
    )
}
