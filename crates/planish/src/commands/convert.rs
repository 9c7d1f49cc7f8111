//! `planish convert`.

/// Flags of `planish convert`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("convert is not there yet")
}
