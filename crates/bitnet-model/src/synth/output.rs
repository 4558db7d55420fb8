//! Files of a synthetic model: none half-written, none replaced unasked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet_formats::{TensorPlan, create_gguf, create_safetensors};

use super::tensors::{Item, items};
use super::vocabulary::Vocab;
use super::{Result, SynthError, SynthFormat, SynthOptions, config};
use crate::ModelSpec;

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SynthError {
    move |source| SynthError::Io { path: path.to_owned(), source }
}

/// Refuses to write over a file or a folder with files in it.
pub(super) fn check_free(out: &Path, options: &SynthOptions) -> Result<()> {
    let used = match std::fs::read_dir(out) {
        Ok(mut entries) => options.format == SynthFormat::GgufI2s || entries.next().is_some(),
        Err(_) => out.exists(),
    };
    // A folder is never replaced by a file, nor the other way round.
    let same_kind = !out.exists() || out.is_dir() != (options.format == SynthFormat::GgufI2s);
    if used && !(options.overwrite && same_kind) {
        return Err(SynthError::Exists { path: out.to_owned() });
    }
    Ok(())
}

/// Writes a GGUF file.
pub(super) fn gguf(
    out: &Path,
    spec: &ModelSpec,
    seed: u64,
    vocab: &Vocab,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let items = items(spec, SynthFormat::GgufI2s, seed);
    let metadata = config::metadata(spec, seed, vocab)?;
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let mut writer = create_gguf(out, &metadata, &plans(&items))?;
    emit_all(&items, progress, &mut |step| match step {
        Step::Begin(name) => Ok(writer.begin(name)?),
        Step::Bytes(bytes) => Ok(writer.append(bytes)?),
    })?;
    Ok(writer.finish()?)
}

/// Writes a folder.
pub(super) fn folder(
    out: &Path,
    spec: &ModelSpec,
    format: SynthFormat,
    seed: u64,
    vocab: &Vocab,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    std::fs::create_dir_all(out).map_err(io(out))?;
    let items = items(spec, format, seed);
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = create_safetensors(&out.join("model.safetensors"), &plans(&items), &metadata)?;
    emit_all(&items, progress, &mut |step| match step {
        Step::Begin(name) => Ok(writer.begin(name)?),
        Step::Bytes(bytes) => Ok(writer.append(bytes)?),
    })?;
    writer.finish()?;
    let (name, content) = &vocab.file;
    put(out, name, content)?;
    // A tokenizer of the other kind from a model that was here before would be taken first.
    for other in ["tokenizer.json", "tokenizer.model"].into_iter().filter(|other| other != name) {
        let path = out.join(other);
        if path.exists() {
            std::fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    if config::Kind::of(spec) == config::Kind::Embedding {
        for (name, value) in config::embedding_files() {
            if let Some((folder, _)) = name.split_once('/') {
                let folder = out.join(folder);
                std::fs::create_dir_all(&folder).map_err(io(&folder))?;
            }
            put(out, name, format!("{value:#}\n").as_bytes())?;
        }
    }
    for (name, value) in [
        ("tokenizer_config.json", config::tokenizer_config(spec, vocab)),
        ("generation_config.json", config::generation_config(vocab)),
        ("config.json", config::config(spec, format, vocab)),
    ] {
        put(out, name, format!("{value:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Writes a small file under a temporary name and renames it.
fn put(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let temporary: PathBuf = path.with_file_name(format!(
        ".{}.{}.partial",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|source| {
        // The first error is the one to tell; a leftover is recognisable by its name.
        let _ = std::fs::remove_file(&temporary);
        SynthError::Io { path, source }
    })
}

fn plans(items: &[Item]) -> Vec<TensorPlan> {
    items.iter().map(|item| item.plan.clone()).collect()
}

/// What a writer is to do.
enum Step<'a> {
    /// Start the tensor of this name.
    Begin(&'a str),
    /// Add bytes to it.
    Bytes(&'a [u8]),
}

fn emit_all(
    items: &[Item],
    progress: &mut dyn FnMut(u64, u64),
    write: &mut dyn FnMut(Step<'_>) -> Result<()>,
) -> Result<()> {
    let total = items.iter().map(Item::byte_len).sum();
    let mut done = 0;
    for item in items {
        write(Step::Begin(&item.plan.name))?;
        item.emit(&mut |bytes| {
            write(Step::Bytes(bytes))?;
            done += bytes.len() as u64;
            progress(done, total);
            Ok(())
        })?;
    }
    Ok(())
}
