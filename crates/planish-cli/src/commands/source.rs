//! MODEL on the command line: a folder, a `.gguf` file, or a Hub id that is fetched first; without it, the demo model.

use std::ffi::OsStr;
use std::io::{IsTerminal, stderr};

use planish::Source;

use super::progress::Bar;

/// Opens `model`, fetching it from the Hub where it is not a local path.
pub fn open(model: &OsStr, revision: Option<&str>) -> anyhow::Result<Source> {
    let bar = Bar::new();
    let source = Source::open_revision(model, revision, &mut |step| bar.download(step))?;
    if stderr().is_terminal() {
        source
            .checkpoint()
            .notices()
            .iter()
            .for_each(|notice| bar.notice(&format!("note: {notice}")));
    }
    Ok(source)
}

/// Opens what a command runs: MODEL, or the demo model, with a notice on standard error.
pub fn open_or_demo(model: Option<&OsStr>, revision: Option<&str>) -> anyhow::Result<Source> {
    if let Some(model) = model {
        return open(model, revision);
    }
    anyhow::ensure!(
        revision.is_none(),
        "--revision is for a MODEL on the Hub, and none is given"
    );
    let source = demo()?;
    eprintln!("No MODEL given: running the small story model inside planish.");
    Ok(source)
}

/// The model inside the program.
#[cfg(feature = "demo-model")]
pub fn demo() -> anyhow::Result<Source> {
    Ok(Source::demo()?)
}

/// There is none in this program.
#[cfg(not(feature = "demo-model"))]
pub fn demo() -> anyhow::Result<Source> {
    anyhow::bail!("give a MODEL: a folder, a .gguf file or a Hub id (this planish was built without its demo model)")
}
