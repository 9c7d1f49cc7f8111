//! `planish generate`.

/// Flags of `planish generate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("generate is not there yet")
}
