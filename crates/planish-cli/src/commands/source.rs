//! MODEL on the command line: a folder, a `.gguf` file, or a Hub id that is fetched first; without it, the demo model.

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

/// Opens what a command runs: MODEL, or the demo model, with a notice on standard error.
pub fn open_or_demo(model: Option<&str>, revision: Option<&str>) -> anyhow::Result<Source> {
    if let Some(model) = model {
        return open(model, revision);
    }
    anyhow::ensure!(
        revision.is_none(),
        "--revision is for a MODEL on the Hub, and none is given"
    );
    let checkpoint = demo()?;
    eprintln!("No MODEL given: running the small story model inside planish.");
    Ok(Source {
        checkpoint,
        hub_id: None,
    })
}

/// The model inside the program.
#[cfg(feature = "demo-model")]
pub fn demo() -> anyhow::Result<Checkpoint> {
    Ok(planish::demo_checkpoint()?)
}

/// There is none in this program.
#[cfg(not(feature = "demo-model"))]
pub fn demo() -> anyhow::Result<Checkpoint> {
    anyhow::bail!("give a MODEL: a folder, a .gguf file or a Hub id (this planish was built without its demo model)")
}
