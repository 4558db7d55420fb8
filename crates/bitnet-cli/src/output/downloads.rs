//! [`Downloads`]: bars for files that come, a line for each elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bitnet_core::MemorySize;
use bitnet_hub::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Notes;

/// Files below this size are there before a bar can be read.
const SMALL: u64 = 1 << 20;

/// What is shown while files come, from several threads.
#[derive(Debug)]
pub(crate) struct Downloads {
    notes: Notes,
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Downloads {
    /// Begins; nothing shows yet.
    pub(crate) fn new(notes: Notes) -> Self {
        let target =
            if notes.draws() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self { notes, all: MultiProgress::with_draw_target(target), bars: Mutex::default() }
    }

    /// Shows an event.
    pub(crate) fn show(&self, event: &Event<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { file, resumed, size } if self.notes.draws() && *size >= SMALL => {
                let template = "{msg} {wide_bar} {bytes:>10} of {total_bytes} {bytes_per_sec:>12} {eta}";
                let style = ProgressStyle::with_template(template);
                let bar = self.all.add(ProgressBar::new(*size));
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message((*file).to_owned());
                bar.set_position(*resumed);
                bar.reset_eta();
                bars.insert((*file).to_owned(), bar);
            }
            Event::Progress { file, bytes } => {
                if let Some(bar) = bars.get(*file) {
                    bar.set_position(*bytes);
                }
            }
            Event::Waiting { file } => {
                self.say(&format!("{file}: waiting for another process that fetches it"));
            }
            Event::Retry { error, delay, .. } => {
                // What to do about it comes when there are no more attempts.
                let text = error.to_string();
                let why = text.split("; ").next().unwrap_or(&text);
                self.all.suspend(|| self.notes.warn(&format!("{why}; trying again {}", soon(*delay))));
            }
            Event::Done { file, size } => {
                if let Some(bar) = bars.remove(*file) {
                    bar.finish_and_clear();
                }
                if !self.notes.draws() {
                    self.say(&format!("  {file}  {}", MemorySize::bytes(*size)));
                }
            }
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        self.all.suspend(|| self.notes.say(text));
    }
}

fn soon(delay: Duration) -> String {
    match delay.as_secs() {
        0 => "now".to_owned(),
        seconds => format!("in {seconds} s"),
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        let _ = self.all.clear();
    }
}
