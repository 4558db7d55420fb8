//! [`CliError`]: what ends a command, and how it is told.

use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

use bitnet_inference::EngineError;
use bitnet_model::load::LoadError;

use crate::nearest::nearest;
use crate::output;

/// Exit code of a command that failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code of a command that was asked for wrongly.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command ended before its end.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It failed, or was asked for wrongly.
    Failed {
        /// One line.
        message: String,
        /// Why, a line each, the nearest cause first; only what the message does not say.
        causes: Vec<String>,
        /// What to try, if that is known.
        hint: Option<String>,
        /// Whether the command line was wrong.
        usage: bool,
    },
    /// The reader of stdout went away; nothing to tell and nobody to tell it to.
    Closed,
}

impl CliError {
    fn new(message: &dyn std::fmt::Display, causes: Vec<String>, usage: bool) -> Self {
        Self::Failed { message: one_line(&message.to_string()), causes, hint: None, usage }
    }

    /// A failure while running.
    pub(crate) fn failed(message: impl std::fmt::Display) -> Self {
        Self::new(&message, Vec::new(), false)
    }

    /// A wrong command line.
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(&message, Vec::new(), true)
    }

    /// An error of a library with all that lies behind it.
    pub(crate) fn of(error: &dyn Error, usage: bool) -> Self {
        Self::new(&error, causes(error), usage)
    }

    /// Adds what to try.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Failed { hint, .. } = &mut self {
            *hint = Some(one_line(&text.into()));
        }
        self
    }

    /// Writes the error, its causes and its hint to stderr, each on a line.
    pub(crate) fn print(&self) {
        if let Self::Failed { message, causes, hint, .. } = self {
            output::failure(message, causes, hint.as_deref());
        }
    }

    /// Prints the error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.print();
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Failed { usage: true, .. } => ExitCode::from(EXIT_USAGE),
            Self::Failed { usage: false, .. } => ExitCode::from(EXIT_FAILED),
        }
    }
}

/// What lies behind an error, as far as its own words do not say it.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            causes.push(one_line(&text));
            said = text;
        }
        next = cause.source();
    }
    causes
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
        let failed = Self::of(&error, error.is_usage());
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

/// What to say of a kernel set that there is not.
pub(crate) fn kernel_hint(given: &str) -> String {
    let list = "`bitnet devices` lists the kernel sets of this machine";
    let sets = bitnet_cpu::kernel_sets();
    match nearest(given, sets.iter().map(|set| set.name)) {
        Some(near) if near != given => format!("did you mean {near}? {list}"),
        _ => list.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(one_line("tensor \"a\nb\u{1b}[31m\": bad"), "tensor \"a b [31m\": bad");
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug)]
        struct Layer(&'static str, Option<Box<Layer>>);
        impl std::fmt::Display for Layer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Layer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.1.as_deref().map(|layer| layer as &dyn Error)
            }
        }
        let said =
            Layer("cannot read: disk", Some(Box::new(Layer("disk", Some(Box::new(Layer("fire", None)))))));
        assert_eq!(causes(&said), ["fire"]);
        let CliError::Failed { message, usage, .. } = CliError::of(&said, true) else { panic!("a failure") };
        assert_eq!((message.as_str(), usage), ("cannot read: disk", true));
    }
}
