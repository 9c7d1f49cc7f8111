//! An answer on standard output as it comes, ended by Ctrl-C, and what is told of it on standard error.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use planish::{Answer, CausalLM, Error, Finish, TextAnswer, TextStep};

use super::interrupt;
use crate::hints::with_hint;

/// Receives the steps of an answer.
pub type OnStep<'a> = dyn FnMut(TextStep<'_>) -> ControlFlow<()> + 'a;

/// Runs `generate` with a receiver that writes the text to `output` as it comes. Ctrl-C ends the answer.
///
/// # Errors
/// What `generate` says, or output that cannot be written: a closed pipe keeps its kind, [`io::ErrorKind::BrokenPipe`].
pub fn stream(
    output: &mut dyn Write,
    generate: impl FnOnce(&mut OnStep<'_>) -> Result<TextAnswer, Error>,
) -> anyhow::Result<TextAnswer> {
    let mut failure = None;
    let watch = interrupt::watch();
    let answer = generate(&mut |step| {
        if let TextStep::Reasoning(text) = step
            && io::stderr().is_terminal()
        {
            // For whoever watches: it is no part of the answer.
            eprint!("\x1b[2m{text}\x1b[0m");
        }
        if let TextStep::Text(text) = step
            && let Err(error) = write(output, text)
        {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        match watch.is_interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(answer),
    }
}

fn write(output: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Says on standard error why the GPU that is there was not taken, and what the checkpoint asks for in vain.
pub fn print_notice(model: &CausalLM) {
    if let Some(notice) = model.notice() {
        eprintln!("computing on the CPU: {}", with_hint(notice));
    }
    for notice in model.generation_notices() {
        eprintln!("note: {notice}");
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

/// Why an answer ended early, for people.
pub const MAX_TIME_IS_OVER: &str = "the max_time of the model's generation_config.json is over";

/// Why an answer ended, for programs.
pub fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::EndToken => "end_token",
        Finish::StopString => "stop_string",
        Finish::MaxNewTokens => "max_new_tokens",
        Finish::ContextFull => "context_full",
        Finish::MaxTime => "max_time",
        Finish::Interrupted => "interrupted",
    }
}
