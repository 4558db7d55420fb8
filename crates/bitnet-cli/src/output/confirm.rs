//! Asking before something is lost.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::CliError;

/// Asks a person; `yes` answers for them.
///
/// # Errors
/// If there is nobody to ask.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(CliError::usage("there is no terminal to ask on").hint("give --yes if you are sure"));
    }
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = stdin.lock().read_line(&mut answer);
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks a person for a line; `None` if they end it with Ctrl-D.
pub(crate) fn ask(question: &str) -> Option<String> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    match std::io::stdin().lock().read_line(&mut answer) {
        Ok(count) if count > 0 => Some(answer.trim_end().to_owned()),
        _ => None,
    }
}
