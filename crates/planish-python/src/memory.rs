//! The memory of the process.
#![allow(unsafe_code, reason = "a call of libc")]

/// The most bytes that it has had so far.
pub fn peak_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: fills the structure given.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0;
    if failed {
        return 0;
    }
    // SAFETY: was filled; zeros are valid, too.
    let most = unsafe { usage.assume_init() }.ru_maxrss.unsigned_abs();
    // Kilobytes, but on Apple's systems.
    if cfg!(target_vendor = "apple") {
        most
    } else {
        most * 1024
    }
}
