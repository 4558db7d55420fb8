//! Rules on Rust sources: module heads, lengths, where `unsafe` and printing may stand, unfinished code.

use std::collections::BTreeSet;

use super::Finding;
use super::items::{functions, test_code};
use super::lexer::{Source, words};
use super::policy::{
    BANNED_COMMENT_MARKS, BANNED_NAME_PARTS, FILE_LINES, FUNCTION_LINES, GENERATED_FILE_LINES, MAY_PRINT,
    PRINT_MACROS, UNFINISHED_MACROS, UNSAFE_ALLOWED,
};

/// Checks all Rust sources of the repository, given as (path, text).
pub(super) fn check(sources: &[(String, String)]) -> Vec<Finding> {
    let parsed: Vec<Parsed<'_>> = sources.iter().map(|(path, text)| Parsed::new(path, text)).collect();
    let test_modules: Vec<String> = parsed.iter().flat_map(Parsed::test_modules_elsewhere).collect();
    let mut findings = Vec::new();
    for file in &parsed {
        file.check_head(&mut findings);
        file.check_lengths(&mut findings);
        file.check_unsafe(&mut findings);
        file.check_macros(&test_modules, &mut findings);
        file.check_names(&test_modules, &mut findings);
        file.check_comments(&mut findings);
        file.check_forbids_unsafe(&mut findings);
    }
    check_unsafe_table(&parsed, &mut findings);
    findings
}

/// One file with its layers and test regions.
struct Parsed<'a> {
    path: &'a str,
    text: &'a str,
    source: Source,
    tests: super::items::TestCode,
}

impl<'a> Parsed<'a> {
    fn new(path: &'a str, text: &'a str) -> Self {
        let source = Source::new(text);
        let tests = test_code(&source);
        Self { path, text, source, tests }
    }

    /// Path prefixes, without extension, of the test modules that this file declares.
    fn test_modules_elsewhere(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let directory = if matches!(name, "lib" | "main" | "mod") { parent } else { stem };
        self.tests.modules.iter().map(|module| format!("{directory}/{module}")).collect()
    }

    /// Whether the whole file is compiled for tests, benchmarks or examples only.
    fn is_test_file(&self, test_modules: &[String]) -> bool {
        let in_directory = |name: &str| self.path.split('/').any(|part| part == name);
        in_directory("tests")
            || in_directory("benches")
            || in_directory("examples")
            || test_modules.iter().any(|module| {
                self.path
                    .strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            })
    }

    /// The words of the product's code: those outside tests.
    fn product_words(&self, test_modules: &[String]) -> Vec<(usize, &str)> {
        if self.is_test_file(test_modules) {
            return Vec::new();
        }
        self.source.words().filter(|&(offset, _)| !self.tests.contains(offset)).collect()
    }

    fn is_generated(&self) -> bool {
        self.text.lines().take(5).any(|line| line.starts_with("//") && line.contains("@generated"))
    }

    fn check_head(&self, findings: &mut Vec<Finding>) {
        let mut lines = self.text.lines().skip_while(|line| line.starts_with("// @generated"));
        if !lines.next().is_some_and(|line| line.starts_with("//!")) {
            findings.push(Finding::new(
                self.path,
                1,
                "module-head",
                "must begin with `//!`: what the module is, its main types, what it is not",
            ));
        }
    }

    fn check_lengths(&self, findings: &mut Vec<Finding>) {
        let limit = if self.is_generated() { GENERATED_FILE_LINES } else { FILE_LINES };
        let lines = self.text.lines().count();
        if lines > limit {
            let message = format!("has {lines} lines, the limit is {limit}: split it by idea");
            findings.push(Finding::new(self.path, 0, "file-length", message));
        }
        for function in functions(&self.source) {
            let lines = function.lines();
            if lines > FUNCTION_LINES {
                let name = &function.name;
                let message = format!("`{name}` has {lines} lines, the limit is {FUNCTION_LINES}");
                findings.push(Finding::new(self.path, function.first_line, "function-length", message));
            }
        }
    }

    fn check_unsafe(&self, findings: &mut Vec<Finding>) {
        if unsafe_allowance(self.path).is_some() {
            return;
        }
        for (offset, _) in self.source.words().filter(|&(_, word)| word == "unsafe") {
            let message = "`unsafe` outside the modules that tidy's policy allows";
            findings.push(Finding::new(self.path, self.source.line(offset), "unsafe", message));
        }
    }

    /// Crates without an allowed module must forbid `unsafe` at each of their roots.
    fn check_forbids_unsafe(&self, findings: &mut Vec<Finding>) {
        let Some((name, file)) = crate_and_file(self.path) else { return };
        let is_root = matches!(file, "src/lib.rs" | "src/main.rs") || file.starts_with("src/bin/");
        let needs_unsafe = UNSAFE_ALLOWED
            .iter()
            .any(|(prefix, _)| crate_and_file(prefix).is_some_and(|(other, _)| other == name));
        if is_root && !needs_unsafe && !self.source.code.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding::new(self.path, 0, "forbid-unsafe", "must have `#![forbid(unsafe_code)]`"));
        }
    }

    fn check_macros(&self, test_modules: &[String], findings: &mut Vec<Finding>) {
        let calls = |offset: usize, word: &str| self.source.code[offset + word.len()..].starts_with('!');
        for (offset, word) in self.source.words().filter(|&(offset, word)| calls(offset, word)) {
            if UNFINISHED_MACROS.contains(&word) {
                let message = format!("`{word}!`: finish it, or return a typed error");
                findings.push(Finding::new(self.path, self.source.line(offset), "unfinished", message));
            }
        }
        // Build scripts tell cargo what to do by printing it.
        let may = |(name, file): (&str, &str)| MAY_PRINT.contains(&name) || file == "build.rs";
        if crate_and_file(self.path).is_none_or(may) {
            return;
        }
        for (offset, word) in self.product_words(test_modules) {
            if PRINT_MACROS.contains(&word) && calls(offset, word) {
                let message = format!("`{word}!` in a library: return the text, or an error");
                findings.push(Finding::new(self.path, self.source.line(offset), "print", message));
            }
        }
    }

    fn check_names(&self, test_modules: &[String], findings: &mut Vec<Finding>) {
        for (offset, word) in self.product_words(test_modules) {
            let parts = name_parts(word);
            if let Some(part) = BANNED_NAME_PARTS.iter().find(|&&banned| parts.contains(banned)) {
                let message = format!("`{word}`: the product has no {part}");
                findings.push(Finding::new(self.path, self.source.line(offset), "name", message));
            }
        }
    }

    fn check_comments(&self, findings: &mut Vec<Finding>) {
        for (offset, word) in words(&self.source.comments) {
            if BANNED_COMMENT_MARKS.contains(&word) {
                let message = format!("`{word}` in a comment: do it, or open an issue");
                findings.push(Finding::new(self.path, self.source.line(offset), "comment-mark", message));
            }
        }
    }
}

/// Every line of the allow-list must be in use, so that it stays as short as it can be.
fn check_unsafe_table(files: &[Parsed<'_>], findings: &mut Vec<Finding>) {
    let used: BTreeSet<usize> = files
        .iter()
        .filter(|file| file.source.words().any(|(_, word)| word == "unsafe"))
        .filter_map(|file| unsafe_allowance(file.path))
        .collect();
    for (index, (prefix, purpose)) in UNSAFE_ALLOWED.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!("`{prefix}` ({purpose}) has no `unsafe`: remove it from UNSAFE_ALLOWED");
            findings.push(Finding::new("xtask/src/tidy/policy.rs", 0, "unsafe-table", message));
        }
    }
}

/// The line of the allow-list that permits `unsafe` in `path`: the module itself, or a file below it.
fn unsafe_allowance(path: &str) -> Option<usize> {
    UNSAFE_ALLOWED.iter().position(|(prefix, _)| {
        path.strip_prefix(prefix).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    })
}

/// `crates/NAME/FILE` or `xtask/FILE`, split into name and file.
fn crate_and_file(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("crates/").unwrap_or(path).split_once('/')
}

/// The parts of a name in lower case without plural: `MockModels` and `mock_models` are mock, model.
fn name_parts(name: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    let mut part = String::new();
    let mut finish = |part: &mut String| {
        let singular = part.strip_suffix('s').unwrap_or(part);
        parts.insert(singular.to_owned());
        part.clear();
    };
    let mut after_lower = false;
    for character in name.chars() {
        if character == '_' || (after_lower && character.is_uppercase()) {
            finish(&mut part);
        }
        if character != '_' {
            part.extend(character.to_lowercase());
        }
        after_lower = character.is_lowercase();
    }
    finish(&mut part);
    parts
}

#[cfg(test)]
mod tests;
