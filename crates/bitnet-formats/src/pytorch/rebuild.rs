//! What the few calls in a pickle of weights mean.

use super::globals::{Global, Rebuild};
use super::heap::{Heap, Node, Value, View};
use crate::{FormatError, Result};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 32;

/// Why a call cannot be understood.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its arguments are wrong: what about them.
    Problem(String),
    /// Something else stood in the way.
    Error(FormatError),
}

impl From<FormatError> for Refused {
    fn from(error: FormatError) -> Self {
        Self::Error(error)
    }
}

impl From<String> for Refused {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

fn problem<T>(text: &str) -> Result<T, Refused> {
    Err(Refused::Problem(text.to_owned()))
}

/// What `global(*arguments)` makes.
///
/// # Errors
/// If the arguments are not those that torch writes.
pub(super) fn call<'a>(
    heap: &mut Heap<'a, '_>,
    global: Global,
    arguments: Value<'a>,
) -> Result<Value<'a>, Refused> {
    let Some(list) = heap.elements(arguments) else { return problem("the arguments of a call are no tuple") };
    let first = list.first().copied();
    match global {
        Global::Inert => Ok(Value::Other),
        Global::Dict => dict(heap, first),
        Global::Parameter => match first {
            Some(tensor) if heap.view(tensor).is_some() => Ok(tensor),
            _ => problem("a parameter without a tensor"),
        },
        Global::Rebuild(kind) => {
            // At most eight arguments matter.
            let mut few = [Value::None; 8];
            let count = list.len().min(few.len());
            few[..count].copy_from_slice(&list[..count]);
            tensor(heap, kind, &few[..count])
        }
        Global::FromType => match list.get(..3) {
            Some(&[Value::Global(inner @ (Global::Rebuild(_) | Global::Parameter)), _, arguments]) => {
                call(heap, inner, arguments)
            }
            _ => problem("a tensor of a class of its own"),
        },
        Global::Storage(_) | Global::Element(_) => problem("a storage or an element type is called"),
    }
}

/// `OrderedDict()`, of pairs or of another dictionary. A factory of default values is no entry.
fn dict<'a>(heap: &mut Heap<'a, '_>, first: Option<Value<'a>>) -> Result<Value<'a>, Refused> {
    let mut flat = Vec::new();
    let value = first.unwrap_or(Value::None);
    if let Some(count) = heap.entries(value).map(<[_]>::len).or_else(|| heap.elements(value).map(<[_]>::len))
    {
        heap.budget.objects(count * 2 * size_of::<Value<'a>>())?;
        flat.reserve_exact(2 * count);
    }
    if let Some(entries) = heap.entries(value) {
        flat.extend(entries.iter().flat_map(|&(key, value)| [key, value]));
    } else if let Some(pairs) = heap.elements(value) {
        for &pair in pairs {
            let Some(&[key, value]) = heap.elements(pair) else {
                return problem("a dictionary is made of something else than pairs");
            };
            flat.extend([key, value]);
        }
    }
    let dict = heap.empty_dict()?;
    heap.set_items(dict, &flat)?;
    Ok(dict)
}

fn tensor<'a>(heap: &mut Heap<'a, '_>, kind: Rebuild, arguments: &[Value<'a>]) -> Result<Value<'a>, Refused> {
    let &[storage, Value::Int(offset), sizes, strides, ..] = arguments else {
        return problem("a tensor is made of other things than storage, offset, sizes and strides");
    };
    let Some(&Node::Storage { index, base }) = heap.node(storage) else {
        return problem("a tensor is made of something that is no storage");
    };
    let element = match (kind, arguments.get(6)) {
        (Rebuild::Typed, _) => None,
        (Rebuild::Untyped, Some(&Value::Global(Global::Element(element)))) => Some(element),
        (Rebuild::Untyped, _) => return problem("a tensor has no element type"),
    };
    let offset = u64::try_from(offset).ok().and_then(|offset| offset.checked_add(base));
    let (Some(offset), Some(shape), Some(stride)) = (offset, numbers(heap, sizes), numbers(heap, strides))
    else {
        return problem("offset, sizes or strides of a tensor are negative or no numbers, or too many");
    };
    if shape.len() != stride.len() {
        return problem("a tensor has not as many strides as sizes");
    }
    Ok(heap.tensor(View { storage: index, element, offset, shape, stride })?)
}

/// A tuple of numbers of at least 0.
fn numbers(heap: &Heap<'_, '_>, value: Value<'_>) -> Option<Vec<u64>> {
    let list = heap.elements(value).filter(|list| list.len() <= MAX_DIMENSIONS)?;
    let number = |value: &Value<'_>| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    list.iter().map(number).collect()
}

/// The storage that a persistent id stands for: `('storage', class, key, device, count)`, in the legacy form with a
/// part of it as sixth: `(key, first element, count)` or `None`.
///
/// # Errors
/// If it is something else.
pub(super) fn storage<'a>(heap: &mut Heap<'a, '_>, id: Value<'a>) -> Result<Value<'a>, Refused> {
    let Some(list) = heap.elements(id) else { return problem("a persistent id is no tuple") };
    let (&[
        Value::Text("storage"),
        Value::Global(Global::Storage(class)),
        Value::Text(key),
        _,
        Value::Int(count),
    ]
    | &[
        Value::Text("storage"),
        Value::Global(Global::Storage(class)),
        Value::Text(key),
        _,
        Value::Int(count),
        _,
    ]) = list
    else {
        return problem("a persistent id is something else than a storage");
    };
    let part = list.get(5).copied().unwrap_or(Value::None);
    let base = match (part, heap.elements(part)) {
        (Value::None, _) => Some(0),
        (_, Some(&[_, Value::Int(base), Value::Int(_)])) => u64::try_from(base).ok(),
        _ => None,
    };
    match (u64::try_from(count), base) {
        (Ok(count), Some(base)) => Ok(heap.storage(key, class, count, base)?),
        _ => problem("the size or place of a storage is negative or no number"),
    }
}
