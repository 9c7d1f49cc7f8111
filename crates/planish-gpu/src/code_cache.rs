//! Compiled kernels on disk, one file each, named by a hash of everything that the machine code depends on.
//!
//! A file is the SHA-256 of the code, then the code; anything else is as good as absent. The folder is
//! `PLANISH_KERNEL_CACHE`, else `planish/kernels` in the user's cache folder; an empty variable turns the cache off. A cache
//! that cannot be written costs time, never an error.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const HASH_BYTES: usize = 32;

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct CodeCache {
    folder: Option<PathBuf>,
}

impl CodeCache {
    /// The cache of this user.
    pub fn of_user() -> CodeCache {
        let folder = match env::var_os("PLANISH_KERNEL_CACHE") {
            Some(folder) if folder.is_empty() => None,
            Some(folder) => Some(PathBuf::from(folder)),
            None => user_folder().map(|folder| folder.join("planish").join("kernels")),
        };
        CodeCache { folder }
    }

    /// A cache in this folder, which need not exist yet.
    pub fn at(folder: &Path) -> CodeCache {
        CodeCache {
            folder: Some(folder.to_owned()),
        }
    }

    /// A file for what these parts make, written by others than this cache; its folder exists. `None` without a cache.
    #[cfg(target_vendor = "apple")]
    pub(crate) fn file(&self, parts: &[&str]) -> Option<PathBuf> {
        let path = self.path(parts)?;
        fs::create_dir_all(path.parent()?).ok()?;
        Some(path)
    }

    /// The code for these parts: compiler, device, options, text.
    pub fn get(&self, parts: &[&str]) -> Option<Vec<u8>> {
        let mut file = fs::read(self.path(parts)?).ok()?;
        let code = file.split_off(HASH_BYTES.min(file.len()));
        (file == hash(&code)).then_some(code)
    }

    /// Keeps code. The file appears whole or not at all.
    pub fn put(&self, parts: &[&str], code: &[u8]) {
        // The next start compiles again: that is all that a failure costs.
        let _ = self.try_put(parts, code);
    }

    fn try_put(&self, parts: &[&str], code: &[u8]) -> Option<()> {
        let path = self.path(parts)?;
        let folder = path.parent()?;
        fs::create_dir_all(folder).ok()?;
        let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
        file.write_all(&hash(code)).ok()?;
        file.write_all(code).ok()?;
        file.persist(path).ok()?;
        Some(())
    }

    fn path(&self, parts: &[&str]) -> Option<PathBuf> {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(name))
    }
}

fn hash(code: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(code).into()
}

/// Where this system keeps what can be made again.
fn user_folder() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(target_os = "windows") {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        absolute("HOME").map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comes_back_for_the_same_parts_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::at(&folder.path().join("not there yet"));
        assert_eq!(cache.get(&["a", "bc"]), None);
        cache.put(&["a", "bc"], b"code");
        assert_eq!(cache.get(&["a", "bc"]).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get(&["ab", "c"]), None);
    }

    #[test]
    fn damaged_files_are_as_good_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::at(folder.path());
        cache.put(&["kernel"], b"some code");
        let path = cache.path(&["kernel"]).unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [
            &whole[..whole.len() - 1],
            &whole[..10],
            b"",
            &[&whole[..], b"x"].concat(),
        ] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get(&["kernel"]), None);
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(cache.get(&["kernel"]).as_deref(), Some(&b"some code"[..]));
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_nothing_but_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = CodeCache::at(&file.path().join("below a file"));
        cache.put(&["kernel"], b"code");
        assert_eq!(cache.get(&["kernel"]), None);
    }
}
