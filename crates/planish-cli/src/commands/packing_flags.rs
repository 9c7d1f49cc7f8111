//! Bits, group and exceptions as flags give them.

use anyhow::Context;
use planish::{FormatError, Override, Packing};

/// Bits and group; an error names the flags.
pub fn packing(bits: u32, group: Option<usize>) -> anyhow::Result<Packing> {
    let group = group.unwrap_or(Packing::DEFAULT_GROUP);
    Packing::checked(bits, group).map_err(|error| match error {
        FormatError::Group { .. } => anyhow::Error::from(error).context(format!("--group-size {group}")),
        _ => anyhow::Error::from(error).context(format!("--bits {bits}")),
    })
}

/// Exceptions, whose group is that of `packing` unless they say another.
pub fn overrides(texts: &[String], packing: Packing) -> anyhow::Result<Vec<Override>> {
    let parsed = texts.iter().map(|text| Override::parse(text, packing));
    parsed.collect::<Result<_, _>>().context("--override")
}

/// For clap: bits that a code may have.
pub fn bits(text: &str) -> Result<u32, String> {
    let bits = text.parse().map_err(|_| "expected a number".to_owned())?;
    let packing = Packing::checked(bits, Packing::DEFAULT_GROUP).map_err(|error| error.to_string())?;
    Ok(packing.bits())
}
