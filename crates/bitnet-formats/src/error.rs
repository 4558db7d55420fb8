//! The error type of this crate. Every message is one line that names the file, the field or tensor, and the remedy.

use std::path::PathBuf;

use bitnet_core::CoreError;

/// What can go wrong while a container is read or written. `origin` is always the name of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A file could not be opened or mapped.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// An output file could not be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{origin}: the file is empty (0 bytes); download it again")]
    Empty {
        /// Name of the file.
        origin: String,
    },
    /// The repository was cloned without Git LFS.
    #[error(
        "{origin}: this is a Git LFS pointer, not the model{}; run `git lfs pull` in its folder or download the file \
         itself",
        size.map(|n| format!(" (which has {n} bytes)")).unwrap_or_default()
    )]
    LfsPointer {
        /// Name of the file.
        origin: String,
        /// Size of the real file, if the pointer says.
        size: Option<u64>,
    },
    /// A server answered the download with a page for people.
    #[error(
        "{origin}: this is a web page (HTML or XML), not a model; the download was answered by an error or login page: \
         use the address of the file itself and check access rights"
    )]
    WebPage {
        /// Name of the file.
        origin: String,
    },
    /// The bytes are of another kind than asked for.
    #[error("{origin}: not a {wanted} file but {found}; give a {wanted} file")]
    WrongContainer {
        /// Name of the file.
        origin: String,
        /// Container asked for.
        wanted: &'static str,
        /// What the bytes are, or how they begin.
        found: String,
    },
    /// The file is shorter than its header says.
    #[error(
        "{origin}: {missing} bytes are missing: {what} reaches to byte {needed}, but the file ends at {len}; the \
         download is incomplete: fetch it again"
    )]
    Truncated {
        /// Name of the file.
        origin: String,
        /// Field or tensor that does not fit.
        what: String,
        /// Bytes the file must have at least.
        needed: u64,
        /// Bytes it has.
        len: u64,
        /// `needed - len`.
        missing: u64,
    },
    /// A field contradicts the format or the rest of the file.
    #[error("{origin}: {field}: {problem}; the file is corrupt: download or convert it again")]
    Malformed {
        /// Name of the file.
        origin: String,
        /// Field or tensor.
        field: String,
        /// What is wrong, with the offending value.
        problem: String,
    },
    /// The file may be right, but this engine does not read or write such files.
    #[error("{origin}: {what} is not supported; {remedy}")]
    Unsupported {
        /// Name of the file.
        origin: String,
        /// What is not supported.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A tensor name occurs twice.
    #[error(
        "tensor {name} occurs twice, in {origin} and in {other}; remove one of them or convert the model again"
    )]
    DuplicateTensor {
        /// Name of the tensor, quoted.
        name: String,
        /// File of the first occurrence.
        origin: String,
        /// File of the second.
        other: String,
    },
    /// A metadata value has another type than it must.
    #[error("{origin}: metadata {key} is {found}, but must be {wanted}; convert the model again")]
    WrongType {
        /// Name of the file.
        origin: String,
        /// The key.
        key: String,
        /// Type (and value, if small) that is there.
        found: String,
        /// Type that is needed.
        wanted: &'static str,
    },
    /// A part of a model in several files is not there.
    #[error(
        "{origin}: {file} is missing, which is part {part} of {count}; put all parts of the model into one folder"
    )]
    MissingPart {
        /// Name of the part that was given.
        origin: String,
        /// Name of the missing part, quoted.
        file: String,
        /// Its number, from 1.
        part: u64,
        /// Number of parts.
        count: u64,
    },
    /// The index places a tensor in a file that does not have it.
    #[error("{file}: tensor {tensor} is missing, which {index} places there; download both files again")]
    MissingFromShard {
        /// Name of the index.
        index: String,
        /// The shard.
        file: String,
        /// Name of the tensor, quoted.
        tensor: String,
    },
    /// A shard holds a tensor that the index does not place there.
    #[error(
        "{file}: tensor {tensor} is {place} according to {index}; the files are of different models or versions: \
         download all again"
    )]
    NotInIndex {
        /// Name of the index.
        index: String,
        /// The shard.
        file: String,
        /// Name of the tensor, quoted.
        tensor: String,
        /// Where the index has it: "in no file", or another file.
        place: String,
    },
    /// What was given to a writer does not agree with its plan or with the format.
    #[error("cannot write {}: {field}: {problem}", path.display())]
    BadPlan {
        /// The output file.
        path: PathBuf,
        /// Tensor or metadata key, quoted.
        field: String,
        /// What is wrong, with the offending value.
        problem: String,
    },
}

/// Result with [`FormatError`].
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

/// No model comes near this size; ends beyond it are nonsense and not an incomplete download.
const PLAUSIBLE_BYTES: u64 = 1 << 46;

impl FormatError {
    pub(crate) fn malformed(origin: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        FormatError::Malformed { origin: origin.to_owned(), field: field.into(), problem: problem.into() }
    }

    /// For something that ends at byte `needed` of a file of `len` bytes.
    pub(crate) fn beyond_end(origin: &str, what: impl Into<String>, needed: u64, len: u64) -> Self {
        let what = what.into();
        if needed > PLAUSIBLE_BYTES {
            return Self::malformed(
                origin,
                what,
                format!("it would end at byte {needed} of a file of {len} bytes"),
            );
        }
        let missing = needed.saturating_sub(len);
        FormatError::Truncated { origin: origin.to_owned(), what, needed, len, missing }
    }
}

/// A name out of a file, fit for a message: in quotes, escaped, cut to a readable length.
pub(crate) fn quoted(name: &str) -> String {
    const LIMIT: usize = 100;
    match name.char_indices().nth(LIMIT) {
        None => format!("{name:?}"),
        Some((at, _)) => format!("{:?}... ({} bytes)", &name[..at], name.len()),
    }
}

/// Message of the JSON parser, on one line and cut to a readable length.
pub(crate) fn json_problem(error: &serde_json::Error) -> String {
    const LIMIT: usize = 300;
    let text: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(LIMIT) {
        None => text,
        Some((at, _)) => {
            format!("{}... (line {}, column {})", &text[..at], error.line(), error.column())
        }
    }
}
