//! The last resort where memory runs out: what the library does not ask for with care (small things, and crates of others) would end
//! the program by a signal. Here it ends by a message and exit code 1.
//!
//! What grows with a model is asked for with care, and what is free is looked at before: see planish-cpu's `memory.rs`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// The system's allocator, which ends the program when it has nothing. Where no program runs, as in an interpreter, it is no more than
/// the system's.
pub struct Watched;

/// Whether the process is the program.
static WATCHES: AtomicBool = AtomicBool::new(false);

/// From now on memory that runs out ends the process.
pub fn watch() {
    WATCHES.store(true, Ordering::Relaxed);
}

/// Whether a thread has begun to end the program.
static ENDED: AtomicBool = AtomicBool::new(false);

// SAFETY: every call is the system's allocator's, with the arguments as given.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        checked(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn checked(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() && WATCHES.load(Ordering::Relaxed) {
        end(bytes);
    }
    memory
}

/// A line of text that takes no memory.
struct Line {
    text: [u8; 160],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let into = &mut self.text[self.length..];
        let length = text.len().min(into.len());
        into[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}

/// Says what was wanted and ends the program: no code of others runs any more, which might want memory too.
#[cfg(unix)]
#[cold]
fn end(bytes: usize) {
    let mut line = Line {
        text: [0; 160],
        length: 0,
    };
    let _ = match limit() {
        Some(limit) => writeln!(
            line,
            "error: out of memory: {bytes} bytes more are needed, and the process may have {limit} in all (ulimit -v)"
        ),
        None => writeln!(
            line,
            "error: out of memory: the system does not have {bytes} bytes more"
        ),
    };
    if !ENDED.swap(true, Ordering::SeqCst) {
        // SAFETY: the bytes of the line; then the process ends.
        unsafe {
            libc::write(libc::STDERR_FILENO, line.text.as_ptr().cast(), line.length);
            libc::_exit(1)
        }
    }
    loop {
        // SAFETY: waits for the end of the process.
        unsafe { libc::pause() };
    }
}

#[cfg(not(unix))]
fn end(_bytes: usize) {}

/// Bytes that the process may map.
#[cfg(unix)]
fn limit() -> Option<libc::rlim_t> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: writes the limit given.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
