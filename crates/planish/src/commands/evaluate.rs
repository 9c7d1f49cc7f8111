//! `planish evaluate`.

/// Flags of `planish evaluate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("evaluate is not there yet")
}
