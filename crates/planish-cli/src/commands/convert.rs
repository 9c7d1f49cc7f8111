//! `planish convert`: a packed checkpoint from one dialect to the other, codes untouched.

use planish::convert;

use super::output_flags::{FormatFlag, OutputFlags};

/// Flags of `planish convert`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: OutputFlags,
    /// Target format
    #[arg(long, value_enum)]
    to: FormatFlag,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let target = arguments.to.target();
    arguments
        .files
        .run(|source, output, on_progress| convert(source, target, output, on_progress))
}
