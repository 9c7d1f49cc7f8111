//! Memory in huge pages, where the system gives them: of 2 MiB instead of 4 KiB, so that reading it needs fewer translations of
//! addresses. On Linux a hint (`madvise`, transparent huge pages); elsewhere nothing happens.

/// Bytes of a huge page on x86-64 and on AArch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

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

#[cfg(target_os = "linux")]
fn advise(memory: &mut [std::mem::MaybeUninit<u8>]) {
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
fn advise(_memory: &mut [std::mem::MaybeUninit<u8>]) {}

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
