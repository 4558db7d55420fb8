//! The names that a pickle may mention. Everything else is refused, by name; and nothing of this is ever called: a
//! name only tells what the arguments after it mean.

use crate::tensor::StoredType;

/// What a mentioned name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A dictionary class.
    Dict,
    /// A function that makes a tensor of a storage, offset, sizes and strides.
    Rebuild(Rebuild),
    /// `_rebuild_parameter` and `_rebuild_parameter_with_state`: the first argument is the tensor.
    Parameter,
    /// `_rebuild_from_type_v2`: function, class, arguments, attributes.
    FromType,
    /// A storage class.
    Storage(StorageClass),
    /// An element type such as `torch.bfloat16`.
    Element(Element),
    /// A class of harmless things that weights do not consist of: numbers of numpy, sets, arguments of a program.
    Inert,
}

/// Which of the functions that make a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`: the element type is that of the storage.
    Typed,
    /// `_rebuild_tensor_v3`: the element type is the seventh argument.
    Untyped,
}

/// An element type in one byte, so that values stay small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element(u8);

/// The types that elements can have.
const TYPES: [StoredType; 15] = [
    StoredType::BF16,
    StoredType::F16,
    StoredType::F32,
    StoredType::F64,
    StoredType::U8,
    StoredType::I8,
    StoredType::I16,
    StoredType::I32,
    StoredType::I64,
    StoredType::Bool,
    StoredType::F8E4M3,
    StoredType::F8E5M2,
    StoredType::U16,
    StoredType::U32,
    StoredType::U64,
];

impl Element {
    fn of(stored: StoredType) -> Option<Self> {
        TYPES.iter().position(|&known| known == stored).map(|place| Self(place as u8))
    }

    /// The type.
    pub(super) fn stored(self) -> StoredType {
        TYPES[usize::from(self.0)]
    }
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StorageClass {
    /// Elements of a type.
    Of(Element),
    /// Bytes; each tensor tells its own type.
    Untyped,
}

impl StorageClass {
    /// Bytes of one of the elements that storages are measured in.
    pub(super) fn unit(self) -> u64 {
        match self {
            StorageClass::Of(element) => element.stored().element_size().unwrap_or(1),
            StorageClass::Untyped => 1,
        }
    }
}

/// A name of the list, or what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// Known.
    Up(Global),
    /// Known, but of a kind that is not read: complex numbers and quantised tensors.
    Unsupported,
    /// Not in the list.
    Forbidden,
}

/// Storage classes of `torch`, without the `Storage` at the end.
const STORAGES: [(&str, StoredType); 12] = [
    ("BFloat16", StoredType::BF16),
    ("Half", StoredType::F16),
    ("Float", StoredType::F32),
    ("Double", StoredType::F64),
    ("Byte", StoredType::U8),
    ("Char", StoredType::I8),
    ("Short", StoredType::I16),
    ("Int", StoredType::I32),
    ("Long", StoredType::I64),
    ("Bool", StoredType::Bool),
    ("Float8_e4m3fn", StoredType::F8E4M3),
    ("Float8_e5m2", StoredType::F8E5M2),
];

/// Storage classes and element types that exist and are not read.
const UNREAD: [&str; 12] = [
    "ComplexFloatStorage",
    "ComplexDoubleStorage",
    "QUInt8Storage",
    "QInt8Storage",
    "QInt32Storage",
    "QUInt4x2Storage",
    "QUInt2x4Storage",
    "complex64",
    "complex128",
    "quint8",
    "qint8",
    "qint32",
];

/// Element types of `torch`.
const ELEMENTS: [(&str, StoredType); 21] = [
    ("bfloat16", StoredType::BF16),
    ("float16", StoredType::F16),
    ("half", StoredType::F16),
    ("float32", StoredType::F32),
    ("float", StoredType::F32),
    ("float64", StoredType::F64),
    ("double", StoredType::F64),
    ("uint8", StoredType::U8),
    ("int8", StoredType::I8),
    ("int16", StoredType::I16),
    ("short", StoredType::I16),
    ("int32", StoredType::I32),
    ("int", StoredType::I32),
    ("int64", StoredType::I64),
    ("long", StoredType::I64),
    ("bool", StoredType::Bool),
    ("uint16", StoredType::U16),
    ("uint32", StoredType::U32),
    ("uint64", StoredType::U64),
    ("float8_e4m3fn", StoredType::F8E4M3),
    ("float8_e5m2", StoredType::F8E5M2),
];

/// Harmless names that training checkpoints mention.
const INERT: [(&str, &str); 30] = [
    ("torch", "device"),
    ("torch", "Size"),
    ("torch", "Tensor"),
    ("torch", "strided"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.serialization", "_get_layout"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "slice"),
    ("builtins", "range"),
    ("builtins", "list"),
    ("builtins", "int"),
    ("builtins", "float"),
    ("builtins", "str"),
    ("builtins", "bool"),
    ("__builtin__", "set"),
    ("__builtin__", "list"),
    ("__builtin__", "bytearray"),
    ("_codecs", "encode"),
    ("collections", "deque"),
    ("argparse", "Namespace"),
    ("datetime", "datetime"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
];

/// Looks a name up.
pub(super) fn look_up(module: &str, name: &str) -> Looked {
    let found = |list: &[(&str, StoredType)], name: &str| {
        list.iter().find(|(known, _)| *known == name).and_then(|&(_, stored)| Element::of(stored))
    };
    Looked::Up(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Rebuild(Rebuild::Typed),
        ("torch._utils", "_rebuild_tensor_v3") => Global::Rebuild(Rebuild::Untyped),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::FromType,
        ("torch" | "torch.storage", "UntypedStorage") => Global::Storage(StorageClass::Untyped),
        ("torch" | "torch.cuda", name) if UNREAD.contains(&name) => return Looked::Unsupported,
        ("torch" | "torch.cuda", name) if name.ends_with("Storage") => {
            match found(&STORAGES, name.trim_end_matches("Storage")) {
                Some(element) => Global::Storage(StorageClass::Of(element)),
                None => return Looked::Forbidden,
            }
        }
        _ if INERT.contains(&(module, name)) => Global::Inert,
        ("torch", name) => match found(&ELEMENTS, name) {
            Some(element) => Global::Element(element),
            None => return Looked::Forbidden,
        },
        _ => return Looked::Forbidden,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tensors_consist_of_is_known_and_nothing_that_acts() {
        assert_eq!(
            look_up("torch", "BFloat16Storage"),
            Looked::Up(Global::Storage(StorageClass::Of(Element::of(StoredType::BF16).unwrap())))
        );
        let int64 = Element::of(StoredType::I64).unwrap();
        assert_eq!(look_up("torch", "int64"), Looked::Up(Global::Element(int64)));
        assert_eq!(int64.stored(), StoredType::I64);
        for (name, stored) in STORAGES.iter().chain(&ELEMENTS) {
            assert!(Element::of(*stored).is_some(), "{name}");
        }
        assert_eq!(look_up("torch", "ComplexFloatStorage"), Looked::Unsupported);
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("subprocess", "Popen"),
            ("torch.storage", "_load_from_bytes"),
            ("torch", "load"),
            ("torch", "Storage"),
            ("torch.jit", "_unpickler"),
            ("numpy", "load"),
            ("collections", "namedtuple"),
            ("", ""),
        ] {
            assert_eq!(look_up(module, name), Looked::Forbidden, "{module}.{name}");
        }
    }
}
