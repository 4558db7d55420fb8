//! `TensorProto`: type, shape, and where the data is (raw bytes, lists of numbers, or another file).

use std::sync::Arc;

use bitnet_core::bytes::ByteView;

use super::budget::Budget;
use super::external::{External, Place};
use super::wire::{Field, FloatBytes, Message};
use crate::error::quoted;
use crate::tensor::{StoredTensor, StoredType};
use crate::{FormatError, Result};

/// Numbers of `TensorProto.DataType` and what they are here.
pub(super) const TYPES: &[(i64, StoredType)] = &[
    (1, StoredType::F32),
    (2, StoredType::U8),
    (3, StoredType::I8),
    (4, StoredType::U16),
    (5, StoredType::I16),
    (6, StoredType::I32),
    (7, StoredType::I64),
    (9, StoredType::Bool),
    (10, StoredType::F16),
    (11, StoredType::F64),
    (12, StoredType::U32),
    (13, StoredType::U64),
    (16, StoredType::BF16),
    (17, StoredType::F8E4M3),
    (19, StoredType::F8E5M2),
    (21, StoredType::U4),
    (22, StoredType::I4),
    (25, StoredType::U2),
    (26, StoredType::I2),
];

/// Names of types that are not read, for messages.
const OTHER_TYPES: &[(i64, &str)] =
    &[(8, "string"), (14, "complex64"), (15, "complex128"), (23, "float4_e2m1")];

const MAX_DIMENSIONS: usize = 16;

/// The file that tensors are read from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) view: &'a ByteView,
    pub(super) origin: Arc<str>,
}

/// The fields of a `TensorProto` that matter.
#[derive(Default)]
struct Parts<'a> {
    dims: Vec<u64>,
    data_type: i64,
    name: &'a str,
    raw: Option<Message<'a>>,
    /// Fields 4, 5, 7, 10 and 11, of which the type chooses one.
    has_numbers: bool,
    external: bool,
    place: Place<'a>,
}

/// Reads a tensor.
pub(super) fn read(
    message: Message<'_>,
    source: &Source<'_>,
    budget: &mut Budget<'_>,
    external: &mut External<'_>,
) -> Result<StoredTensor> {
    let parts = parts(message)?;
    let name = quoted(parts.name);
    let stored = stored_type(parts.data_type, &name, source)?;
    let malformed = |problem| FormatError::malformed(&source.origin, format!("tensor {name}"), problem);
    let len = stored
        .byte_len(&parts.dims)
        .ok_or_else(|| malformed(format!("shape {:?} is too large", parts.dims)))?;
    let data = if parts.external {
        external.data(&parts.place, &name, len, &source.origin)?
    } else if let Some(raw) = parts.raw {
        if raw.bytes().len() as u64 != len {
            let found = raw.bytes().len();
            return Err(malformed(format!(
                "{stored} {:?} takes {len} bytes, but {found} are there",
                parts.dims
            )));
        }
        source.view.slice(raw.start(), raw.start() + len, &source.origin)?
    } else if parts.has_numbers || len == 0 {
        numbers(message, stored, len, source, budget).map_err(|error| match error {
            Problem::Here(problem) => malformed(problem),
            Problem::Elsewhere(error) => error,
        })?
    } else {
        return Err(malformed("it has no data".to_owned()));
    };
    budget.charge(parts.name.len() + 8 * parts.dims.len())?;
    let (name, origin) = (parts.name.to_owned(), Arc::clone(&source.origin));
    Ok(StoredTensor { name, shape: parts.dims, stored, data, origin })
}

fn parts(message: Message<'_>) -> Result<Parts<'_>> {
    let mut parts = Parts::default();
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => dimensions(&field, message, &mut parts.dims)?,
            2 => parts.data_type = field.int()?,
            3 => return Err(message.malformed("a tensor in segments, which no program writes")),
            4 | 5 | 7 | 10 | 11 => parts.has_numbers = true,
            8 => parts.name = field.text()?,
            9 => parts.raw = Some(field.message("raw data")?),
            13 => parts.place.add(field.message("external data")?)?,
            14 => parts.external = field.int()? == 1,
            _ => {}
        }
    }
    Ok(parts)
}

fn dimensions(field: &Field<'_>, message: Message<'_>, dims: &mut Vec<u64>) -> Result<()> {
    if field.int_count()? > MAX_DIMENSIONS as u64 || dims.len() > MAX_DIMENSIONS {
        return Err(message.malformed(format!("a tensor of more than {MAX_DIMENSIONS} dimensions")));
    }
    field.each_int(&mut |dim| dims.push(dim))
}

fn stored_type(number: i64, name: &str, source: &Source<'_>) -> Result<StoredType> {
    if let Some((_, stored)) = TYPES.iter().find(|(known, _)| *known == number) {
        return Ok(*stored);
    }
    let what = match OTHER_TYPES.iter().find(|(known, _)| *known == number) {
        Some((_, kind)) => format!("tensor {name} of type {kind}"),
        None => format!("tensor {name} of data type {number}"),
    };
    let remedy = "export the model with float or integer tensors";
    Err(FormatError::Unsupported { origin: source.origin.to_string(), what, remedy })
}

/// What is wrong with a list of numbers.
enum Problem {
    /// With this tensor.
    Here(String),
    /// With the file.
    Elsewhere(FormatError),
}

impl From<FormatError> for Problem {
    fn from(error: FormatError) -> Self {
        Problem::Elsewhere(error)
    }
}

/// Data that is given as repeated numbers. Floats lie in the file as they would in raw data and are not copied if they
/// are in one piece; whole numbers, and half floats by their bits, are varints that must be decoded.
fn numbers(
    message: Message<'_>,
    stored: StoredType,
    len: u64,
    source: &Source<'_>,
    budget: &mut Budget<'_>,
) -> Result<ByteView, Problem> {
    match stored {
        StoredType::F32 => floats(message, 4, 4, len, source, budget),
        StoredType::F64 => floats(message, 10, 8, len, source, budget),
        StoredType::I64 => varints(message, 7, 8, len, budget),
        StoredType::U64 => varints(message, 11, 8, len, budget),
        StoredType::U32 => varints(message, 11, 4, len, budget),
        StoredType::I32 => varints(message, 5, 4, len, budget),
        StoredType::F16 | StoredType::BF16 | StoredType::I16 | StoredType::U16 => {
            varints(message, 5, 2, len, budget)
        }
        // Of two and four bits, each number is a byte of them.
        _ => varints(message, 5, 1, len, budget),
    }
}

fn floats(
    message: Message<'_>,
    number: u32,
    size: usize,
    len: u64,
    source: &Source<'_>,
    budget: &mut Budget<'_>,
) -> Result<ByteView, Problem> {
    let mut found = 0;
    let mut only: Option<(FloatBytes<'_>, Option<u64>)> = None;
    let mut pieces = 0u64;
    for field in message.fields() {
        let field = field?;
        if field.number == number {
            let piece = field.float_bytes(size)?;
            found += piece.0.as_slice().len() as u64;
            only = Some(piece);
            pieces += 1;
        }
    }
    check_len(len / size as u64, found / size as u64)?;
    if let (1, Some((_, Some(at)))) = (pieces, only) {
        return Ok(source.view.slice(at, at + found, &source.origin).map_err(FormatError::from)?);
    }
    let mut bytes: Vec<u8> = budget.list(found as usize)?;
    for field in message.fields() {
        let field = field?;
        if field.number == number {
            bytes.extend_from_slice(field.float_bytes(size)?.0.as_slice());
        }
    }
    Ok(ByteView::from_vec(bytes))
}

fn varints(
    message: Message<'_>,
    number: u32,
    size: usize,
    len: u64,
    budget: &mut Budget<'_>,
) -> Result<ByteView, Problem> {
    let mut found = 0u64;
    for field in message.fields() {
        let field = field?;
        if field.number == number {
            found += field.int_count()?;
        }
    }
    check_len(len / size as u64, found)?;
    let mut bytes: Vec<u8> = budget.list(len as usize)?;
    for field in message.fields() {
        let field = field?;
        if field.number == number {
            field.each_int(&mut |int| bytes.extend_from_slice(&int.to_le_bytes()[..size]))?;
        }
    }
    if bytes.len() as u64 != len {
        return Err(Problem::Here("its list of numbers is cut short".to_owned()));
    }
    Ok(ByteView::from_vec(bytes))
}

fn check_len(expected: u64, found: u64) -> Result<(), Problem> {
    if expected == found {
        return Ok(());
    }
    Err(Problem::Here(format!("type and shape take {expected} numbers, but {found} are there")))
}

/// Numbers that a `Constant` node has in place of a tensor.
pub(super) enum Scalars<'a> {
    Floats(&'a [f32]),
    Ints(&'a [i64]),
}

impl Scalars<'_> {
    pub(super) fn byte_len(&self) -> usize {
        match self {
            Scalars::Floats(values) => 4 * values.len(),
            Scalars::Ints(values) => 8 * values.len(),
        }
    }

    /// A tensor without name of these numbers; of no dimension if `len` is none.
    pub(super) fn tensor(&self, len: Option<usize>, origin: &Arc<str>) -> StoredTensor {
        let mut bytes = Vec::with_capacity(self.byte_len());
        let stored = match self {
            Scalars::Floats(values) => {
                values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                StoredType::F32
            }
            Scalars::Ints(values) => {
                values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                StoredType::I64
            }
        };
        StoredTensor {
            name: String::new(),
            shape: len.map(|len| len as u64).into_iter().collect(),
            stored,
            data: ByteView::from_vec(bytes),
            origin: Arc::clone(origin),
        }
    }
}
