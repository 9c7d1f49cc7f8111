//! Read-only mapped files as `Bytes`, with what is needed to notice that a file was changed under its mapping.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use memmap2::Mmap;

use super::watch::Slot;
use crate::Error;

/// A mapped file. Slices keep the mapping alive.
#[derive(Clone)]
pub(crate) struct MappedFile {
    mapping: Option<Arc<Mapping>>,
    bytes: Bytes,
}

/// A mapping and the file as it was when it was mapped.
pub(crate) struct Mapping {
    path: PathBuf,
    file: File,
    modified: Option<SystemTime>,
    slot: Option<&'static Slot>,
    map: Mmap,
}

impl Mapping {
    fn new(path: &Path, file: File, modified: Option<SystemTime>) -> Result<Mapping, Error> {
        // SAFETY: the mapping is read-only. Changing the file under it is excluded by the documentation of `Checkpoint`; what is
        // read is validated bytes, in which any bit pattern is allowed.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let start = map.as_ptr() as usize;
        Ok(Mapping {
            path: path.to_path_buf(),
            file,
            modified,
            slot: Slot::take(start..start + map.len()),
            map,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, and its size and time of writing.
    pub fn identity(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy();
        let since = self
            .modified
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.unwrap_or_default();
        let time = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        (
            name.into_owned(),
            format!("{} bytes, written {time} s after 1970", self.map.len()),
        )
    }

    /// That no part of the file was gone when it was read.
    pub fn check_whole(&self) -> Result<(), Error> {
        match self.slot {
            Some(slot) if slot.is_lost() => Err(Error::changed(&self.path, "it was cut short")),
            _ => Ok(()),
        }
    }

    /// That the file is as it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.check_whole()?;
        let metadata = self.file.metadata().map_err(Error::io(&self.path))?;
        let (before, now) = (self.map.len() as u64, metadata.len());
        if before != now {
            return Err(Error::changed(
                &self.path,
                format!("it had {before} bytes and has {now}"),
            ));
        }
        match self.modified == metadata.modified().ok() {
            true => Ok(()),
            false => Err(Error::changed(&self.path, "it was written to")),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.free();
        }
    }
}

/// Lets `Bytes` own a share of the mapping.
struct Owner(Arc<Mapping>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl MappedFile {
    /// Maps a whole file.
    pub fn open(path: &Path) -> Result<MappedFile, Error> {
        let (file, metadata) = open_file(path)?;
        if metadata.len() == 0 {
            return Ok(MappedFile::of_bytes(Bytes::new()));
        }
        let mapping = Arc::new(Mapping::new(path, file, metadata.modified().ok())?);
        let bytes = Bytes::from_owner(Owner(mapping.clone()));
        Ok(MappedFile {
            mapping: Some(mapping),
            bytes,
        })
    }

    /// Content that is in memory already.
    pub fn of_bytes(bytes: Bytes) -> MappedFile {
        MappedFile { mapping: None, bytes }
    }

    /// The whole content.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is mapped, if it is a file.
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }

    /// Drops the resident pages that touch `range`; later reads fetch them from the file again.
    #[cfg(unix)]
    pub fn release(&self, range: Range<usize>) {
        use memmap2::UncheckedAdvice;
        let Some(mapping) = &self.mapping else { return };
        let map = &mapping.map;
        // Reading a page maps what else of its 64 KiB of addresses is in memory, pages of neighbours too: all of these are
        // dropped, or what stays would grow with the number of tensors. 64 KiB is a multiple of every page size met.
        let (around, base) = (1 << 16, map.as_ptr() as usize);
        let start = ((base + range.start) / around * around).saturating_sub(base);
        let end = ((base + range.end).next_multiple_of(around) - base).min(map.len());
        if start < end {
            // SAFETY: the mapping is read-only and backed by a file, so dropped pages come back with the same content, also
            // under slices that are in use.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    /// Nothing to tell the system here.
    #[cfg(not(unix))]
    pub fn release(&self, _range: Range<usize>) {}
}

/// Opens a regular file, never a pipe.
pub(super) fn open_file(path: &Path) -> Result<(File, std::fs::Metadata), Error> {
    // Asked before opening: opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(Error::io(path))?;
    if !kind.is_file() {
        return Err(Error::malformed(path, "expected a file, found something else"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let metadata = file.metadata().map_err(Error::io(path))?;
    Ok((file, metadata))
}
