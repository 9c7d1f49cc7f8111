//! The `planish` program: one command per file in `commands`.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Continue a prompt.
    Generate(commands::generate::Arguments),
    /// Talk with a model.
    Chat(commands::chat::Arguments),
    /// Measure prefill and decode rates, load time and memory.
    Bench(commands::bench::Arguments),
    /// Perplexity on a text; divergence from a reference model.
    Evaluate(commands::evaluate::Arguments),
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Quantize(arguments) => commands::quantize::run(arguments),
        Command::Dequantize(arguments) => commands::dequantize::run(arguments),
        Command::Convert(arguments) => commands::convert::run(arguments),
        Command::Inspect(arguments) => commands::inspect::run(arguments),
        Command::Generate(arguments) => commands::generate::run(arguments),
        Command::Chat(arguments) => commands::chat::run(arguments),
        Command::Bench(arguments) => commands::bench::run(arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(arguments),
    }
}

fn main() -> ExitCode {
    match run(&Program::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
