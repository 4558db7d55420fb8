//! Models in several safetensors files, joined by an index.

use std::collections::BTreeMap;

use bitnet_core::bytes::ByteView;

use super::header::{MAX_TENSORS, StringMap};
use super::{MAX_HEADER_BYTES, read_safetensors};
use crate::error::{json_problem, quoted};
use crate::tensor::TensorSet;
use crate::{Container, FormatError, Result, detect};

/// Longest name of common file systems.
const MAX_FILE_NAME_BYTES: usize = 255;

/// `model.safetensors.index.json`: which tensor is in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    /// The files, sorted, each once. Plain names: no folders, nothing that leads out of the index's own.
    pub files: Vec<String>,
    /// File of each tensor.
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the JSON text of an index; `origin` is its name for messages.
    ///
    /// # Errors
    /// [`FormatError`] if it is no index, names a tensor twice, or names files outside its folder.
    pub fn from_json(bytes: &[u8], origin: &str) -> Result<Self> {
        detect::expect(Container::Unknown, "shard index (JSON)", bytes, origin)?;
        if bytes.len() as u64 > MAX_HEADER_BYTES {
            let problem = format!("{} bytes are more than any index has ({MAX_HEADER_BYTES})", bytes.len());
            return Err(FormatError::malformed(origin, "the index", problem));
        }
        let Index { weight_map: StringMap(weight_map) } = serde_json::from_slice(bytes)
            .map_err(|error| FormatError::malformed(origin, "the JSON of the index", json_problem(&error)))?;
        if weight_map.is_empty() {
            return Err(FormatError::malformed(origin, "weight_map", "it names no tensors"));
        }
        let mut files: Vec<&String> = weight_map.values().collect();
        files.sort_unstable();
        files.dedup();
        for file in &files {
            check_file_name(file).map_err(|problem| {
                let field = format!("weight_map: file name {}", quoted(file));
                FormatError::malformed(origin, field, problem)
            })?;
        }
        let files = files.into_iter().cloned().collect();
        Ok(Self { files, weight_map })
    }
}

/// Lets through plain file names only, on every system: an index must not reach outside its folder.
fn check_file_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name == "." || name == ".." {
        Err("it names a folder; an index may only name files beside it")
    } else if name.contains(['/', '\\', ':']) {
        Err("it holds a path separator; an index may only name files beside it")
    } else if name.len() > MAX_FILE_NAME_BYTES {
        Err("it is longer than file names can be (255 bytes)")
    } else if name.chars().any(char::is_control) {
        Err("it holds control characters")
    } else {
        Ok(())
    }
}

/// Reads all shards of an index. `origin` is the name of the index for messages; `open` is called once for each file
/// name, in the order of [`ShardIndex::files`].
///
/// # Errors
/// Those of `open` and of [`read_safetensors`]; [`FormatError::MissingFromShard`] and [`FormatError::NotInIndex`] if
/// files and index disagree.
pub fn read_shards(
    index: &ShardIndex,
    origin: &str,
    open: &mut dyn FnMut(&str) -> Result<ByteView>,
) -> Result<TensorSet> {
    collect_shards(index, origin, &mut |file| Ok(read_safetensors(open(file)?, file)?.tensors))
}

/// Puts the tensors of all files of an index together; `read` reads one of them.
///
/// # Errors
/// Those of `read`; [`FormatError::MissingFromShard`] and [`FormatError::NotInIndex`] if files and index disagree.
pub(crate) fn collect_shards(
    index: &ShardIndex,
    origin: &str,
    read: &mut dyn FnMut(&str) -> Result<TensorSet>,
) -> Result<TensorSet> {
    let mut all = TensorSet::new();
    for file in &index.files {
        let shard = read(file)?;
        for tensor in &shard {
            let place = match index.weight_map.get(&tensor.name) {
                Some(place) if place == file => continue,
                Some(place) => format!("in {}", quoted(place)),
                None => "in no file".to_owned(),
            };
            return Err(FormatError::NotInIndex {
                index: origin.to_owned(),
                file: file.clone(),
                tensor: quoted(&tensor.name),
                place,
            });
        }
        all.merge(shard)?;
    }
    match index.weight_map.iter().find(|(name, _)| all.get(name).is_none()) {
        None => Ok(all),
        Some((name, file)) => Err(FormatError::MissingFromShard {
            index: origin.to_owned(),
            file: file.clone(),
            tensor: quoted(name),
        }),
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: StringMap<MAX_TENSORS>,
}
