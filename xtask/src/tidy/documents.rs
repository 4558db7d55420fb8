//! Rules on everything that is not Rust: local Markdown links resolve, test data is described, files are small.

use super::Finding;
use super::listing::Listing;
use super::policy::{FILE_BYTES, LARGE_FILES};

/// Where the test data is described.
pub(super) const TEST_DATA_README: &str = "testdata/README.md";

/// Large files belong where people expect them, or into a release.
pub(super) fn check_size(path: &str, bytes: u64) -> Option<Finding> {
    let may_be_large = LARGE_FILES.iter().any(|prefix| path.starts_with(prefix));
    (bytes > FILE_BYTES && !may_be_large).then(|| {
        let message = format!("has {bytes} bytes, the limit outside {LARGE_FILES:?} is {FILE_BYTES}");
        Finding::new(path, 0, "file-size", message)
    })
}

/// Each file below `testdata/` must be named, in backticks and relative to it, in the README there.
pub(super) fn check_test_data(readme: &str, listing: &Listing) -> Vec<Finding> {
    listing
        .files()
        .filter(|&path| path != TEST_DATA_README)
        .filter_map(|path| Some((path, path.strip_prefix("testdata/")?)))
        .filter(|(_, name)| !readme.contains(&format!("`{name}`")))
        .map(|(path, name)| {
            let message =
                format!("is not described in {TEST_DATA_README} (as `{name}`): what it is, where it is from");
            Finding::new(path, 0, "test-data", message)
        })
        .collect()
}

/// Links in the Markdown file at `path` that point into the repository must resolve.
pub(super) fn check_links(path: &str, text: &str, listing: &Listing) -> Vec<Finding> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    links(text)
        .into_iter()
        .filter(|(_, target)| is_local(target))
        .filter(|(_, target)| !resolve(directory, target).is_some_and(|file| listing.contains(&file)))
        .map(|(line, target)| {
            Finding::new(path, line, "link", format!("`{target}` is no file or directory of the repository"))
        })
        .collect()
}

fn is_local(target: &str) -> bool {
    !target.is_empty()
        && !target.starts_with('#')
        && !target.contains("://")
        && !target.starts_with("mailto:")
}

/// The path from the root of the repository that `target` means in a document in `directory`; `None` outside it.
fn resolve(directory: &str, target: &str) -> Option<String> {
    let file = target.split(['#', '?']).next().unwrap_or(target);
    let (base, file) = match file.strip_prefix('/') {
        Some(from_root) => ("", from_root),
        None => (directory, file),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(file.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The targets of inline links, images and reference definitions outside code, with their lines (from 1).
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|&marker| trimmed.starts_with(marker));
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            (Some(_), _) => {}
            (None, None) => {
                found
                    .extend(links_in_line(&without_code(line)).into_iter().map(|target| (index + 1, target)));
            }
        }
    }
    found
}

fn links_in_line(line: &str) -> Vec<String> {
    let mut found: Vec<String> =
        line.match_indices("](").map(|(offset, opening)| target(&line[offset + opening.len()..])).collect();
    if let Some((label, definition)) = line.split_once("]:")
        && label.starts_with('[')
        && !label.starts_with("[^")
    {
        found.push(target(definition.trim_start()));
    }
    found
}

/// The target at the beginning of `text`: up to the parenthesis that closes the link, a space, or in angle brackets.
fn target(text: &str) -> String {
    if let Some(bracketed) = text.strip_prefix('<') {
        return bracketed.split('>').next().unwrap_or_default().to_owned();
    }
    let mut depth = 0_usize;
    text.chars()
        .take_while(|&character| {
            match character {
                '(' => depth += 1,
                ')' if depth == 0 => return false,
                ')' => depth -= 1,
                _ => {}
            }
            !character.is_whitespace()
        })
        .collect()
}

/// `line` without its code spans.
fn without_code(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::new();
    while let Some(begin) = rest.find('`') {
        let ticks = rest[begin..].chars().take_while(|&character| character == '`').count();
        let fence = &rest[begin..begin + ticks];
        let after = &rest[begin + ticks..];
        let Some(end) = after.find(fence) else { break };
        kept.push_str(&rest[..begin]);
        rest = &after[end + ticks..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<(usize, String)> {
        let listing = Listing::of_names(&["README.md", "docs/a.md", "docs/deep/b (1).md", "LICENSE-MIT"]);
        check_links(path, text, &listing).into_iter().map(|finding| (finding.line, finding.message)).collect()
    }

    #[test]
    fn links_that_resolve_pass() {
        for text in [
            "[a](docs/a.md) ![b](./docs/a.md#part \"title\") [c](docs) [d](docs/)",
            "[a](https://example.org/missing.md) [b](mailto:a@b.org) [c](#heading)",
            "[name]: docs/a.md\n[^1]: a footnote",
            "[a](<docs/deep/b (1).md>) [b](/LICENSE-MIT)",
            "`[a](missing.md)` ``x ` [b](missing.md)`` [`c`](docs/a.md)",
            "```\n[a](missing.md)\n~~~\n[b](missing.md)\n```\n",
        ] {
            assert_eq!(broken("README.md", text), [], "{text}");
        }
        assert_eq!(broken("docs/a.md", "[up](../README.md) [down](deep) [root](..)"), []);
    }

    #[test]
    fn links_that_do_not_resolve_are_found_with_their_line() {
        let text = "ok\n```\n```\n[a](missing.md), [b](docs/a.md)\n[c]: gone.md\n";
        let expected = [
            (4, "`missing.md` is no file or directory of the repository".to_owned()),
            (5, "`gone.md` is no file or directory of the repository".to_owned()),
        ];
        assert_eq!(broken("README.md", text), expected);
        assert_eq!(broken("docs/a.md", "[a](a.md) [b](docs/a.md)").len(), 1);
        assert_eq!(broken("README.md", "[out](../elsewhere.md)").len(), 1);
    }

    #[test]
    fn test_data_must_be_described() {
        let listing =
            Listing::of_names(&["testdata/README.md", "testdata/a.bin", "testdata/d/b.json", "src.rs"]);
        assert_eq!(check_test_data("| `a.bin` | x |\n| `d/b.json` | y |", &listing), []);
        let found = check_test_data("`a.bin`, b.json", &listing);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "testdata/d/b.json");
    }

    #[test]
    fn large_files_have_their_places() {
        assert_eq!(check_size("docs/a.png", FILE_BYTES), None);
        assert!(check_size("docs/a.png", FILE_BYTES + 1).is_some());
        assert_eq!(check_size("testdata/a.bin", FILE_BYTES + 1), None);
        assert_eq!(check_size("crates/bitnet-tiny/model/model.safetensors", 1 << 30), None);
        assert!(check_size("crates/bitnet-tiny/src/lib.rs", 1 << 30).is_some());
    }
}
