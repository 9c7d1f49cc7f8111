//! `planish chat`.

/// Flags of `planish chat`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("chat is not there yet")
}
