//! What is written, and where: results to stdout, all else to stderr.

mod confirm;
mod downloads;
mod events;
mod file;
mod markdown;
mod progress;
mod stats;
mod table;

use std::io::{IsTerminal, Write};

use crate::args::GlobalArgs;
use crate::error::CliError;

pub(crate) use confirm::{ask, confirm};
pub(crate) use downloads::Downloads;
pub(crate) use events::{Level, failure, set_format, wants_json};
pub(crate) use file::{check_writable, replace, write_file, write_file_in_folder};
pub(crate) use markdown::Markdown;
pub(crate) use progress::Progress;
pub(crate) use stats::{EngineFacts, Timings, print_stats, rate, stats_json};
pub(crate) use table::{Table, ago, count, lasting};

/// Writes to stdout at once.
///
/// # Errors
/// [`CliError::Closed`] if nobody reads any more.
pub(crate) fn result(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes JSON to stdout, indented, with a line break.
///
/// # Errors
/// As [`result`].
pub(crate) fn json(value: &serde_json::Value) -> Result<(), CliError> {
    result(&format!("{value:#}\n"))
}

/// What is said on stderr beside errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notes {
    verbose: bool,
    quiet: bool,
}

impl Notes {
    pub(crate) fn new(global: GlobalArgs) -> Self {
        Self { verbose: global.verbose, quiet: global.quiet }
    }

    /// The same, but for errors silent: for what was said before.
    pub(crate) fn hushed(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Says something, unless told to be quiet.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            events::event(Level::Info, text);
        }
    }

    /// Says something only when asked to say more.
    pub(crate) fn detail(self, text: &str) {
        if self.verbose && !self.quiet {
            events::event(Level::Debug, text);
        }
    }

    /// Warns, unless told to be quiet.
    pub(crate) fn warn(self, text: &str) {
        if !self.quiet {
            events::event(Level::Warn, text);
        }
    }

    /// Shows text that belongs before the result, without a line break; only where both show up on the same terminal.
    pub(crate) fn lead_in(self, text: &str) {
        if !self.quiet
            && !events::is_json()
            && std::io::stderr().is_terminal()
            && std::io::stdout().is_terminal()
        {
            let dim = console::Style::new().for_stderr().dim();
            let _ = write!(std::io::stderr().lock(), "{}", dim.apply_to(text));
        }
    }

    /// Whether to say more.
    pub(crate) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Whether progress may be drawn.
    pub(crate) fn draws(self) -> bool {
        !self.quiet && !events::is_json() && std::io::stderr().is_terminal()
    }
}
