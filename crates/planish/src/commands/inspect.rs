//! `planish inspect`.

/// Flags of `planish inspect`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("inspect is not there yet")
}
