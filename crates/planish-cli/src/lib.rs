//! The `planish` program as a function, which the binary and the package of Python call: one command per file in `commands`.

mod commands;
mod hints;
mod memory;

use std::ffi::OsString;
use std::io;
use std::panic::{self, PanicHookInfo};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use planish::{Error, Isa, QuantizeError};

use commands::interrupt;

#[global_allocator]
static MEMORY: memory::Watched = memory::Watched;

/// Exit codes.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization.
#[derive(Parser, Debug)]
#[command(name = "planish", version, about)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Pack a checkpoint's linear layers into 2- to 8-bit codes.
    Quantize(commands::quantize::Arguments),
    /// Turn a packed checkpoint or a GGUF file into plain floats.
    Dequantize(commands::dequantize::Arguments),
    /// Move a packed checkpoint between the metal and MLX dialects, codes untouched.
    Convert(commands::convert::Arguments),
    /// Show what a checkpoint holds: shapes, bits, groups, bytes.
    Inspect(commands::inspect::Arguments),
    /// List the model families that can be run, and what is tested of each.
    Models(commands::models::Arguments),
    /// Answer a prompt, or continue a text.
    Generate(commands::generate::Arguments),
    /// Talk with a model.
    Chat(commands::chat::Arguments),
    /// Answer many clients over HTTP, as OpenAI's API does.
    Serve(commands::serve::Arguments),
    /// Measure prefill and decode rates, load time and memory.
    Bench(commands::bench::Arguments),
    /// Perplexity on a text; divergence from a reference model; multiple-choice questions.
    Evaluate(commands::evaluate::Arguments),
    /// Pack a model in many ways and plot how far each is from it.
    Sweep(commands::sweep::Arguments),
    /// A guided minute: quantize the demo model at 2, 4 and 8 bits, compare, and read a story by each.
    #[cfg(feature = "demo-model")]
    Demo(commands::demo::Arguments),
}

fn run(command: &Command) -> anyhow::Result<u8> {
    // Before any loop runs: a wrong name in the environment is refused by every command.
    Isa::chosen()?;
    match command {
        Command::Quantize(arguments) => commands::quantize::run(arguments)?,
        Command::Dequantize(arguments) => commands::dequantize::run(arguments)?,
        Command::Convert(arguments) => commands::convert::run(arguments)?,
        Command::Inspect(arguments) => commands::inspect::run(arguments)?,
        Command::Models(arguments) => commands::models::run(arguments)?,
        Command::Generate(arguments) => return commands::generate::run(arguments),
        Command::Chat(arguments) => return commands::chat::run(arguments),
        Command::Serve(arguments) => commands::serve::run(arguments)?,
        Command::Bench(arguments) => commands::bench::run(arguments)?,
        Command::Evaluate(arguments) => commands::evaluate::run(arguments)?,
        Command::Sweep(arguments) => commands::sweep::run(arguments)?,
        #[cfg(feature = "demo-model")]
        Command::Demo(arguments) => return commands::demo::run(arguments),
    }
    Ok(SUCCESS)
}

/// The command line. A negative number is the value of the flag before it, which says what it expects, and never a flag.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Program, clap::Error> {
    let takes_negative = |argument: clap::Arg| {
        let is_flag = argument.get_long().is_some() && argument.get_action().takes_values();
        argument.allow_negative_numbers(is_flag)
    };
    let command = Program::command().mut_subcommands(|command| command.mut_args(takes_negative));
    Program::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// Runs the program; `arguments` begin with its name. It is the only one of the process: signals, panics and memory that runs out are
/// handled as the program wants it.
///
/// Returns the exit code: 0 success, 1 a failure that the message explains, 2 wrong usage (clap's), 130 ended by Ctrl-C, 143 by TERM,
/// 129 by HUP.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    memory::watch();
    let program = match parse(arguments) {
        Ok(program) => program,
        Err(usage) => {
            // As clap ends a program, whether or not somebody reads it.
            let _ = usage.print();
            return if usage.use_stderr() { WRONG_USAGE } else { SUCCESS };
        }
    };
    panic::set_hook(Box::new(report_panic));
    planish::watch_mappings();
    match panic::catch_unwind(|| run(&program.command)) {
        Ok(Ok(code)) => code,
        // Who reads the output has seen enough.
        Ok(Err(error)) if is_closed_pipe(&error) => SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {}", hints::describe(&error));
            if is_stopped(&error) {
                interrupt::exit_code()
            } else {
                FAILURE
            }
        }
        Err(panic) => {
            match panic_text(&*panic).and_then(failed_print) {
                Some(reason) if reason.contains("Broken pipe") => return SUCCESS,
                Some(reason) => eprintln!("error: standard output: {reason}"),
                None => {}
            }
            FAILURE
        }
    }
}

/// Whether a signal ended a conversion.
fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::Quantize(QuantizeError::Stopped { .. }))
    )
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kinds = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    kinds.into_iter().any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// A mistake of ours, in one line that helps to report it.
fn report_panic(panic: &PanicHookInfo) {
    let text = panic_text(panic.payload()).unwrap_or("no message");
    // Printing that fails is told at the end, and what a file does to the crates of others by an error.
    if failed_print(text).is_some() || planish::in_foreign_code() {
        return;
    }
    if let Some(cause) = no_thread(text) {
        eprintln!("error: out of memory, or of processes: the system gives no thread more ({cause})");
        return;
    }
    let place = panic
        .location()
        .map(|place| format!(" ({}:{})", place.file(), place.line()))
        .unwrap_or_default();
    eprintln!("error: a mistake in planish itself, please report it: {text}{place}");
}

fn panic_text(payload: &dyn std::any::Any) -> Option<&str> {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
}

/// Why a thread could not be begun, where a crate of others takes threads for granted.
fn no_thread(text: &str) -> Option<&str> {
    let wants_thread = text.contains("ThreadPoolBuildError") || text.starts_with("failed to spawn thread");
    let (_, cause) = text.split_once("message: \"")?;
    cause.split('"').next().filter(|_| wants_thread)
}

/// Why `println!` panicked: a closed pipe, a full disk.
fn failed_print(text: &str) -> Option<&str> {
    text.strip_prefix("failed printing to stdout: ")
}
