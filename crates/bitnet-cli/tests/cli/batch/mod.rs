//! `bitnet batch`.

mod forms;
mod openai;
mod resume;
mod rows;

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Output, run};

/// A folder for inputs and outputs.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a file as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.arg(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs a batch of texts with a seed, short ones unless `more` says how long.
pub(crate) fn batch(input: &str, output: &str, more: &[&str]) -> Output {
    let short: &[&str] = if more.contains(&"-n") { &[] } else { &["-n", "4"] };
    run(&[&["batch", input, "-o", output, "--seed", "7"], short, more].concat())
}

/// As [`batch`]; it must succeed.
pub(crate) fn done(input: &str, output: &str, more: &[&str]) {
    let output = batch(input, output, more);
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// The objects of JSON lines.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text that `bitnet generate` gives.
pub(crate) fn generated(prompt: &str, more: &[&str]) -> String {
    let text = crate::support::stdout(&[&["generate", prompt, "-q"], more].concat());
    text.strip_suffix('\n').unwrap().to_owned()
}
