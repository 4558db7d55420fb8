//! Reading GGUF files.

use std::sync::Arc;

use bitnet_core::bytes::ByteView;

use super::cursor::Cursor;
use super::metadata::GgufMetadata;
use super::parts::refuse_part;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_DIMENSIONS};
use crate::error::quoted;
use crate::tensor::{StoredTensor, StoredType, TensorSet};
use crate::{Container, FormatError, Result, detect, ggml};

/// Bounds on what is read, far above what models have.
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_NAME_BYTES: u64 = 65_535;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// Fewest bytes that a metadata pair (key length, type, one-byte value) and a tensor entry (name length, number of
/// dimensions, type, offset) take.
const MIN_PAIR_BYTES: u64 = 8 + 4 + 1;
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// What a GGUF file holds.
#[derive(Debug, Clone)]
pub struct GgufFile {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Tensor data begins at multiples of this many bytes.
    pub alignment: u64,
    /// The metadata.
    pub metadata: GgufMetadata,
    /// The tensors, in the order of the file.
    pub tensors: TensorSet,
    /// Bytes of the file, or of all parts together.
    pub file_bytes: u64,
}

impl GgufFile {
    /// Adds the tensors of the next part.
    pub(super) fn append(&mut self, part: GgufFile) -> Result<()> {
        self.file_bytes += part.file_bytes;
        self.tensors.merge(part.tensors)
    }
}

/// A tensor entry, its place checked for itself only.
struct Info {
    name: String,
    shape: Vec<u64>,
    stored: StoredType,
    offset: u64,
}

/// Reads a GGUF file; `origin` is its name for messages. No tensor data is touched.
///
/// # Errors
/// [`FormatError`] if the file is of another kind or version, big-endian, one part of several (see
/// [`read_gguf_parts`](super::read_gguf_parts)), cut short, or contradicts itself.
pub fn read_gguf(view: ByteView, origin: &str) -> Result<GgufFile> {
    let file = read_one(view, origin)?;
    refuse_part(&file, origin)?;
    Ok(file)
}

/// Reads a file, whole or a part.
#[expect(clippy::needless_pass_by_value, reason = "the file is handed over: its tensors hold on to it")]
pub(super) fn read_one(view: ByteView, origin: &str) -> Result<GgufFile> {
    let bytes = view.as_slice();
    detect::expect(Container::Gguf, "GGUF", bytes, origin)?;
    let mut cursor = Cursor::new(bytes, origin);
    cursor.u32("the magic number")?;
    let version = read_version(&mut cursor, origin)?;
    let tensor_count = bounded(&mut cursor, "tensor_count", MAX_TENSORS)?;
    let pair_count = bounded(&mut cursor, "metadata_kv_count", MAX_PAIRS)?;
    check_room(&cursor, "metadata_kv_count", pair_count, MIN_PAIR_BYTES)?;
    let metadata = read_metadata(&mut cursor, pair_count, origin)?;
    let alignment = alignment(&metadata, origin)?;
    check_room(&cursor, "tensor_count", tensor_count, MIN_TENSOR_BYTES)?;
    let infos = (0..tensor_count).map(|index| read_info(&mut cursor, index, alignment));
    let infos = infos.collect::<Result<Vec<Info>>>()?;
    // The position is inside the file and the alignment small, so the sum does not overflow.
    let data_start = cursor.position().next_multiple_of(alignment);
    let tensors = place_tensors(infos, &view, data_start, alignment, origin)?;
    Ok(GgufFile { version, alignment, metadata, tensors, file_bytes: view.len() as u64 })
}

fn read_version(cursor: &mut Cursor<'_>, origin: &str) -> Result<u32> {
    let version = cursor.u32("version")?;
    let unsupported =
        |what: String, remedy| Err(FormatError::Unsupported { origin: origin.to_owned(), what, remedy });
    match version {
        2 | 3 => Ok(version),
        0 => Err(cursor.malformed("version", "there is no version 0".to_owned())),
        1 => unsupported("GGUF version 1".to_owned(), "convert the model again with a current converter"),
        _ if version & 0xffff == 0 => {
            let what = format!("big-endian GGUF (version {})", version.swap_bytes());
            unsupported(what, "get or convert the little-endian file")
        }
        _ => unsupported(
            format!("GGUF version {version}"),
            "this engine reads versions 2 and 3: convert the model",
        ),
    }
}

/// A count that is at most `limit`.
fn bounded(cursor: &mut Cursor<'_>, field: &str, limit: u64) -> Result<u64> {
    let count = cursor.u64(field)?;
    if count > limit {
        return Err(cursor.malformed(field, format!("{count}; at most {limit} make sense")));
    }
    Ok(count)
}

fn check_room(cursor: &Cursor<'_>, field: &str, count: u64, min_bytes: u64) -> Result<()> {
    // Counts are bounded, so the product does not overflow.
    if count * min_bytes > cursor.left() {
        return Err(cursor.beyond_end(&format!("{field} of {count}"), count * min_bytes));
    }
    Ok(())
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64, origin: &str) -> Result<GgufMetadata> {
    let mut metadata = GgufMetadata::new(origin);
    for index in 0..count {
        let key = cursor.string(MAX_NAME_BYTES, &format!("key of metadata pair {index}"))?;
        let field = format!("metadata {}", quoted(key));
        let type_id = cursor.u32(&field)?;
        let value = cursor.value(type_id, &field)?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn alignment(metadata: &GgufMetadata, origin: &str) -> Result<u64> {
    let alignment = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        let problem = format!("{alignment} is not a power of two up to {MAX_ALIGNMENT}");
        return Err(FormatError::malformed(origin, format!("metadata {ALIGNMENT_KEY:?}"), problem));
    }
    Ok(alignment)
}

fn read_info(cursor: &mut Cursor<'_>, index: u64, alignment: u64) -> Result<Info> {
    let name = cursor.string(MAX_NAME_BYTES, &format!("name of tensor {index}"))?;
    let field = format!("tensor {}", quoted(name));
    let dimensions = cursor.u32(&field)?;
    if dimensions > MAX_DIMENSIONS {
        let problem = format!("it has {dimensions} dimensions; at most {MAX_DIMENSIONS} are allowed");
        return Err(cursor.malformed(&field, problem));
    }
    let mut shape = (0..dimensions).map(|_| cursor.u64(&field)).collect::<Result<Vec<u64>>>()?;
    shape.reverse();
    let stored = ggml::type_of(cursor.u32(&field)?);
    let offset = cursor.u64(&field)?;
    if !offset.is_multiple_of(alignment) {
        return Err(cursor
            .malformed(&field, format!("offset {offset} is not a multiple of the alignment {alignment}")));
    }
    if shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).is_none() {
        return Err(cursor.malformed(&field, format!("shape {shape:?} is too large")));
    }
    Ok(Info { name: name.to_owned(), shape, stored, offset })
}

/// Works out the bytes of every tensor and checks that they lie in the file and do not overlap.
fn place_tensors(
    infos: Vec<Info>,
    view: &ByteView,
    data_start: u64,
    alignment: u64,
    origin: &str,
) -> Result<TensorSet> {
    let len = view.len() as u64;
    let data_len = len.saturating_sub(data_start);
    let mut offsets: Vec<u64> = infos.iter().map(|info| info.offset).collect();
    offsets.sort_unstable();
    let file: Arc<str> = origin.into();
    let mut tensors = TensorSet::new();
    let mut ranges = Vec::with_capacity(infos.len());
    for info in infos {
        let Info { name, shape, stored, offset } = info;
        let field = || format!("tensor {}", quoted(&name));
        let next = offsets[offsets.partition_point(|&other| other <= offset)..].first().copied();
        let stored = ggml::settle(stored, &shape, next.unwrap_or(data_len).saturating_sub(offset), alignment);
        let bytes = match byte_len(stored, &shape) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => next.unwrap_or(data_len).saturating_sub(offset),
            Err(problem) => return Err(FormatError::malformed(origin, field(), problem)),
        };
        let end = offset.saturating_add(bytes);
        if end > data_len && bytes > 0 {
            return Err(FormatError::beyond_end(origin, field(), data_start.saturating_add(end), len));
        }
        if bytes > 0 {
            ranges.push((offset, end, tensors.len()));
        }
        // An empty tensor may stand where the file ends, even before padding that is not there.
        let start = (data_start.saturating_add(offset)).min(len);
        let data = view.slice(start, start + bytes, origin)?;
        tensors.insert(StoredTensor { name, shape, stored, data, origin: Arc::clone(&file) })?;
    }
    check_disjoint(&mut ranges, &tensors, origin)?;
    Ok(tensors)
}

/// Checks that no two tensors share bytes. `ranges` hold first byte, end and place of each tensor; they get sorted.
fn check_disjoint(ranges: &mut [(u64, u64, usize)], tensors: &TensorSet, origin: &str) -> Result<()> {
    ranges.sort_unstable();
    let name =
        |place: usize| tensors.iter().nth(place).map(|tensor| quoted(&tensor.name)).unwrap_or_default();
    for pair in ranges.windows(2) {
        let [(start, end, first), (next, _, second)] = *pair else { continue };
        if next < end {
            let problem =
                format!("its bytes {start}..{end} of the data overlap tensor {} at {next}", name(second));
            return Err(FormatError::malformed(origin, format!("tensor {}", name(first)), problem));
        }
    }
    Ok(())
}

/// Bytes of a tensor, or `None` where only the file's layout can tell.
fn byte_len(stored: StoredType, shape: &[u64]) -> Result<Option<u64>, String> {
    if let Some(bytes) = stored.byte_len(shape) {
        return Ok(Some(bytes));
    }
    match stored {
        StoredType::Ggml { id, name } => match ggml::block_elements(id, name) {
            None => Ok(None),
            Some(elements) => {
                Err(format!("shape {shape:?} of type {name} is not in whole blocks of {elements}"))
            }
        },
        StoredType::I2S => Err(format!("shape {shape:?} of type i2_s is not a multiple of 4 elements")),
        _ => Err(format!("shape {shape:?} is too large")),
    }
}
