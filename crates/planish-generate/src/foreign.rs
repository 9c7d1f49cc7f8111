//! Calls into crates of others that may panic on what a file holds. The panic becomes an error, and a program's panic hook can tell
//! it from a mistake of its own.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// For recursion in parsers and in the destructors of nested values; taken from the system as it is touched.
const STACK_BYTES: usize = 256 << 20;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread is inside of a call whose panics become errors: a panic hook has nothing to report then.
pub fn in_foreign_code() -> bool {
    DEPTH.get() > 0
}

/// What `call` returns, or the words of its panic.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| words(&*panic))
}

/// As [`guarded`], on a stack of its own that deep recursion does not overflow.
pub(crate) fn on_own_stack<T: Send>(call: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        match builder.spawn_scoped(scope, || guarded(call)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| Err(words(&*panic))),
            Err(error) => Err(format!("no thread for it: {error}")),
        }
    })
}

/// As [`on_own_stack`], for so long; `None` when it has not ended then. Its thread cannot be stopped: it goes on until the program ends.
pub(crate) fn within<T: Send + 'static>(
    time: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<Result<T, String>> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        // Nobody waits any more where this fails.
        let _ = sender.send(guarded(call));
    };
    match thread::Builder::new().stack_size(STACK_BYTES).spawn(run) {
        Ok(_) => receiver.recv_timeout(time).ok(),
        Err(error) => Some(Err(format!("no thread for it: {error}"))),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
