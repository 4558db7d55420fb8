//! Files of `torch.save` before version 1.6: a sequence of pickles (a magic number, a version, facts about the machine,
//! the object, the keys of its storages), then each storage as its length and its elements.

use bitnet_core::bytes::ByteView;

use super::heap::{Heap, Value};
use super::unpickle::unpickle;
use crate::error::quoted;
use crate::{FormatError, Result};

/// The only version there has been.
const VERSION: i64 = 1001;

/// Reads the object of a file and finds its storages.
///
/// # Errors
/// If the file is malformed or cut short.
pub(super) fn read<'a>(view: &ByteView, bytes: &'a [u8], heap: &mut Heap<'a, '_>) -> Result<Value<'a>> {
    let (_, rest) = unpickle(bytes, "magic number", heap)?;
    let (version, rest) = unpickle(rest, "version", heap)?;
    if !matches!(version, Value::Int(VERSION)) {
        let problem = format!("it is not {VERSION}, the only one there has been");
        return Err(FormatError::malformed(heap.origin(), "the version", problem));
    }
    let (_, rest) = unpickle(check_endian(rest, heap)?, "facts about the machine", heap)?;
    let (object, rest) = unpickle(rest, "pickle", heap)?;
    let (keys, rest) = unpickle(rest, "list of storages", heap)?;
    let count = heap.elements(keys).map(<[_]>::len);
    let count = count
        .ok_or_else(|| FormatError::malformed(heap.origin(), "the list of storages", "it is no list"))?;
    let mut at = (bytes.len() - rest.len()) as u64;
    for index in 0..count {
        let key = match heap.elements(keys).and_then(|list| list.get(index)) {
            Some(Value::Text(key)) => *key,
            _ => {
                return Err(FormatError::malformed(
                    heap.origin(),
                    "the list of storages",
                    "a key is no string",
                ));
            }
        };
        at = storage(view, at, key, heap)?;
    }
    Ok(object)
}

/// The dictionary of facts holds `little_endian`; what is false about it is the byte 0x89 right after its name.
fn check_endian<'a>(rest: &'a [u8], heap: &Heap<'a, '_>) -> Result<&'a [u8]> {
    const NAME: &[u8] = b"little_endian";
    let head = &rest[..rest.len().min(512)];
    let value = head.windows(NAME.len()).position(|window| window == NAME).map(|at| &head[at + NAME.len()..]);
    // Between name and value, the name is remembered in two bytes.
    let big = value.is_some_and(|value| value.iter().take(3).any(|&byte| byte == 0x89));
    if big {
        return Err(super::big_endian(heap.origin()));
    }
    Ok(rest)
}

/// Takes the storage at `at`; returns where the next one begins.
fn storage<'a>(view: &ByteView, at: u64, key: &'a str, heap: &mut Heap<'a, '_>) -> Result<u64> {
    let origin = heap.origin();
    let name = || format!("storage {}", quoted(key));
    let start = at + 8;
    let len = view.len() as u64;
    if start > len {
        return Err(FormatError::beyond_end(origin, name(), start, len));
    }
    let mut count = [0; 8];
    count.copy_from_slice(view.slice(at, start, origin)?.as_slice());
    let count = u64::from_le_bytes(count);
    let Some(place) = heap.find_storage(key) else {
        return Err(FormatError::malformed(origin, name(), "no tensor mentions it"));
    };
    let storage = &mut heap.storages[place];
    if storage.count != count {
        let problem = format!("it has {count} elements here, but {} in the pickle", storage.count);
        return Err(FormatError::malformed(origin, name(), problem));
    }
    let bytes = storage.byte_len().and_then(|bytes| start.checked_add(bytes));
    match bytes {
        Some(end) if end <= len => {
            storage.data = Some(view.slice(start, end, origin)?);
            Ok(end)
        }
        end => Err(FormatError::beyond_end(origin, name(), end.unwrap_or(u64::MAX), len)),
    }
}
