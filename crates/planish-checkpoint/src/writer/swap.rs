//! Renames a folder where none is, and exchanges two folders of one file system, in one step where the system has one.

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use std::ffi::CStr;
use std::io;
use std::path::Path;

/// Afterwards `new` has the content of `old` and the other way round.
pub(super) fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    at_once(new, old).or_else(|_| by_renames(new, old))
}

/// Gives a folder the name `to`, at which there must be nothing: not even an empty folder, which a rename would replace.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], and what else a rename says.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let error = match renamed(from, to, Manner::New) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::StorageFull => Err(error),
        // The file system knows plain renames only.
        _ if std::fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        _ => std::fs::rename(from, to),
    }
}

fn at_once(new: &Path, old: &Path) -> io::Result<()> {
    renamed(new, old, Manner::Exchange)
}

/// What a rename does with what is at its target.
enum Manner {
    New,
    Exchange,
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn renamed(from: &Path, to: &Path, manner: Manner) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let status = rename_call(&from, &to, manner);
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(target_os = "linux")]
fn rename_call(from: &CStr, to: &CStr, manner: Manner) -> libc::c_long {
    let (here, flags) = match manner {
        Manner::New => (libc::AT_FDCWD, libc::RENAME_NOREPLACE),
        Manner::Exchange => (libc::AT_FDCWD, libc::RENAME_EXCHANGE),
    };
    // SAFETY: both paths are NUL-terminated and live through the call, which keeps neither.
    unsafe { libc::syscall(libc::SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), flags) }
}

#[cfg(target_vendor = "apple")]
fn rename_call(from: &CStr, to: &CStr, manner: Manner) -> libc::c_int {
    let flags = match manner {
        Manner::New => libc::RENAME_EXCL,
        Manner::Exchange => libc::RENAME_SWAP,
    };
    // SAFETY: both paths are NUL-terminated and live through the call, which keeps neither.
    unsafe { libc::renamex_np(from.as_ptr(), to.as_ptr(), flags) }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn renamed(_from: &Path, _to: &Path, _manner: Manner) -> io::Result<()> {
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
