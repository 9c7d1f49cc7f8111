//! Whether AMX may be used: Intel Software Developer's Manual, volume 1, chapter 18, and Linux' `arch_prctl`.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Whether the processor has tiles of bf16 and bytes and the system lets this process use them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tile, int8) = (features >> 22 & 1, features >> 24 & 1, features >> 25 & 1);
        bf16 & tile & int8 == 1 && saved_by_system() && permitted()
    })
}

/// Whether the system saves tiles when it switches threads (XCR0, bits 17 and 18).
fn saved_by_system() -> bool {
    #[target_feature(enable = "xsave")]
    fn state_components() -> u64 {
        // SAFETY: register 0 always exists where the feature does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the feature is checked first.
    is_x86_feature_detected!("xsave") && unsafe { state_components() } >> 17 & 3 == 3
}

/// Asks Linux for the permission, which holds for the whole process.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}
