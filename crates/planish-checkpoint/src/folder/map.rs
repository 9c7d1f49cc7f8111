//! Read-only mapped files as `Bytes`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

use crate::Error;

/// A mapped file. Slices keep the mapping alive.
#[derive(Clone)]
pub(crate) struct MappedFile {
    map: Option<Arc<Mmap>>,
    bytes: Bytes,
}

/// Lets `Bytes` own a share of the mapping.
struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    /// Maps a whole file.
    pub fn open(path: &Path) -> Result<MappedFile, Error> {
        // Asked before opening: opening a pipe would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::malformed(path, "expected a file, found something else"));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        if metadata.len() == 0 {
            return Ok(MappedFile {
                map: None,
                bytes: Bytes::new(),
            });
        }
        // SAFETY: the mapping is read-only and private. Changing the file under it is excluded by the documentation of
        // `Checkpoint`; what is read is validated bytes, in which any bit pattern is allowed.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let map = Arc::new(map);
        let bytes = Bytes::from_owner(Owner(map.clone()));
        Ok(MappedFile { map: Some(map), bytes })
    }

    /// Content that is in memory already.
    pub fn of_bytes(bytes: Bytes) -> MappedFile {
        MappedFile { map: None, bytes }
    }

    /// The whole content.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Drops the resident pages that touch `range`; later reads fetch them from the file again.
    #[cfg(unix)]
    pub fn release(&self, range: Range<usize>) {
        use memmap2::UncheckedAdvice;
        let Some(map) = &self.map else { return };
        // 64 KiB is a multiple of every page size met. Pages shared with neighbours are dropped too, or what stays would
        // grow with the number of tensors.
        let page = 1 << 16;
        let start = range.start / page * page;
        let end = range.end.next_multiple_of(page).min(map.len());
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
