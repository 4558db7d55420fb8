//! Ctrl-C: stops what can be stopped, else ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether someone asks [`requested`] again and again.
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C was pressed since listening began.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Exit code of an interrupted program.
pub(crate) const EXIT_CODE: u8 = 130;

/// Takes over Ctrl-C. The first one while listening is a request; any other ends the program.
pub(crate) fn install() {
    // Failing leaves the system's own handling, which ends the program: nothing is worse than before.
    let _ = ctrlc::set_handler(|| {
        if !LISTENING.load(Ordering::SeqCst) || REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    });
}

/// While this lives, Ctrl-C is a request.
#[derive(Debug)]
pub(crate) struct Listening(());

/// Begins to listen; forgets earlier requests.
pub(crate) fn listen() -> Listening {
    REQUESTED.store(false, Ordering::SeqCst);
    LISTENING.store(true, Ordering::SeqCst);
    Listening(())
}

/// Whether Ctrl-C was pressed since listening began.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.store(false, Ordering::SeqCst);
    }
}
