//! [`Staging`]: outputs that get their name when they are complete and verified, and vanish otherwise.

use std::path::{Path, PathBuf};

use bitnet_core::{MemorySize, process};

use crate::error::{ConvertError, Result};
use crate::source::Source;
use crate::{Target, hugging, text};

/// Room for what is not tensors: headers, metadata and graphs.
pub(crate) const HEADERS: u64 = 1 << 20;

/// A hidden folder beside the output, removed when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    out: PathBuf,
    target: Target,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ConvertError {
    move |source| ConvertError::Io { action, path: path.to_owned(), source }
}

/// Refuses to write over what is there, unless it may be replaced and is a model, and never over the source.
pub(crate) fn check_place(out: &Path, source: Option<&Path>, target: Target, overwrite: bool) -> Result<()> {
    if out.file_name().is_none() {
        let why = "the path names no file or folder of its own";
        return Err(ConvertError::Protected { path: out.to_owned(), why });
    }
    let is_file_name = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    if target == Target::Onnx && is_file_name {
        return Err(ConvertError::FolderNeeded { path: out.to_owned(), folder: out.with_extension("") });
    }
    let Ok(meta) = std::fs::symlink_metadata(out) else { return Ok(()) };
    if meta.is_dir() && std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()) {
        return match target.is_folder() {
            true => Ok(()),
            false => {
                Err(ConvertError::Protected { path: out.to_owned(), why: "there is a folder of this name" })
            }
        };
    }
    if !overwrite {
        return Err(ConvertError::Exists { path: out.to_owned() });
    }
    let protected = |why| Err(ConvertError::Protected { path: out.to_owned(), why });
    if meta.is_dir() != target.is_folder() {
        return protected("a folder is not replaced by a file, nor a file by a folder");
    }
    if target.is_folder() && !out.join("config.json").is_file() {
        return protected("the folder holds files but no config.json, so it is not taken for a model");
    }
    if let Some(source) = source
        && let (Ok(source), Ok(out)) = (source.canonicalize(), out.canonicalize())
        && source.starts_with(&out)
    {
        return protected("it is the model to convert");
    }
    Ok(())
}

impl Staging {
    /// Makes the folder to write to, after a look at the room that the disk has for `bytes`.
    pub(crate) fn create(out: &Path, target: Target, bytes: u64, keep_free: u64) -> Result<Self> {
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        check_room(&parent, bytes, keep_free)?;
        std::fs::create_dir_all(&parent).map_err(io("create", &parent))?;
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        remove_abandoned(&parent, &name);
        let folder = parent.join(format!(".{name}.{}{PARTIAL}", std::process::id()));
        std::fs::create_dir(&folder).map_err(io("create", &folder))?;
        Ok(Self { folder, out: out.to_owned(), target })
    }

    /// Makes the folder of a model, with `bytes` of tensors to come, and writes all but them: configuration, tokenizer,
    /// template, licence.
    pub(crate) fn folder(
        source: &Source,
        out: &Path,
        target: Target,
        bytes: u64,
        keep_free: u64,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let config = hugging::config(source, target)?;
        let files = text::folder(source, notes)?;
        let small: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
        let staging = Self::create(out, target, bytes + small + HEADERS, keep_free)?;
        for (name, content) in &files {
            staging.put(name, content)?;
        }
        staging.put("config.json", format!("{config:#}\n").as_bytes())?;
        Ok(staging)
    }

    /// Where the weights go.
    pub(crate) fn weights(&self) -> PathBuf {
        match self.target {
            Target::Onnx => self.folder.join("model.onnx"),
            Target::SafetensorsPacked | Target::SafetensorsBf16 => self.folder.join("model.safetensors"),
            Target::GgufI2s | Target::GgufTq1 | Target::GgufTq2 => {
                self.folder.join(self.out.file_name().unwrap_or_default())
            }
        }
    }

    /// What is to be loaded to see what was written.
    pub(crate) fn model(&self) -> PathBuf {
        if self.target.is_folder() { self.folder.clone() } else { self.weights() }
    }

    /// Writes a small file beside the weights.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, content).map_err(io("write", &path))
    }

    /// Gives the output its name; what had it before is replaced.
    pub(crate) fn finish(self) -> Result<()> {
        if !self.target.is_folder() {
            return std::fs::rename(self.weights(), &self.out).map_err(io("create", &self.out));
        }
        let old = self.folder.with_extension("old");
        let replaces = self.out.is_dir();
        if replaces {
            std::fs::rename(&self.out, &old).map_err(io("replace", &self.out))?;
        }
        let renamed = std::fs::rename(&self.folder, &self.out);
        if replaces {
            match renamed {
                // The new model is in place: a leftover of the old one is no reason to fail.
                Ok(()) => drop(std::fs::remove_dir_all(&old)),
                Err(_) => drop(std::fs::rename(&old, &self.out)),
            }
        }
        renamed.map_err(io("create", &self.out))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a folder was renamed there is nothing here any more.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How the names of unfinished outputs end.
const PARTIAL: &str = ".partial";

/// Removes what conversions to the same name left behind that were killed: those whose process is not there any more.
fn remove_abandoned(parent: &Path, name: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let process = file
            .to_str()
            .and_then(|file| file.strip_prefix(&format!(".{name}.")))
            .and_then(|rest| rest.strip_suffix(PARTIAL))
            .and_then(|process| process.parse::<u32>().ok());
        let alive = |process: u32| {
            let table = Path::new("/proc");
            // Where processes cannot be listed, all count as alive.
            !table.join("self").exists() || table.join(process.to_string()).exists()
        };
        if process.is_some_and(|process| process == std::process::id() || !alive(process)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Refuses to begin what cannot end.
fn check_room(parent: &Path, bytes: u64, keep: u64) -> Result<()> {
    match process::free_space(parent) {
        Some(available) if available.as_bytes() < bytes.saturating_add(keep) => Err(ConvertError::DiskFull {
            path: parent.to_owned(),
            needed: MemorySize::bytes(bytes),
            keep: MemorySize::bytes(keep),
            available,
        }),
        _ => Ok(()),
    }
}
