//! Signals that ask the program to end (Ctrl-C, TERM, HUP). While it answers or writes they are only noted, so that it can end by
//! itself with nothing left behind. A second Ctrl-C ends it at once; TERM and HUP, which systems send twice, do not. Elsewhere they end
//! it as usual.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a shell adds to the number of the signal that ended a program.
const EXIT_BASE: u8 = 128;

static STATE: LazyLock<State> = LazyLock::new(State::new);

struct State {
    /// Whether Ctrl-C ends the program: nobody watches, or a signal has come already.
    ends: Arc<AtomicBool>,
    /// Whether nobody watches.
    unwatched: Arc<AtomicBool>,
    /// The signal that came last while somebody watched; 0 if none did.
    signal: Arc<AtomicUsize>,
}

impl State {
    fn new() -> State {
        let state = State {
            ends: Arc::new(AtomicBool::new(true)),
            unwatched: Arc::new(AtomicBool::new(true)),
            signal: Arc::default(),
        };
        #[cfg(unix)]
        let signals = [SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
        #[cfg(not(unix))]
        let signals = [SIGINT, SIGTERM];
        for signal in signals {
            // Without a handler the signal ends the program, as it does everywhere: nothing to report. In this order.
            let code = i32::from(EXIT_BASE) + signal;
            let at_once = if signal == SIGINT {
                &state.ends
            } else {
                &state.unwatched
            };
            let _ = flag::register_conditional_shutdown(signal, code, at_once.clone());
            let _ = flag::register_usize(signal, state.signal.clone(), signal as usize);
            let _ = flag::register(signal, state.ends.clone());
        }
        state
    }
}

/// Something that can be interrupted, until it is dropped.
pub struct Watch(());

/// From now on a signal is only noted.
pub fn watch() -> Watch {
    STATE.signal.store(0, Ordering::SeqCst);
    STATE.ends.store(false, Ordering::SeqCst);
    STATE.unwatched.store(false, Ordering::SeqCst);
    Watch(())
}

impl Watch {
    /// Whether a signal came.
    pub fn is_interrupted(&self) -> bool {
        self.flag().load(Ordering::SeqCst)
    }

    /// Set by the signal.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &STATE.ends
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        STATE.ends.store(true, Ordering::SeqCst);
        // Where the first TERM or HUP ends the program, the second must not end it before it has said why.
        STATE.unwatched.store(!must_end(), Ordering::SeqCst);
    }
}

/// What a shell reports for a program that the last signal ended.
pub fn exit_code() -> u8 {
    let signal = match STATE.signal.load(Ordering::SeqCst) {
        0 => SIGINT as usize,
        signal => signal,
    };
    EXIT_BASE + u8::try_from(signal).unwrap_or(0)
}

/// Whether the last signal was not the user's word to an answer: the program is to end.
pub fn must_end() -> bool {
    !matches!(STATE.signal.load(Ordering::SeqCst) as i32, 0 | SIGINT)
}
