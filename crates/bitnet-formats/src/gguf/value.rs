//! Metadata values with the types they have in the file.

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names of the types say all")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(GgufArray),
}

/// An array of values of one type. Arrays of arrays are refused, as ggml does.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names of the types say all")]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(Vec<String>),
}

/// Number of the array type in files.
pub(super) const ARRAY_ID: u32 = 9;

impl GgufValue {
    /// Name of the type, such as `u32` or `array of string`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            GgufValue::U8(_) => "u8",
            GgufValue::I8(_) => "i8",
            GgufValue::U16(_) => "u16",
            GgufValue::I16(_) => "i16",
            GgufValue::U32(_) => "u32",
            GgufValue::I32(_) => "i32",
            GgufValue::U64(_) => "u64",
            GgufValue::I64(_) => "i64",
            GgufValue::F32(_) => "f32",
            GgufValue::F64(_) => "f64",
            GgufValue::Bool(_) => "bool",
            GgufValue::String(_) => "string",
            GgufValue::Array(array) => array.type_name(),
        }
    }

    /// Number of the type in files.
    pub(super) const fn type_id(&self) -> u32 {
        match self {
            GgufValue::U8(_) => 0,
            GgufValue::I8(_) => 1,
            GgufValue::U16(_) => 2,
            GgufValue::I16(_) => 3,
            GgufValue::U32(_) => 4,
            GgufValue::I32(_) => 5,
            GgufValue::F32(_) => 6,
            GgufValue::Bool(_) => 7,
            GgufValue::String(_) => 8,
            GgufValue::Array(_) => ARRAY_ID,
            GgufValue::U64(_) => 10,
            GgufValue::I64(_) => 11,
            GgufValue::F64(_) => 12,
        }
    }

    /// The value of any integer type.
    pub fn as_i128(&self) -> Option<i128> {
        match *self {
            GgufValue::U8(v) => Some(v.into()),
            GgufValue::I8(v) => Some(v.into()),
            GgufValue::U16(v) => Some(v.into()),
            GgufValue::I16(v) => Some(v.into()),
            GgufValue::U32(v) => Some(v.into()),
            GgufValue::I32(v) => Some(v.into()),
            GgufValue::U64(v) => Some(v.into()),
            GgufValue::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// Appends the bytes of the value, without its type number.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            GgufValue::U8(v) => out.push(*v),
            GgufValue::I8(v) => out.extend(v.to_le_bytes()),
            GgufValue::U16(v) => out.extend(v.to_le_bytes()),
            GgufValue::I16(v) => out.extend(v.to_le_bytes()),
            GgufValue::U32(v) => out.extend(v.to_le_bytes()),
            GgufValue::I32(v) => out.extend(v.to_le_bytes()),
            GgufValue::U64(v) => out.extend(v.to_le_bytes()),
            GgufValue::I64(v) => out.extend(v.to_le_bytes()),
            GgufValue::F32(v) => out.extend(v.to_le_bytes()),
            GgufValue::F64(v) => out.extend(v.to_le_bytes()),
            GgufValue::Bool(v) => out.push(u8::from(*v)),
            GgufValue::String(v) => encode_string(v, out),
            GgufValue::Array(v) => v.encode(out),
        }
    }
}

impl GgufArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            GgufArray::U8(v) => v.len(),
            GgufArray::I8(v) => v.len(),
            GgufArray::U16(v) => v.len(),
            GgufArray::I16(v) => v.len(),
            GgufArray::U32(v) => v.len(),
            GgufArray::I32(v) => v.len(),
            GgufArray::U64(v) => v.len(),
            GgufArray::I64(v) => v.len(),
            GgufArray::F32(v) => v.len(),
            GgufArray::F64(v) => v.len(),
            GgufArray::Bool(v) => v.len(),
            GgufArray::Strings(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the type, such as `array of f32`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            GgufArray::U8(_) => "array of u8",
            GgufArray::I8(_) => "array of i8",
            GgufArray::U16(_) => "array of u16",
            GgufArray::I16(_) => "array of i16",
            GgufArray::U32(_) => "array of u32",
            GgufArray::I32(_) => "array of i32",
            GgufArray::U64(_) => "array of u64",
            GgufArray::I64(_) => "array of i64",
            GgufArray::F32(_) => "array of f32",
            GgufArray::F64(_) => "array of f64",
            GgufArray::Bool(_) => "array of bool",
            GgufArray::Strings(_) => "array of string",
        }
    }

    const fn element_id(&self) -> u32 {
        match self {
            GgufArray::U8(_) => 0,
            GgufArray::I8(_) => 1,
            GgufArray::U16(_) => 2,
            GgufArray::I16(_) => 3,
            GgufArray::U32(_) => 4,
            GgufArray::I32(_) => 5,
            GgufArray::F32(_) => 6,
            GgufArray::Bool(_) => 7,
            GgufArray::Strings(_) => 8,
            GgufArray::U64(_) => 10,
            GgufArray::I64(_) => 11,
            GgufArray::F64(_) => 12,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.element_id().to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            GgufArray::U8(v) => out.extend(v),
            GgufArray::I8(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::U16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::I16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::U32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::I32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::U64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::I64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::F32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::F64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            GgufArray::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
            GgufArray::Strings(v) => v.iter().for_each(|v| encode_string(v, out)),
        }
    }
}

/// Length and bytes.
pub(super) fn encode_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
