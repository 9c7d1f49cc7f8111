//! Files that are cut short while they are mapped. Touching what is gone is SIGBUS, which ends a program without a word; once
//! [`watch_mappings`] was called, such places read as zeros, the mapping is marked as lost, and [`super::map::MappedFile`] says so.

pub(super) use self::slots::Slot;
#[cfg(unix)]
pub use self::unix::watch_mappings;

/// Nothing to do: the system does not let a mapped file be cut.
#[cfg(not(unix))]
pub fn watch_mappings() {}

mod slots {
    //! The mapped ranges, in a table that a signal handler can read.

    use std::ops::Range;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Mappings that are watched at a time; more are mapped all the same.
    const MOST: usize = 4096;

    static SLOTS: [Slot; MOST] = [const { Slot::unused() }; MOST];

    /// Addresses of one mapping; none if `end` is 0.
    pub(in super::super) struct Slot {
        taken: AtomicBool,
        start: AtomicUsize,
        end: AtomicUsize,
        lost: AtomicBool,
    }

    impl Slot {
        const fn unused() -> Slot {
            Slot {
                taken: AtomicBool::new(false),
                start: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
                lost: AtomicBool::new(false),
            }
        }

        /// Watches a range of addresses until [`Slot::free`].
        pub fn take(range: Range<usize>) -> Option<&'static Slot> {
            let free = |slot: &&Slot| !slot.taken.swap(true, Ordering::AcqRel);
            let slot = SLOTS.iter().find(free)?;
            slot.lost.store(false, Ordering::Relaxed);
            slot.start.store(range.start, Ordering::Relaxed);
            slot.end.store(range.end, Ordering::Release);
            Some(slot)
        }

        /// Before the range is unmapped.
        pub fn free(&self) {
            self.end.store(0, Ordering::Release);
            self.taken.store(false, Ordering::Release);
        }

        /// Whether a part of the file was gone when it was read.
        pub fn is_lost(&self) -> bool {
            self.lost.load(Ordering::Acquire)
        }

        /// Marks the mapping around an address as lost; the end of it.
        #[cfg(unix)]
        pub fn lose(address: usize) -> Option<usize> {
            let around = |slot: &&Slot| {
                let end = slot.end.load(Ordering::Acquire);
                address < end && slot.start.load(Ordering::Relaxed) <= address
            };
            let slot = SLOTS.iter().find(around)?;
            slot.lost.store(true, Ordering::Release);
            Some(slot.end.load(Ordering::Acquire))
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Once, OnceLock};

    use super::Slot;

    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    /// From now on a mapped file that is cut short is an error of whoever reads it, not the end of the process. For programs: it
    /// handles SIGBUS of the whole process, and hands on what is not about a mapped checkpoint.
    pub fn watch_mappings() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: asks for a constant of the system.
            let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let Ok(page_bytes @ 1..) = usize::try_from(page_bytes) else {
                return;
            };
            PAGE_BYTES.store(page_bytes, Ordering::Relaxed);
            // SAFETY: all zeros is a valid `sigaction`; the first call fills it, the second installs a handler of the signature
            // that SA_SIGINFO asks for, which calls nothing but what may be called in one.
            unsafe {
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                if libc::sigaction(libc::SIGBUS, ptr::null(), &mut action) != 0 {
                    return;
                }
                let _ = BEFORE.set(action);
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
                action.sa_sigaction = handler as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
            }
        });
    }

    /// Puts zeros where a file ended, so that the reader goes on; who reads asks afterwards whether the file was whole.
    extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system hands a valid `siginfo_t` to a handler that was installed with SA_SIGINFO.
        let address = unsafe { (*info).si_addr() } as usize;
        let start = address & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
        let zeros = Slot::lose(address).is_some_and(|end| {
            let (protection, flags) = (
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            );
            // SAFETY: replaces pages of a mapping of ours, from one that has no file behind it to the end, none of which has one
            // then; whoever holds slices of them reads zeros. The system call is as good in a handler as elsewhere.
            let mapped = unsafe { libc::mmap(start as *mut libc::c_void, end - start, protection, flags, -1, 0) };
            mapped != libc::MAP_FAILED
        });
        if !zeros {
            hand_on(signal, info, context);
        }
    }

    /// What would have happened without this handler.
    fn hand_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        let before = BEFORE.get();
        let handler = before.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
        let with_info = before.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0);
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN || !with_info {
            // SAFETY: the default action; the instruction faults again, and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        // SAFETY: a handler that was installed with SA_SIGINFO has this signature.
        let handler: Handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    }
}
