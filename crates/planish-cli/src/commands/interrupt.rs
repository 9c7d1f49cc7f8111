//! Ctrl-C while a model answers: the first ends the answer, a second the program. Elsewhere it ends the program as usual.

use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const INTERRUPTED: u8 = 2;

/// What a shell reports for a program that Ctrl-C ended.
pub const EXIT_CODE: u8 = 130;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// An answer that can be interrupted, until it is dropped.
pub struct Watch(());

/// From now on Ctrl-C is only noted.
pub fn watch() -> Watch {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // Without a handler Ctrl-C ends the program, as it does everywhere: nothing to report.
        let _ = ctrlc::set_handler(|| {
            let noted = STATE.compare_exchange(ANSWERING, INTERRUPTED, Ordering::SeqCst, Ordering::SeqCst);
            if noted.is_err() {
                std::process::exit(i32::from(EXIT_CODE));
            }
        });
    });
    STATE.store(ANSWERING, Ordering::SeqCst);
    Watch(())
}

impl Watch {
    /// Whether Ctrl-C came.
    pub fn is_interrupted(&self) -> bool {
        STATE.load(Ordering::SeqCst) == INTERRUPTED
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::SeqCst);
    }
}
