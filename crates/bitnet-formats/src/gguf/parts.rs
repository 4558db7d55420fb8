//! Models in several GGUF files: `<name>-00001-of-00003.gguf` and so on, each with `split.no` (from 0), `split.count` and
//! `split.tensors.count` (of all parts together). The first part has the metadata of the model.

use bitnet_core::bytes::ByteView;

use super::metadata::GgufMetadata;
use super::reader::{GgufFile, read_one};
use crate::error::quoted;
use crate::{FormatError, Result};

/// Most parts that are opened: far more than any model has.
const MAX_PARTS: u64 = 10_000;

/// Digits of the numbers in file names.
const DIGITS: usize = 5;

/// Number of a part, from 0, and of all parts, as the metadata tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    number: u64,
    count: u64,
}

impl Part {
    /// `None` for a file that is whole.
    fn read(metadata: &GgufMetadata) -> Result<Option<Self>> {
        let Some(count) = metadata.u64("split.count")?.filter(|&count| count > 1) else { return Ok(None) };
        let malformed = |field: &str, problem: String| {
            Err(FormatError::malformed(metadata.origin(), format!("metadata {field:?}"), problem))
        };
        if count > MAX_PARTS {
            return malformed("split.count", format!("{count} parts; at most {MAX_PARTS} make sense"));
        }
        let Some(number) = metadata.u64("split.no")? else {
            return malformed("split.no", format!("it is missing in a file that is one of {count} parts"));
        };
        if number >= count {
            return malformed("split.no", format!("{number} is beyond the {count} parts (counted from 0)"));
        }
        Ok(Some(Self { number, count }))
    }

    /// How the name of this part ends.
    fn suffix(self) -> String {
        format!("-{:0DIGITS$}-of-{:0DIGITS$}.gguf", self.number + 1, self.count)
    }
}

/// The name without the numbers of a part, `name-00001-of-00003.gguf` giving `name`, and the number, from 1. `None` for
/// names of another form.
pub fn gguf_part_of(file_name: &str) -> Option<(&str, u64)> {
    let stem = file_name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(count) && !name.is_empty()).then_some(())?;
    Some((name, number.parse().ok()?))
}

/// Refuses a file that is a part of a model.
pub(super) fn refuse_part(file: &GgufFile, origin: &str) -> Result<()> {
    let Some(part) = Part::read(&file.metadata)? else { return Ok(()) };
    Err(FormatError::Unsupported {
        origin: origin.to_owned(),
        what: format!(
            "a part of a split GGUF on its own (this is part {} of {})",
            part.number + 1,
            part.count
        ),
        remedy: "all parts must lie in one folder under names that end in -00001-of-0000N.gguf",
    })
}

/// Opens a file beside the one that is read, by name: its bytes and what it is called in messages. `None` if there is
/// no such file.
pub type OpenBeside<'a> = &'a mut dyn FnMut(&str) -> Result<Option<(ByteView, String)>>;

/// Reads a GGUF file, or all parts of the model of which it is one; any of them may be given. `name` is its name without
/// folders, `origin` what it is called in messages. Tensors are in the order of the parts, metadata those of the first.
///
/// # Errors
/// As [`read_gguf`](super::read_gguf); [`FormatError::MissingPart`] if a part is not there;
/// [`FormatError::Malformed`] if parts do not belong together.
pub fn read_gguf_parts(view: ByteView, name: &str, origin: &str, open: OpenBeside<'_>) -> Result<GgufFile> {
    let given = read_one(view, origin)?;
    let Some(part) = Part::read(&given.metadata)? else { return Ok(given) };
    let Some(stem) = name.strip_suffix(part.suffix().as_str()) else {
        let problem = format!(
            "part {} of {} must have a name that ends in {:?}, but is called {}; rename the parts as they were",
            part.number + 1,
            part.count,
            part.suffix(),
            quoted(name)
        );
        return Err(FormatError::malformed(origin, "the file name", problem));
    };
    let mut given = Some(given);
    let mut whole: Option<GgufFile> = None;
    for number in 0..part.count {
        let wanted = Part { number, ..part };
        let next = if number == part.number
            && let Some(given) = given.take()
        {
            given
        } else {
            open_part(stem, wanted, origin, open)?
        };
        match &mut whole {
            None => whole = Some(next),
            Some(whole) => whole.append(next)?,
        }
    }
    // There are at least two parts.
    let Some(whole) = whole else { return Err(FormatError::Empty { origin: origin.to_owned() }) };
    check_count(&whole)?;
    Ok(whole)
}

fn open_part(stem: &str, wanted: Part, origin: &str, open: OpenBeside<'_>) -> Result<GgufFile> {
    let name = format!("{stem}{}", wanted.suffix());
    let Some((view, part_origin)) = open(&name)? else {
        let (origin, part, count) = (origin.to_owned(), wanted.number + 1, wanted.count);
        return Err(FormatError::MissingPart { origin, file: quoted(&name), part, count });
    };
    let file = read_one(view, &part_origin)?;
    let found = Part::read(&file.metadata)?;
    if found != Some(wanted) {
        let is = found.map_or("a whole file".to_owned(), |p| format!("part {} of {}", p.number + 1, p.count));
        let problem = format!(
            "by its name it is part {} of {}, but it says it is {is}",
            wanted.number + 1,
            wanted.count
        );
        return Err(FormatError::malformed(&part_origin, "metadata \"split.no\"", problem));
    }
    Ok(file)
}

/// Checks that the parts have as many tensors together as the first of them says.
fn check_count(whole: &GgufFile) -> Result<()> {
    let key = "split.tensors.count";
    let (found, told) = (whole.tensors.len() as u64, whole.metadata.u64(key)?);
    match told {
        Some(told) if told != found => {
            let problem = format!("it tells of {told} tensors, but all parts together have {found}");
            Err(FormatError::malformed(whole.metadata.origin(), format!("metadata {key:?}"), problem))
        }
        _ => Ok(()),
    }
}
