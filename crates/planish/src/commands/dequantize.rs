//! `planish dequantize`.

/// Flags of `planish dequantize`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("dequantize is not there yet")
}
