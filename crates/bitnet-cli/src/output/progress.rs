//! [`Progress`]: a bar on a terminal for what takes long, nothing at all for what does not.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Notes;

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// Progress of one piece of work; cleared when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    draws: bool,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins; nothing shows yet.
    pub(crate) fn new(what: &'static str, notes: Notes) -> Self {
        Self { what, draws: notes.draws(), start: Instant::now(), bar: None }
    }

    /// Notes that `done` of `total` are done.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if !self.draws || self.bar.is_none() && self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {eta}");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(self.what);
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Runs `f`, which writes, with the bar out of its way.
    pub(crate) fn hide(&mut self, f: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.draws = false;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
