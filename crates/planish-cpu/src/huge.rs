//! Memory in huge pages, where the system gives them: of 2 MiB instead of 4 KiB, so that reading it needs fewer translations of
//! addresses. On Linux a hint (`madvise`, transparent huge pages); elsewhere nothing happens.

use planish_format::memory;

/// What the memory is for.
const WEIGHTS: &str = "weights";
/// Bytes of a huge page on x86-64 and on AArch64 with pages of 4 KiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// An empty vector with room for `count` bytes, in huge pages where these are so many. Only what is written takes memory, a
/// whole page at a time.
pub fn huge_vec(count: usize) -> Vec<u8> {
    if count < HUGE_PAGE {
        return memory::with_room(WEIGHTS, count);
    }
    let mut vec = memory::with_room(WEIGHTS, count);
    advise(vec.spare_capacity_mut());
    vec
}

/// Asks for huge pages under memory of others that was not written yet: where it is written first, whole pages come.
pub fn advise_huge(memory: &mut [u8]) {
    let (start, len) = (memory.as_mut_ptr(), memory.len());
    // SAFETY: the same bytes; none is written.
    advise(unsafe { std::slice::from_raw_parts_mut(start.cast(), len) });
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
