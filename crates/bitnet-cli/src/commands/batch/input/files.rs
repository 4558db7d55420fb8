//! From arguments to files: paths, folders, patterns, stdin.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Content, InputFile, unreadable};
use crate::args::{InputFormat, TextMode};
use crate::error::CliError;

/// Endings that say what is in a file; folders are searched for them.
const ENDINGS: [(&str, InputFormat); 9] = [
    ("txt", InputFormat::Text),
    ("text", InputFormat::Text),
    ("md", InputFormat::Text),
    ("jsonl", InputFormat::Jsonl),
    ("ndjson", InputFormat::Jsonl),
    ("csv", InputFormat::Csv),
    ("tsv", InputFormat::Tsv),
    ("tab", InputFormat::Tsv),
    ("parquet", InputFormat::Parquet),
];

/// The files that arguments mean, in their order; files of folders and patterns in the order of their names. `own` are files of
/// the run itself, which are no inputs even if they lie in a folder that is.
///
/// # Errors
/// If there is nothing, or if what a file holds cannot be told.
pub(in super::super) fn find(
    inputs: &[PathBuf],
    format: Option<InputFormat>,
    recursive: bool,
    own: &[PathBuf],
) -> Result<Vec<InputFile>, CliError> {
    let own: Vec<PathBuf> = own.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let is_own = |path: &Path| path.canonicalize().is_ok_and(|path| own.contains(&path));
    let mut files = Vec::new();
    for input in inputs {
        if input == Path::new("-") {
            if files.iter().any(|file: &InputFile| file.path.is_none()) {
                return Err(CliError::usage("`-` stands twice among the inputs; stdin can be read once"));
            }
            let format = format.unwrap_or(InputFormat::Text);
            files.push(InputFile { path: None, name: "stdin".to_owned(), format });
        } else if input.is_dir() {
            let mut found = Vec::new();
            search(input, recursive, format, &mut found)?;
            found.retain(|path| !is_own(path));
            if found.is_empty() {
                let endings: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
                let message = format!("{} has no files to process", input.display());
                return Err(CliError::failed(message)
                    .hint(format!("folders are searched for files that end in {}", endings.join(", "))));
            }
            for path in found {
                files.push(file(&path, format)?);
            }
        } else if input.exists() {
            if is_own(input) {
                let message = format!("{} is an input and the output at the same time", input.display());
                return Err(CliError::usage(message).hint("name another file with --output"));
            }
            files.push(file(input, format)?);
        } else {
            let mut found = matches(input)?;
            found.retain(|path| !is_own(path));
            for path in found {
                files.push(file(&path, format)?);
            }
        }
    }
    Ok(files)
}

/// The files that a pattern means.
fn matches(input: &Path) -> Result<Vec<PathBuf>, CliError> {
    let text = input.to_string_lossy();
    let missing = || CliError::failed(format!("{text}: no such file or folder"));
    if !text.contains(['*', '?', '[']) {
        return Err(missing());
    }
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let found = glob::glob_with(&text, options)
        .map_err(|error| CliError::usage(format!("{text} is no file and no pattern: {error}")))?;
    let mut paths = Vec::new();
    for path in found {
        let path = path.map_err(|error| unreadable(&error.path().display().to_string(), error.error()))?;
        if path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(CliError::failed(format!("{text}: no file fits this pattern")));
    }
    Ok(paths)
}

/// Adds the files of a folder whose ending is known, or of that format if one is asked for; not what is hidden. Links to
/// folders are not followed, so that it ends.
fn search(
    folder: &Path,
    recursive: bool,
    format: Option<InputFormat>,
    found: &mut Vec<PathBuf>,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| unreadable(&folder.display().to_string(), &error);
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        if kind.is_dir() {
            if recursive {
                search(&path, recursive, format, found)?;
            }
        } else if by_ending(&path).is_some_and(|own| is_wanted(own, format)) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether files of this ending belong to what is asked for.
fn is_wanted(own: InputFormat, asked: Option<InputFormat>) -> bool {
    match asked {
        None => true,
        Some(InputFormat::Openai) => own == InputFormat::Jsonl,
        Some(asked) => own == asked,
    }
}

fn by_ending(path: &Path) -> Option<InputFormat> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    ENDINGS.iter().find(|(known, _)| *known == ending).map(|(_, format)| *format)
}

fn file(path: &Path, format: Option<InputFormat>) -> Result<InputFile, CliError> {
    let name = path.display().to_string();
    let mut file = InputFile { path: Some(path.to_owned()), name, format: InputFormat::Text };
    if let Some(format) = format {
        file.format = format;
        return Ok(file);
    }
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
        return Err(CliError::failed(format!("{}: a JSON file has no rows", file.name))
            .hint("write one object a line, as `jq -c '.[]'` does, or say --input-format"));
    }
    file.format = by_ending(path).unwrap_or(InputFormat::Text);
    if file.format == InputFormat::Jsonl && is_openai(&file)? {
        file.format = InputFormat::Openai;
    }
    Ok(file)
}

/// Whether the first row is a request of OpenAI's batch API.
fn is_openai(file: &InputFile) -> Result<bool, CliError> {
    let first = file.open(TextMode::Line)?.entries.next().transpose()?;
    Ok(match first.map(|entry| entry.content) {
        Some(Ok(Content::Object(fields))) => {
            let has = |name: &str| fields.get(name).is_some_and(Value::is_string);
            has("custom_id") && has("url") && fields.get("body").is_some_and(Value::is_object)
        }
        _ => false,
    })
}
