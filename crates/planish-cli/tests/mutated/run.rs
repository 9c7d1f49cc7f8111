//! One run of the program, with what it took.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a run said and took.
pub struct Run {
    /// `None` after a signal, that of the deadline too.
    pub code: Option<i32>,
    pub stderr: String,
    /// Of the processor.
    pub seconds: f64,
    /// Of memory at most.
    pub bytes: u64,
}

/// Nothing of the program waits: more than this is a hang, even where many runs share the processor.
const DEADLINE: Duration = Duration::from_secs(60);

#[allow(clippy::zombie_processes, reason = "it is waited for below, with what it took")]
pub fn run(scratch: &Path, arguments: &[&str]) -> Run {
    let program = std::env::var_os("PLANISH_PROGRAM")
        .map_or_else(|| assert_cmd::cargo::cargo_bin!("planish").to_path_buf(), PathBuf::from);
    // In a file: a full pipe would have to be read meanwhile.
    let log = tempfile::NamedTempFile::new().unwrap();
    let child = Command::new(program)
        .args(arguments)
        .current_dir(scratch)
        .env("HF_HUB_OFFLINE", "1")
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let (status, usage) = wait(child.id() as libc::pid_t);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Apple's systems count bytes, others KiB.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Run {
        code: status.code(),
        stderr: String::from_utf8_lossy(&std::fs::read(log.path()).unwrap()).into_owned(),
        seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        bytes: usage.ru_maxrss as u64 * unit,
    }
}

/// Waits for the process, and ends it at the deadline.
fn wait(process: libc::pid_t) -> (ExitStatus, libc::rusage) {
    let start = Instant::now();
    let mut status = 0;
    loop {
        // SAFETY: all bytes zero are a value of this C struct.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `process` is a child that nobody else waits for, and both pointers are to variables that live on.
        match unsafe { libc::wait4(process, &mut status, libc::WNOHANG, &mut usage) } {
            0 => {}
            ended => {
                assert_eq!(ended, process, "{}", std::io::Error::last_os_error());
                return (ExitStatus::from_raw(status), usage);
            }
        }
        if start.elapsed() > DEADLINE {
            // SAFETY: as above, so that its number is not that of another process.
            unsafe { libc::kill(process, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}
