//! `planish quantize`.

/// Flags of `planish quantize`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("quantize is not there yet")
}
