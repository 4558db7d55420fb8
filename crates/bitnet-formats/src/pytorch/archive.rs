//! Zip archives as `torch.save` writes them: every entry stored as it is, so that its bytes can be used where they lie
//! in the mapped file. Archives beyond 4 GiB (ZIP64) are read as well.

use std::collections::HashMap;
use std::ops::Range;

use super::budget::Budget;
use crate::error::quoted;
use crate::{FormatError, Result};

/// The end record and what may follow it, a comment of at most 65535 bytes.
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
/// Where the ZIP64 end record is, right before the end record.
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const END64: [u8; 4] = *b"PK\x06\x06";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const CENTRAL_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// Id of the extra field with 64-bit sizes.
const ZIP64: u16 = 1;
/// Bytes that an entry may take in the table while it grows.
const TABLE_ENTRY: usize = 5 * size_of::<(&[u8], Entry)>();

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    method: u16,
    flags: u16,
    /// Where its own header is.
    header: u64,
    len: u64,
}

/// The directory of an archive.
#[derive(Debug)]
pub(super) struct Archive<'a, 'o> {
    bytes: &'a [u8],
    origin: &'o str,
    entries: HashMap<&'a [u8], Entry>,
    /// Folder of all entries, with the slash.
    folder: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16_at(bytes, at)) | u64::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

impl<'a, 'o> Archive<'a, 'o> {
    /// Reads the directory.
    ///
    /// # Errors
    /// If it is cut off, contradicts itself, or holds no `data.pkl`.
    pub(super) fn read(bytes: &'a [u8], budget: &mut Budget<'o>) -> Result<Self> {
        let origin = budget.origin();
        let wrong = |problem: String| FormatError::malformed(origin, "the zip directory", problem);
        let mut rest = directory(bytes).map_err(wrong)?;
        let mut entries = HashMap::new();
        while !rest.is_empty() {
            let (name, entry, after) = entry(rest).map_err(wrong)?;
            budget.objects(TABLE_ENTRY)?;
            if entries.insert(name, entry).is_some() {
                let name = quoted(&String::from_utf8_lossy(name));
                return Err(wrong(format!("the entry {name} is there twice")));
            }
            rest = after;
        }
        let folders = entries.keys().filter_map(|name| name.strip_suffix(b"data.pkl"));
        // One folder holds everything; a pickle in a folder below is somebody's data.
        let folder =
            folders.filter(|folder| folder.ends_with(b"/")).min_by_key(|folder| (folder.len(), *folder));
        let folder = folder.ok_or_else(|| wrong("there is no data.pkl in it".to_owned()))?;
        Ok(Self { bytes, origin, entries, folder })
    }

    /// Whether there is an entry of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key([self.folder, name.as_bytes()].concat().as_slice())
    }

    /// Where the bytes of an entry lie in the file; `None` if there is no such entry.
    ///
    /// # Errors
    /// If the entry is compressed, encrypted or damaged.
    pub(super) fn find(&self, name: &str) -> Result<Option<Range<u64>>> {
        let Some(entry) = self.entries.get([self.folder, name.as_bytes()].concat().as_slice()) else {
            return Ok(None);
        };
        let what = || format!("the entry {}", quoted(name));
        if entry.method != 0 || entry.flags & 1 != 0 {
            let how = if entry.method != 0 { "compressed" } else { "encrypted" };
            return Err(FormatError::Unsupported {
                origin: self.origin.to_owned(),
                what: format!("{}, which is {how},", what()),
                remedy: "save the model again with torch.save, which stores all entries as they are",
            });
        }
        let header =
            usize::try_from(entry.header).ok().and_then(|start| self.bytes.get(start..)?.get(..LOCAL_BYTES));
        let Some(header) = header.filter(|header| header.starts_with(&LOCAL)) else {
            let problem = format!("there is no header at byte {} of the file", entry.header);
            return Err(FormatError::malformed(self.origin, what(), problem));
        };
        let skipped = LOCAL_BYTES as u64 + u64::from(u16_at(header, 26)) + u64::from(u16_at(header, 28));
        let start = entry.header + skipped;
        match start.checked_add(entry.len) {
            Some(end) if end <= self.bytes.len() as u64 => Ok(Some(start..end)),
            end => {
                let (needed, len) = (end.unwrap_or(u64::MAX), self.bytes.len() as u64);
                Err(FormatError::beyond_end(self.origin, what(), needed, len))
            }
        }
    }

    /// The bytes of an entry.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(super) fn open(&self, name: &str) -> Result<Option<&'a [u8]>> {
        let range = self.find(name)?;
        Ok(range.map(|range| &self.bytes[range.start as usize..range.end as usize]))
    }
}

/// The bytes of the directory.
fn directory(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    let last = bytes.len().saturating_sub(END_BYTES);
    let first = last.saturating_sub(usize::from(u16::MAX));
    let fits = |&at: &usize| {
        bytes[at..].starts_with(&END)
            && bytes.len() - at >= END_BYTES
            && usize::from(u16_at(bytes, at + 20)) == bytes.len() - at - END_BYTES
    };
    let end = (first..=last).rev().find(fits);
    let end =
        end.ok_or("it should be at the end of the file, which is missing: the download is incomplete")?;
    let (mut size, mut start) = (u32_at(bytes, end + 12), u32_at(bytes, end + 16));
    let locator = end.checked_sub(LOCATOR_BYTES).filter(|&at| bytes[at..].starts_with(&LOCATOR));
    if let Some(locator) = locator {
        let at = u64_at(bytes, locator + 8);
        let record = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..56));
        let record = record.filter(|record| record.starts_with(&END64));
        let record = record.ok_or_else(|| format!("there is no ZIP64 end record at byte {at}"))?;
        (size, start) = (u64_at(record, 40), u64_at(record, 48));
    }
    let range =
        start.checked_add(size).filter(|&stop| stop <= end as u64).map(|stop| start as usize..stop as usize);
    range
        .map(|range| &bytes[range])
        .ok_or_else(|| format!("{size} bytes from byte {start} on are not before its end"))
}

/// The first entry of the rest of the directory, its name, and what follows.
fn entry(rest: &[u8]) -> std::result::Result<(&[u8], Entry, &[u8]), String> {
    let fixed = rest.get(..CENTRAL_BYTES).filter(|fixed| fixed.starts_with(&CENTRAL));
    let fixed = fixed.ok_or("an entry does not begin as it must")?;
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let after = CENTRAL_BYTES + name + extra + comment;
    if rest.len() < after {
        return Err("an entry is cut off".to_owned());
    }
    let (name, extra) = (&rest[CENTRAL_BYTES..][..name], &rest[CENTRAL_BYTES + name..][..extra]);
    let [mut stored, mut len, mut header] = [20, 24, 42].map(|at| u32_at(fixed, at));
    let mut wide = wide_sizes(extra);
    // In this order, each only where the 32 bits do not do.
    for field in [&mut len, &mut stored, &mut header] {
        if *field == u64::from(u32::MAX)
            && let Some((value, others)) = wide.split_first_chunk::<8>()
        {
            (*field, wide) = (u64::from_le_bytes(*value), others);
        }
    }
    let (flags, method) = (u16_at(fixed, 8), u16_at(fixed, 10));
    if method == 0 && stored != len {
        let name = quoted(&String::from_utf8_lossy(name));
        return Err(format!("the entry {name} has two lengths, {stored} and {len}"));
    }
    if header > 1 << 62 {
        return Err(format!("an entry begins at byte {header}"));
    }
    Ok((name, Entry { method, flags, header, len }, &rest[after..]))
}

/// The content of the extra field with 64-bit sizes; nothing if there is none.
fn wide_sizes(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(content) = extra[4..].get(..len) else { return &[] };
        if id == ZIP64 {
            return content;
        }
        extra = &extra[4 + len..];
    }
    &[]
}
