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
            let bar = bar("{msg} {wide_bar} {percent:>3} % {eta}", Some(total));
            bar.set_message(self.what);
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// As [`set`](Self::set), with words about the work in place of the time that is left. Without a total there is no bar.
    pub(crate) fn tell(&mut self, done: u64, total: Option<u64>, words: impl FnOnce() -> String) {
        if !self.draws || self.bar.is_none() && self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template =
                if total.is_some() { "{wide_bar} {percent:>3} % {msg}" } else { "{spinner} {msg}" };
            bar(template, total)
        });
        bar.set_position(done);
        bar.set_message(words());
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

/// A bar, or without a total what turns instead.
fn bar(template: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
