//! [`CliError`]: what ends a command, and how it is told.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use bitnet_inference::EngineError;
use bitnet_model::load::LoadError;

/// Why a command ended before its end.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It failed, or was asked for wrongly.
    Failed {
        /// One line.
        message: String,
        /// What to try, if that is known.
        hint: Option<String>,
        /// Whether the command line was wrong.
        usage: bool,
    },
    /// The reader of stdout went away; nothing to tell and nobody to tell it to.
    Closed,
}

impl CliError {
    /// A failure while running.
    pub(crate) fn failed(message: impl std::fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None, usage: false }
    }

    /// A wrong command line.
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None, usage: true }
    }

    /// Adds what to try.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Failed { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Writes the error and its hint to stderr, each on a line.
    pub(crate) fn print(&self) {
        let Self::Failed { message, hint, .. } = self else { return };
        let red = console::Style::new().for_stderr().red().bold();
        let cyan = console::Style::new().for_stderr().cyan();
        let mut out = std::io::stderr().lock();
        // If stderr is closed there is no place left for complaints.
        let _ = writeln!(out, "{} {}", red.apply_to("error:"), one_line(message));
        if let Some(hint) = hint {
            let _ = writeln!(out, "{} {}", cyan.apply_to("hint:"), one_line(hint));
        }
    }

    /// Prints the error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.print();
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Failed { usage: false, .. } => ExitCode::from(1),
            Self::Failed { usage: true, .. } => ExitCode::from(2),
        }
    }
}

/// A message without line breaks or other control characters, which names in damaged files may contain.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control()).filter(|part| !part.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        let hint = match &error {
            EngineError::PromptTooLong { context, limit, .. } if context < limit => Some("raise --ctx-size"),
            EngineError::ContextTooLong { .. } => Some("lower --ctx-size"),
            EngineError::NoChatTemplate { .. } => {
                Some("leave out --chat, or name a template with --chat-template FILE")
            }
            EngineError::Load(LoadError::NotFound { .. }) => {
                Some("without --model the bundled model is used")
            }
            _ => None,
        };
        let failed = if error.is_usage() { Self::usage(&error) } else { Self::failed(&error) };
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        EngineError::from(error).into()
    }
}

/// Errors of writing the result: files have their own, with a path.
impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::failed(format!("cannot write to stdout: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(one_line("tensor \"a\nb\u{1b}[31m\": bad"), "tensor \"a b [31m\": bad");
    }
}
