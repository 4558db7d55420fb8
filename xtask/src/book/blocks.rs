//! The `sh` blocks of a page.

/// The comment before a block that is not run.
const NOT_RUN: &str = "<!-- not run:";

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Line of its first command, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Why it is not run.
    pub(super) reason: Option<String>,
}

/// The blocks of a page, or the line and the fault of one that is written wrongly.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, (usize, &'static str)> {
    let mut found = Vec::new();
    let mut reason = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim();
        if let Some(rest) = trimmed.strip_prefix(NOT_RUN) {
            let why =
                rest.strip_suffix("-->").ok_or((index + 1, "the comment does not end on its line"))?.trim();
            if why.is_empty() {
                return Err((index + 1, "the comment does not say why the block is not run"));
            }
            reason = Some((index + 1, why.to_owned()));
            continue;
        }
        let Some(info) = trimmed.strip_prefix("```") else {
            // The comment stands directly before its block.
            if let (false, Some((line, _))) = (trimmed.is_empty(), &reason) {
                return Err((*line, "no block of commands follows the comment"));
            }
            continue;
        };
        let mut block = String::new();
        let mut ended = false;
        for (_, line) in lines.by_ref() {
            ended = line.trim() == "```";
            if ended {
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        if !ended {
            return Err((index + 1, "the block does not end"));
        }
        match (info, reason.take()) {
            ("sh", why) => {
                found.push(Block { line: index + 2, text: block, reason: why.map(|(_, reason)| reason) });
            }
            (_, Some((line, _))) => return Err((line, "the block behind the comment is none of `sh`")),
            ("bash" | "shell" | "console", None) => {
                return Err((index + 1, "blocks of commands are called `sh`"));
            }
            _ => {}
        }
    }
    match reason {
        Some((line, _)) => Err((line, "no block of commands follows the comment")),
        None => Ok(found),
    }
}

/// The commands of a block, each with its line: comments left out, continued lines joined.
pub(super) fn commands(block: &Block) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in block.text.lines().enumerate() {
        let line = line.trim();
        if !open && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        let (part, continues) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match found.last_mut() {
            Some((_, command)) if open => command.push_str(part),
            _ => found.push((block.line + index, part.to_owned())),
        }
        open = continues;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_lines_and_reasons() {
        let text = "# A\n\n```sh\na\nb\n```\n\n<!-- not run: it needs the network -->\n```sh\nc\n```\n```rust\nd\n```\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].text.as_str(), &found[0].reason), (4, "a\nb\n", &None));
        assert_eq!((found[1].line, found[1].reason.as_deref()), (10, Some("it needs the network")));
    }

    #[test]
    fn what_is_written_wrongly_is_refused() {
        for (text, line) in [
            ("<!-- not run: -->\n```sh\na\n```\n", 1),
            ("<!-- not run: why\n```sh\na\n```\n", 1),
            ("<!-- not run: why -->\ntext\n```sh\na\n```\n", 1),
            ("<!-- not run: why -->\n```rust\na\n```\n", 1),
            ("```bash\na\n```\n", 1),
            ("\n```sh\na\n", 2),
            ("<!-- not run: why -->\n", 1),
        ] {
            assert_eq!(blocks(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn commands_of_a_block() {
        let block = Block { line: 10, text: "# one\na b \\\n  c\n\nd\n".to_owned(), reason: None };
        assert_eq!(commands(&block), [(11, "a b c".to_owned()), (14, "d".to_owned())]);
    }
}
