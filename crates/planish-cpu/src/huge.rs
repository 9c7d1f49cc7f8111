//! Memory in huge pages, where the system gives them: of 2 MiB instead of 4 KiB, so that reading it needs fewer translations of
//! addresses. On Linux a hint (`madvise`, transparent huge pages); elsewhere nothing happens.

/// Bytes of a huge page on x86-64 and on AArch64 with pages of 4 KiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// An empty vector with room for `count` bytes, in huge pages where these are so many. Only what is written takes memory, a
/// whole page at a time.
pub fn huge_vec(count: usize) -> Vec<u8> {
    if count < HUGE_PAGE {
        return Vec::with_capacity(count);
    }
    let mut vec = Vec::with_capacity(count);
    advise(vec.spare_capacity_mut());
    vec
}

/// Asks for huge pages.
#[cfg(target_os = "linux")]
pub(crate) fn advise(memory: &mut [std::mem::MaybeUninit<u8>]) {
    let start = memory.as_mut_ptr();
    let whole = memory.len() - memory.len().min(start.align_offset(HUGE_PAGE));
    let whole = whole / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 {
        let first = start.wrapping_add(start.align_offset(HUGE_PAGE));
        // SAFETY: whole pages inside of the allocation; the advice changes no contents, and its failure means ordinary pages.
        unsafe { libc::madvise(first.cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_memory: &mut [std::mem::MaybeUninit<u8>]) {}

/// Whether the system has huge pages for whoever asks.
pub(crate) fn has_huge_pages() -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    enabled.is_ok_and(|enabled| !enabled.contains("[never]"))
}

/// Bytes that may still be taken before others must give way, in this process's group and its limits too. `None` where the system
/// does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn available_memory() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: &str, key: &str| -> Option<usize> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let available = number(&read("/proc/meminfo")?, "MemAvailable:")? << 10;
    // Of a group, pages of files can be dropped, others cannot.
    let group = read("/sys/fs/cgroup/memory.max").and_then(|limit| {
        let limit: usize = limit.trim().parse().ok()?;
        Some(limit.saturating_sub(number(&read("/sys/fs/cgroup/memory.stat")?, "anon ")?))
    });
    let limit = address_space().and_then(|limit| {
        let pages: usize = read("/proc/self/statm")?.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(pages << 12))
    });
    Some(
        available
            .min(group.unwrap_or(usize::MAX))
            .min(limit.unwrap_or(usize::MAX)),
    )
}

/// The bytes that the process may map (`ulimit -v`), if there is a limit.
#[cfg(target_os = "linux")]
fn address_space() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: writes the limit given.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY)
        .then(|| usize::try_from(limit.rlim_cur).ok())
        .flatten()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn available_memory() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_is_written_at_any_size() {
        for count in [0, 1, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 1, 5 * HUGE_PAGE] {
            let mut vec = huge_vec(count);
            let start = vec.as_ptr();
            vec.extend((0..count).map(|index| (index % 251) as u8));
            assert!(vec.iter().enumerate().all(|(index, &byte)| byte == (index % 251) as u8));
            assert_eq!(vec.as_ptr(), start, "there was room for {count} bytes");
        }
    }
}
