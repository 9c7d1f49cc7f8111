//! `planish dequantize`: a packed checkpoint or GGUF file to plain floats.

use planish::dequantize;

use super::output_flags::{DtypeFlag, OutputFlags};

/// Flags of `planish dequantize`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: OutputFlags,
    /// Type of all floats [default: that of the scales; for GGUF types with two-level scales bfloat16]
    #[arg(long, value_enum)]
    dtype: Option<DtypeFlag>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let float_type = arguments.dtype.map(DtypeFlag::float_type);
    arguments
        .files
        .run(|source, output, on_progress| dequantize(source, float_type, output, on_progress))
}
