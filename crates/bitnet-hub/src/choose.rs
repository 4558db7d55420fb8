//! Which files of a repository a model needs.
//!
//! Repositories hold a model several times over: in safetensors and `.bin`, in ten quantisations, for other runtimes.
//! Taken is one form, in this order unless something else is asked for: safetensors, one GGUF file (the ternary types
//! before others), PyTorch, ONNX. Beside it come the few small files that belong to it.

use std::collections::BTreeSet;

use crate::name::is_relative_path;
use crate::{HubError, Result};

/// The form of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKind {
    /// `*.safetensors`, with an index if there are several.
    Safetensors,
    /// One `.gguf` file, or the parts of one.
    Gguf,
    /// `*.bin`, `*.pt` or `*.pth`.
    Pytorch,
    /// `*.onnx`, with its external data.
    Onnx,
}

impl WeightKind {
    /// Name, which may also be asked for.
    pub const fn name(self) -> &'static str {
        match self {
            WeightKind::Safetensors => "safetensors",
            WeightKind::Gguf => "gguf",
            WeightKind::Pytorch => "pytorch",
            WeightKind::Onnx => "onnx",
        }
    }

    fn of(path: &str) -> Option<Self> {
        let (_, ending) = path.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "safetensors" => Some(WeightKind::Safetensors),
            "gguf" => Some(WeightKind::Gguf),
            "bin" | "pt" | "pth" => Some(WeightKind::Pytorch),
            "onnx" => Some(WeightKind::Onnx),
            _ => None,
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Form of the weights.
    pub(crate) kind: WeightKind,
    /// Files of the weights.
    pub(crate) weights: Vec<String>,
    /// The small files beside them that the repository has.
    pub(crate) companions: Vec<String>,
    /// What a loader opens: a file, or the folder in which all lies.
    pub(crate) entry: Option<String>,
}

/// Types of GGUF files from the one that is taken first: ternary ones by size and by how widely they can be read.
const GGUF_ORDER: [&str; 13] = [
    "i2_s",
    "tq2_0",
    "tq1_0",
    "iq2_bn",
    "iq1_bn",
    "iq2_bn_r4",
    "iq1_bn_r4",
    "tl2",
    "tl1",
    "bf16",
    "f16",
    "fp16",
    "f32",
];

/// Small files of a model, by name.
const COMPANIONS: [&str; 18] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "params.json",
    "quantization_config.json",
];

/// Files about a model rather than of it: they come with every form.
const PAPERS: [&str; 6] = ["README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "USE_POLICY.md"];

/// `training_args.bin` and the like end as weights do and are none.
const NO_WEIGHTS: [&str; 7] =
    ["training_args", "optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "imatrix"];

/// Chooses among `files`. `read` gives the content of a small file: of an index, which names the files of the weights.
///
/// # Errors
/// If there are no weights, several and nothing that tells which, or not those that are asked for.
pub(crate) fn choose(
    repo: &str,
    files: &[&str],
    wanted: Option<&str>,
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
) -> Result<Choice> {
    let weights = weights_among(files);
    let of = |kind| -> Vec<&str> {
        weights.iter().copied().filter(|path| WeightKind::of(path) == Some(kind)).collect()
    };
    let kinds = [WeightKind::Safetensors, WeightKind::Gguf, WeightKind::Pytorch, WeightKind::Onnx];
    let picker = Picker { repo, files };
    if let Some(wanted) = wanted {
        if let Some(kind) = kinds.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(wanted)) {
            let of = of(kind);
            return if of.is_empty() {
                Err(picker.no_such(wanted, &weights))
            } else {
                picker.of_kind(kind, &of, read)
            };
        }
        return picker.named(wanted, &weights, read);
    }
    match kinds.into_iter().map(|kind| (kind, of(kind))).find(|(_, of)| !of.is_empty()) {
        Some((kind, of)) => picker.of_kind(kind, &of, read),
        None => {
            let names: Vec<&str> = files.iter().copied().take(5).collect();
            let more = if files.len() > names.len() { ", ..." } else { "" };
            let why = format!("there are no weights, only {}{more}", names.join(", "));
            let why = if files.is_empty() { "there are no files".to_owned() } else { why };
            Err(HubError::NoModel { repo: repo.to_owned(), why })
        }
    }
}

/// What can be asked for among `files`, so that every model among them is asked for once: forms, and GGUF files.
pub(crate) fn variants(files: &[&str]) -> Vec<(WeightKind, String)> {
    let weights = weights_among(files);
    let of = |kind| -> Vec<&str> {
        weights.iter().copied().filter(|path| WeightKind::of(path) == Some(kind)).collect()
    };
    let mut out = Vec::new();
    for kind in [WeightKind::Safetensors, WeightKind::Gguf, WeightKind::Pytorch, WeightKind::Onnx] {
        let files = of(kind);
        if kind == WeightKind::Gguf {
            out.extend(groups(&files).into_iter().map(|group| (kind, group[0].to_owned())));
        } else if !files.is_empty() {
            out.push((kind, kind.name().to_owned()));
        }
    }
    out
}

/// The files that may hold a model's weights.
pub(crate) fn weights_among<'a>(files: &[&'a str]) -> Vec<&'a str> {
    files.iter().copied().filter(|path| is_weights(path)).collect()
}

fn is_weights(path: &str) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    WeightKind::of(path).is_some() && !NO_WEIGHTS.iter().any(|part| name.contains(part))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

struct Picker<'a> {
    repo: &'a str,
    files: &'a [&'a str],
}

impl Picker<'_> {
    fn has(&self, path: &str) -> bool {
        self.files.contains(&path)
    }

    fn no_such(&self, wanted: &str, weights: &[&str]) -> HubError {
        let names = groups(weights).into_iter().map(|group| group[0].to_owned()).collect();
        HubError::NoSuchChoice { repo: self.repo.to_owned(), wanted: wanted.to_owned(), names }
    }

    fn ambiguous(&self, names: &[&str]) -> HubError {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        HubError::Ambiguous { repo: self.repo.to_owned(), names }
    }

    /// The files of one form.
    fn of_kind(
        &self,
        kind: WeightKind,
        of: &[&str],
        read: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
    ) -> Result<Choice> {
        match kind {
            WeightKind::Safetensors => {
                self.hugging_face(kind, "model.safetensors", "model.safetensors.index.json", of, read)
            }
            WeightKind::Pytorch => {
                self.hugging_face(kind, "pytorch_model.bin", "pytorch_model.bin.index.json", of, read)
            }
            WeightKind::Gguf => self.gguf(of),
            WeightKind::Onnx => {
                let usual = ["model.onnx", "onnx/model.onnx"].into_iter().find(|name| self.has(name));
                let only = if let [one] = of { Some(*one) } else { None };
                let name = usual.or(only).ok_or_else(|| self.ambiguous(of))?;
                Ok(self.choice(kind, self.with_external_data(name), Some(name)))
            }
        }
    }

    /// The usual file, the files of the usual index, or the only file.
    fn hugging_face(
        &self,
        kind: WeightKind,
        single: &str,
        index: &str,
        of: &[&str],
        read: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
    ) -> Result<Choice> {
        if self.has(single) {
            return Ok(self.choice(kind, vec![single.to_owned()], None));
        }
        if self.has(index) {
            let mut weights = vec![index.to_owned()];
            weights.extend(self.shards(index, &read(index)?)?);
            return Ok(self.choice(kind, weights, None));
        }
        match of {
            [one] if folder(one).is_empty() && kind == WeightKind::Safetensors => {
                Ok(self.choice(kind, vec![(*one).to_owned()], None))
            }
            [one] => Ok(self.choice(kind, vec![(*one).to_owned()], Some(one))),
            _ => Err(self.ambiguous(of)),
        }
    }

    /// The files that an index names; all of them must be there.
    fn shards(&self, index: &str, text: &[u8]) -> Result<Vec<String>> {
        let bad = |why: String| HubError::NoModel { repo: self.repo.to_owned(), why };
        let json: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| bad(format!("{index} is no JSON: {error}")))?;
        let map = json.get("weight_map").and_then(serde_json::Value::as_object);
        let map = map.ok_or_else(|| bad(format!("{index} has no weight_map")))?;
        let mut shards = BTreeSet::new();
        for file in map.values() {
            let file = file.as_str().filter(|file| is_relative_path(file));
            shards.insert(
                file.ok_or_else(|| bad(format!("{index} names something that is no file")))?.to_owned(),
            );
        }
        match shards.iter().find(|file| !self.has(file)) {
            Some(missing) => Err(bad(format!("{index} names {missing}, which is not there"))),
            None if shards.is_empty() => Err(bad(format!("{index} names no files"))),
            None => Ok(shards.into_iter().collect()),
        }
    }

    /// The GGUF file of the first type in our order; a single one whatever it is.
    fn gguf(&self, of: &[&str]) -> Result<Choice> {
        let groups = groups(of);
        let chosen = match groups.as_slice() {
            [one] => one,
            _ => {
                let typed = GGUF_ORDER.iter().find_map(|kind| {
                    let mut of_type = groups.iter().filter(|group| has_word(group[0], kind));
                    // Two of one type are a question for the person.
                    of_type.next().filter(|_| of_type.next().is_none())
                });
                typed
                    .ok_or_else(|| self.ambiguous(&groups.iter().map(|group| group[0]).collect::<Vec<_>>()))?
            }
        };
        let weights = chosen.iter().map(|&path| path.to_owned()).collect();
        Ok(self.choice(WeightKind::Gguf, weights, Some(chosen[0])))
    }

    /// A file by path or name, or a GGUF file by quantisation.
    fn named(
        &self,
        wanted: &str,
        weights: &[&str],
        read: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
    ) -> Result<Choice> {
        let groups = groups(weights);
        let by_path = |group: &&Vec<&str>| group.contains(&wanted);
        let by_name = |group: &&Vec<&str>| group.iter().any(|path| file_name(path) == wanted);
        let by_word = |group: &&Vec<&str>| has_word(group[0], wanted);
        let found = groups.iter().find(by_path).or_else(|| groups.iter().find(by_name));
        let group = match found {
            Some(group) => group,
            None => {
                // Several forms may have the type in their names; GGUF is where types are asked for.
                let mut all: Vec<_> = groups.iter().filter(by_word).collect();
                let is_gguf = |group: &&Vec<&str>| WeightKind::of(group[0]) == Some(WeightKind::Gguf);
                if all.iter().any(is_gguf) {
                    all.retain(is_gguf);
                }
                match all.len() {
                    0 => return Err(self.no_such(wanted, weights)),
                    1 => all[0],
                    _ => return Err(self.ambiguous(&all.iter().map(|group| group[0]).collect::<Vec<_>>())),
                }
            }
        };
        let entry = group[0];
        let kind = WeightKind::of(entry).unwrap_or(WeightKind::Safetensors);
        // One part of several stands for all of them.
        let index = match kind {
            WeightKind::Safetensors => Some("model.safetensors.index.json"),
            WeightKind::Pytorch => Some("pytorch_model.bin.index.json"),
            _ => None,
        };
        if let Some(index) = index.filter(|index| self.has(index) && !has_single(kind, entry)) {
            let shards = self.shards(index, &read(index)?)?;
            if shards.iter().any(|shard| shard == entry) {
                let all = std::iter::once(index.to_owned()).chain(shards).collect();
                return Ok(self.choice(kind, all, Some(entry)));
            }
        }
        let weights = match kind {
            WeightKind::Onnx => self.with_external_data(entry),
            _ => group.iter().map(|&path| path.to_owned()).collect(),
        };
        Ok(self.choice(kind, weights, Some(entry)))
    }

    /// An ONNX model and the files its large tensors may lie in, which are called like it.
    fn with_external_data(&self, model: &str) -> Vec<String> {
        let is_data = |path: &&&str| {
            path.strip_prefix(model)
                .is_some_and(|rest| rest.starts_with("_data") || rest.starts_with(".data"))
                || path.strip_prefix(model.trim_end_matches("onnx")).is_some_and(|rest| rest == "data")
        };
        let data = self.files.iter().filter(is_data).map(|&path| path.to_owned());
        std::iter::once(model.to_owned()).chain(data).collect()
    }

    fn choice(&self, kind: WeightKind, weights: Vec<String>, entry: Option<&str>) -> Choice {
        let mut names: Vec<String> = PAPERS.iter().map(|&name| name.to_owned()).collect();
        if kind != WeightKind::Gguf {
            names.extend(COMPANIONS.iter().map(|&name| name.to_owned()));
            // A model in a folder of its own has its files there.
            let below = weights.first().map_or("", |path| folder(path));
            if !below.is_empty() {
                names.extend(COMPANIONS.iter().map(|name| format!("{below}/{name}")));
            }
        }
        let companions = names.into_iter().filter(|name| self.has(name)).collect();
        Choice { kind, weights, companions, entry: entry.map(str::to_owned) }
    }
}

fn has_single(kind: WeightKind, path: &str) -> bool {
    match kind {
        WeightKind::Safetensors => path == "model.safetensors",
        _ => path == "pytorch_model.bin",
    }
}

/// Files by model: the parts of a split GGUF file (`-00001-of-00003`) are one.
fn groups<'a>(paths: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut sorted = paths.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<(Option<String>, Vec<&'a str>)> = Vec::new();
    for path in sorted {
        let key = split_key(path);
        match out.iter_mut().find(|(other, _)| key.is_some() && *other == key) {
            Some((_, group)) => group.push(path),
            None => out.push((key, vec![path])),
        }
    }
    out.into_iter().map(|(_, group)| group).collect()
}

/// What the parts of a split file have in common; none for a whole file.
fn split_key(path: &str) -> Option<String> {
    let (stem, total) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = stem.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(total) && digits(part)).then(|| format!("{stem}-of-{total}"))
}

/// Whether the name of a file has `word` in it, set apart by `-`, `.` or `_`, in any case.
fn has_word(path: &str, word: &str) -> bool {
    let (name, word) = (file_name(path).to_ascii_lowercase(), word.to_ascii_lowercase());
    let is_edge = |byte: Option<u8>| byte.is_none_or(|byte| b"-._".contains(&byte));
    name.match_indices(&word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|i| name.as_bytes()[i]);
        let after = name.as_bytes().get(at + word.len()).copied();
        // `iq2_bn` must not be found in `iq2_bn_r4`.
        let is_longer =
            name[at + word.len()..].starts_with("_r4") || name[at + word.len()..].starts_with("_r8");
        is_edge(before) && is_edge(after) && !is_longer
    })
}

#[cfg(test)]
mod tests;
