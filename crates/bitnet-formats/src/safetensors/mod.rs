//! safetensors: one file, many files with an index, and a writer.
//!
//! A file is the length of a JSON header (u64, little-endian), the header, and the data. The header maps names to type,
//! shape and byte range from the beginning of the data; the ranges must cover the data without gap or overlap.
//! `__metadata__` maps strings to strings.
//!
//! * [`read_safetensors`], [`SafetensorsFile`]: one file.
//! * [`ShardIndex`], [`read_shards`]: `model.safetensors.index.json` and the files it names.
//! * [`create_safetensors`]: writes a file while the tensors are being computed.

mod header;
mod shards;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bitnet_core::bytes::ByteView;

use crate::error::{json_problem, quoted};
use crate::tensor::{StoredTensor, StoredType, TensorSet};
use crate::{Container, FormatError, Result, detect};
use header::Header;

pub(crate) use shards::collect_shards;
pub use shards::{ShardIndex, read_shards};
pub use writer::create_safetensors;

/// Longest header that is read, as in the original implementation.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Key of the header under which the metadata is.
const METADATA_KEY: &str = "__metadata__";

/// Names of the types in headers.
const TYPES: [(&str, StoredType); 15] = [
    ("F64", StoredType::F64),
    ("F32", StoredType::F32),
    ("F16", StoredType::F16),
    ("BF16", StoredType::BF16),
    ("I64", StoredType::I64),
    ("I32", StoredType::I32),
    ("I16", StoredType::I16),
    ("I8", StoredType::I8),
    ("U64", StoredType::U64),
    ("U32", StoredType::U32),
    ("U16", StoredType::U16),
    ("U8", StoredType::U8),
    ("BOOL", StoredType::Bool),
    ("F8_E4M3", StoredType::F8E4M3),
    ("F8_E5M2", StoredType::F8E5M2),
];

/// What a safetensors file holds.
#[derive(Debug, Clone)]
pub struct SafetensorsFile {
    /// The tensors, in the order of the header.
    pub tensors: TensorSet,
    /// The `__metadata__` map; empty if there is none.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file; `origin` is its name for messages. No tensor data is touched.
///
/// # Errors
/// [`FormatError`] if the file is of another kind, cut short, or its header contradicts itself or the file.
#[expect(clippy::needless_pass_by_value, reason = "the file is handed over: its tensors hold on to it")]
pub fn read_safetensors(view: ByteView, origin: &str) -> Result<SafetensorsFile> {
    let bytes = view.as_slice();
    detect::expect(Container::Safetensors, "safetensors", bytes, origin)?;
    let header = parse_header(bytes, origin)?;
    let data_start = 8 + header.bytes;
    let mut tensors = TensorSet::new();
    let mut ranges = Vec::with_capacity(header.tensors.len());
    let file: Arc<str> = origin.into();
    let data_len = view.len() as u64 - data_start;
    for entry in header.tensors {
        let stored = stored_type(&entry, origin)?;
        let range = checked_range(&entry, stored, origin)?;
        if range.end > data_len {
            let what = format!("tensor {}", quoted(&entry.name));
            let needed = data_start.saturating_add(range.end);
            return Err(FormatError::beyond_end(origin, what, needed, view.len() as u64));
        }
        let data = view.slice(data_start + range.start, data_start + range.end, origin)?;
        ranges.push((range, tensors.len()));
        tensors.insert(StoredTensor {
            name: entry.name,
            shape: entry.shape,
            stored,
            data,
            origin: Arc::clone(&file),
        })?;
    }
    check_cover(&mut ranges, &tensors, data_len, origin)?;
    Ok(SafetensorsFile { tensors, metadata: header.metadata })
}

/// Finds and parses the header of bytes that [`detect()`](crate::detect()) takes for safetensors.
fn parse_header(bytes: &[u8], origin: &str) -> Result<Header> {
    let len = bytes.len() as u64;
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(FormatError::beyond_end(origin, "the header", 8, len));
    };
    let length = u64::from_le_bytes(*length);
    let Some(json) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
        return Err(FormatError::beyond_end(origin, "the header", length.saturating_add(8), len));
    };
    let mut header: Header = serde_json::from_slice(json)
        .map_err(|error| FormatError::malformed(origin, "the JSON header", json_problem(&error)))?;
    header.bytes = length;
    Ok(header)
}

fn stored_type(entry: &header::Entry, origin: &str) -> Result<StoredType> {
    let known = TYPES.iter().find(|(name, _)| *name == entry.dtype);
    known.map(|&(_, stored)| stored).ok_or_else(|| FormatError::Unsupported {
        origin: origin.to_owned(),
        what: format!("tensor {}: type {}", quoted(&entry.name), quoted(&entry.dtype)),
        remedy: "save the model as F32, F16, BF16 or U8",
    })
}

/// The byte range of a tensor inside the data, of the length that its type and shape ask for.
fn checked_range(entry: &header::Entry, stored: StoredType, origin: &str) -> Result<Range<u64>> {
    let malformed =
        |problem| Err(FormatError::malformed(origin, format!("tensor {}", quoted(&entry.name)), problem));
    let [start, end] = entry.data_offsets;
    if start > end {
        return malformed(format!("data_offsets [{start}, {end}] run backwards"));
    }
    match stored.byte_len(&entry.shape) {
        None => malformed(format!("shape {:?} is too large", entry.shape)),
        Some(len) if len != end - start => {
            let shape = &entry.shape;
            malformed(format!("{stored} {shape:?} takes {len} bytes, but data_offsets have {}", end - start))
        }
        Some(_) => Ok(start..end),
    }
}

/// Checks that the ranges cover the data once. `ranges` come with the places of their tensors and get sorted.
fn check_cover(
    ranges: &mut [(Range<u64>, usize)],
    tensors: &TensorSet,
    data_len: u64,
    origin: &str,
) -> Result<()> {
    ranges.sort_unstable_by_key(|(range, place)| (range.start, range.end, *place));
    let mut covered = 0;
    for (range, place) in ranges.iter() {
        if range.start != covered {
            let name = tensors.iter().nth(*place).map(|tensor| quoted(&tensor.name)).unwrap_or_default();
            let relation =
                if range.start < covered { "overlaps the tensor before it" } else { "leaves a gap" };
            let problem =
                format!("it {relation}: it begins at {} instead of {covered} of the data", range.start);
            return Err(FormatError::malformed(origin, format!("tensor {name}"), problem));
        }
        covered = range.end;
    }
    if covered != data_len {
        let problem = format!("{} bytes after the last tensor belong to none", data_len - covered);
        return Err(FormatError::malformed(origin, "the data", problem));
    }
    Ok(())
}
