//! Running the commands of a page, or asking the program whether it understands them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::blocks::{Block, commands};
use super::{LIMIT, scratch, unreadable};
use crate::process::{Failure, run_within};

/// Far above what one block takes.
const BLOCK_LIMIT: Duration = Duration::from_secs(600);

/// Runs the blocks of a page one after another, in a folder and a home of its own; gives how many.
pub(super) fn run(
    program: &Path,
    blocks: &[Block],
    page: &str,
    wrong: &mut Vec<String>,
) -> Result<usize, Failure> {
    let home = scratch(&page.replace('/', "-"))?;
    let folder = program.parent().unwrap_or(Path::new("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(paths).map_err(|error| Failure(error.to_string()))?;
    for block in blocks {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &block.text]).current_dir(&home).env("PATH", &path);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["BITNET_", "HF_", "XDG_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&*name);
            }
        }
        // Nothing of the person's own is read or written, the network is not used, and any port will do.
        command.env("HOME", &home).env("HF_HUB_OFFLINE", "1").env("BITNET_PORT", "0").env("NO_COLOR", "1");
        if let Err(Failure(message)) = run_within(&mut command, BLOCK_LIMIT) {
            wrong.push(format!("{page}:{}: {message}", block.line));
        }
    }
    std::fs::remove_dir_all(&home).map_err(|error| unreadable(&home, &error))?;
    Ok(blocks.len())
}

/// Asks the program whether the commands of a block are understood; gives how many of them are its own.
pub(super) fn check(
    program: &Path,
    block: &Block,
    page: &str,
    wrong: &mut Vec<String>,
) -> Result<usize, Failure> {
    let mut count = 0;
    for (line, text) in commands(block) {
        let Some(words) = shlex::split(&text) else {
            wrong.push(format!("{page}:{line}: quotation marks that do not end: {text}"));
            continue;
        };
        for words in own(&words) {
            count += 1;
            let mut command = Command::new(program);
            command.args(["reference", "check", "--"]).args(words).stdin(Stdio::null());
            if let Err(Failure(message)) = run_within(&mut command, LIMIT) {
                wrong.push(format!("{page}:{line}: {message}"));
            }
        }
    }
    Ok(count)
}

/// The words behind each `bitnet` of a line: without variables before it, up to a pipe, a redirection or the next command.
fn own(words: &[String]) -> Vec<&[String]> {
    let ends = |word: &String| {
        matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&" | "#")
            || word.starts_with(['>', '<'])
            || word.starts_with("2>")
    };
    let mut found = Vec::new();
    for part in words.split(ends) {
        let begin = part.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
        if let Some((first, rest)) = part[begin..].split_first()
            && first == "bitnet"
        {
            found.push(rest);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<String> {
        let words = shlex::split(line).unwrap();
        own(&words).into_iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn own_commands_of_a_line_are_found() {
        assert_eq!(found("cat a | A=1 bitnet chat - > out"), ["chat -"]);
        assert_eq!(found("bitnet pull a && bitnet list"), ["pull a", "list"]);
        assert_eq!(found("bitnet serve &"), ["serve"]);
        assert_eq!(found("curl http://a/?b=c"), Vec::<String>::new());
        assert_eq!(found("bitnet list    # what is there"), ["list"]);
    }
}
