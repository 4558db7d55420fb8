//! [`Screen`]: where an answer is written while it is generated.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use crate::error::CliError;
use crate::output::{self, Markdown};

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    /// Whether Markdown is rendered on a terminal with colours.
    pub(super) markdown: bool,
    /// Whether long lines are cut between words on a terminal.
    pub(super) wordwrap: bool,
}

/// Writes one answer to standard output: as it is, or, on a terminal, for people.
#[derive(Debug)]
pub(super) struct Screen {
    rendered: Option<Markdown>,
    /// White space at the beginning is still to be left out: chat models begin their answers with it.
    trims: bool,
    /// Whether the line under way has something on it.
    open: bool,
    closed: Option<CliError>,
}

impl Screen {
    pub(super) fn new(looks: Looks, trims: bool) -> Self {
        let terminal = console::Term::stdout();
        let width = terminal.size_checked().map(|(_, columns)| usize::from(columns).saturating_sub(1));
        let is_terminal = std::io::stdout().is_terminal();
        let styles = is_terminal && looks.markdown && console::colors_enabled();
        let wraps = is_terminal && looks.wordwrap;
        // Markdown is rendered for a terminal only, where control characters of a model are kept out as well.
        let rendered = is_terminal.then(|| Markdown::new(width.filter(|_| wraps), styles));
        Self { rendered, trims, open: false, closed: None }
    }

    /// Writes; breaks if nobody reads any more.
    pub(super) fn write(&mut self, text: &str) -> ControlFlow<()> {
        let text = if self.trims { text.trim_start() } else { text };
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.trims = false;
        match &mut self.rendered {
            None => self.put(text),
            Some(markdown) => {
                let text = markdown.push(text);
                self.put(&text)
            }
        }
    }

    fn put(&mut self, text: &str) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.open = !text.ends_with('\n');
        match output::result(text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.closed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the answer, with a line end unless nothing was written.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(super) fn finish(&mut self, always: bool) -> Result<(), CliError> {
        if let Some(markdown) = &mut self.rendered {
            let rest = markdown.finish();
            let _ = self.put(&rest);
        }
        // A pipe gets each answer as it is, and one line end behind it.
        if self.open || (always && self.rendered.is_none()) {
            let _ = self.put("\n");
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Why writing failed, if it did.
    pub(super) fn failure(&mut self) -> Option<CliError> {
        self.closed.take()
    }
}
