//! What an unfinished folder is and which of its tensors are whole, for a run that goes on with it: the file `.journal` in it, a line
//! of JSON for each fact. The first line tells the run, every further one a tensor with the checksum of its data. A line that is cut
//! short ends it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The name of the file.
pub(super) const NAME: &str = ".journal";

/// What two runs must have in common to write the same bytes: (what it is, its value), in words for messages.
pub type Run = Vec<(String, String)>;

/// A tensor that is whole.
#[derive(Serialize, Deserialize)]
struct Whole {
    tensor: String,
    checksum: u64,
}

/// An open journal.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

/// A journal as it was found.
pub(super) struct Found {
    pub run: Run,
    /// Checksums by tensor.
    pub whole: HashMap<String, u64>,
}

impl Journal {
    /// Begins one in this folder, in place of what is there.
    pub fn create(folder: &Path, run: &Run) -> io::Result<Journal> {
        let path = folder.join(NAME);
        let file = File::create(&path)?;
        let mut journal = Journal { file, path };
        journal.line(run)?;
        Ok(journal)
    }

    /// Goes on with the one in this folder, which says `found`: what was cut short goes.
    pub fn resume(folder: &Path, found: &Found) -> io::Result<Journal> {
        let path = folder.join(NAME);
        let fresh = folder.join(".journal.new");
        let file = File::create(&fresh)?;
        let mut journal = Journal { file, path };
        journal.line(&found.run)?;
        for (tensor, checksum) in &found.whole {
            journal.add(tensor, *checksum)?;
        }
        std::fs::rename(&fresh, &journal.path)?;
        Ok(journal)
    }

    /// Notes a tensor whose data is whole.
    pub fn add(&mut self, tensor: &str, checksum: u64) -> io::Result<()> {
        self.line(&Whole {
            tensor: tensor.to_owned(),
            checksum,
        })
    }

    fn line(&mut self, fact: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(fact)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// The folder is whole.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Found {
    /// The journal of an unfinished folder; `None` if there is none that can be read.
    pub fn read(folder: &Path) -> Option<Found> {
        let content = std::fs::read(folder.join(NAME)).ok()?;
        let mut lines = content.split_inclusive(|byte| *byte == b'\n');
        let run = serde_json::from_slice(lines.next().filter(|line| line.ends_with(b"\n"))?).ok()?;
        let whole = lines.map_while(|line| serde_json::from_slice::<Whole>(line).ok());
        Some(Found {
            run,
            whole: whole.map(|whole| (whole.tensor, whole.checksum)).collect(),
        })
    }

    /// The first thing in which another run differs: what it is, its value here, its value there.
    pub fn difference(&self, other: &Run) -> Option<String> {
        let value = |run: &Run, what: &str| {
            let found = run.iter().find(|(name, _)| name == what);
            found.map_or("nothing".to_owned(), |(_, value)| value.clone())
        };
        let names = other.iter().chain(&self.run).map(|(what, _)| what.as_str());
        let mut differences = names.map(|what| (what, value(&self.run, what), value(other, what)));
        let (what, was, is) = differences.find(|(_, was, is)| was != is)?;
        Some(format!("{what} was {was} and is {is}"))
    }
}
