//! `planish convert`: a packed checkpoint from one dialect to the other, codes untouched.

use planish::{Target, convert, convert_to_gguf};

use super::output_flags::OutputFlags;

/// What can be converted to.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToFlag {
    /// transformers' MetalConfig: 2, 4 or 8 bits, linear layers only
    Metal,
    /// MLX and mlx-lm: 2, 3, 4, 5, 6 or 8 bits, embeddings and output head too
    Mlx,
    /// llama.cpp: one file, which --out names. Llama, Mistral, Qwen2 and Qwen3 with byte-level tokenizers
    Gguf,
}

/// Flags of `planish convert`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: OutputFlags,
    /// Target format
    #[arg(long, value_enum)]
    to: ToFlag,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.files.run(|source, output, on_progress| match arguments.to {
        ToFlag::Metal => convert(source, Target::Metal, output, on_progress),
        ToFlag::Mlx => convert(source, Target::Mlx, output, on_progress),
        ToFlag::Gguf => convert_to_gguf(source, output, on_progress),
    })
}
