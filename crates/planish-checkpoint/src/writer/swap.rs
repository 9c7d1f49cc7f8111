//! Exchanges two folders of one file system, in one step where the system has one.

use std::io;
use std::path::Path;

/// Afterwards `new` has the content of `old` and the other way round.
pub(super) fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    at_once(new, old).or_else(|_| by_renames(new, old))
}

#[cfg(target_os = "linux")]
fn at_once(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (c_path(new)?, c_path(old)?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both paths are NUL-terminated and live through the call, which keeps neither.
    let status = unsafe { libc::syscall(libc::SYS_renameat2, here, new.as_ptr(), here, old.as_ptr(), flags) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(target_vendor = "apple")]
fn at_once(new: &Path, old: &Path) -> io::Result<()> {
    let (new, old) = (c_path(new)?, c_path(old)?);
    // SAFETY: both paths are NUL-terminated and live through the call, which keeps neither.
    let status = unsafe { libc::renamex_np(new.as_ptr(), old.as_ptr(), libc::RENAME_SWAP) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn at_once(_new: &Path, _old: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// Three renames; if one fails, what was done is undone.
fn by_renames(new: &Path, old: &Path) -> io::Result<()> {
    let mut aside = new.as_os_str().to_owned();
    aside.push(".replaced");
    let aside = Path::new(&aside);
    std::fs::rename(old, aside)?;
    if let Err(error) = std::fs::rename(new, old) {
        std::fs::rename(aside, old)?;
        return Err(error);
    }
    std::fs::rename(aside, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exchange: fn(&Path, &Path) -> io::Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        for path in [&new, &old] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("file"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        exchange(&new, &old).unwrap();
        assert_eq!(std::fs::read(old.join("file")).unwrap(), b"new");
        assert_eq!(std::fs::read(new.join("file")).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn exchanges_in_either_way() {
        check(exchange);
        check(by_renames);
    }

    #[test]
    fn a_failed_rename_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        std::fs::create_dir(&old).unwrap();
        assert!(by_renames(&new, &old).is_err());
        assert!(old.is_dir());
    }
}
