//! MODEL on the command line: a folder, a `.gguf` file, or a Hub id that is fetched first.

use std::path::Path;

use planish_checkpoint::{Checkpoint, resolve};

use super::progress::Bar;

/// An opened model.
pub struct Source {
    /// The checkpoint, local by now.
    pub checkpoint: Checkpoint,
    /// The Hub id `org/name`, if MODEL is not a local path.
    pub hub_id: Option<String>,
}

/// Opens `model`, fetching it from the Hub where it is not a local path.
pub fn open(model: &str, revision: Option<&str>) -> anyhow::Result<Source> {
    let is_local = Path::new(model).exists();
    let bar = Bar::new();
    let path = resolve(model, revision, &mut |step| bar.download(step))?;
    drop(bar);
    let checkpoint = Checkpoint::open(&path)?;
    let repository = model.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    Ok(Source {
        checkpoint,
        hub_id: (!is_local).then_some(repository),
    })
}
