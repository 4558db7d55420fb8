//! Tensors as they lie in files: [`StoredTensor`], its [`StoredType`], and [`TensorSet`], all tensors of a model.

use std::collections::HashMap;
use std::sync::Arc;

use bitnet_core::bytes::ByteView;
use bitnet_core::{BlockType, DType, DenseType};

use crate::error::quoted;
use crate::{FormatError, Result, ggml};

/// Element or block type of a stored tensor. All are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of plain numeric types say all")]
pub enum StoredType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// 8-bit float with 4 exponent bits.
    F8E4M3,
    /// 8-bit float with 5 exponent bits.
    F8E5M2,
    /// GGUF type 36: two bits a trit, then 32 bytes of which the first four are the f32 scale.
    I2S,
    /// A type of ggml that can be listed but not computed with.
    Ggml {
        /// Its number in GGUF files.
        id: u32,
        /// Its name, or "unknown".
        name: &'static str,
    },
}

/// Types of ggml by name, so that plans of GGUF files need not know their numbers.
#[allow(missing_docs, reason = "the names say all")]
impl StoredType {
    pub const Q4_0: Self = Self::Ggml { id: 2, name: "q4_0" };
    pub const Q4_1: Self = Self::Ggml { id: 3, name: "q4_1" };
    pub const Q5_0: Self = Self::Ggml { id: 6, name: "q5_0" };
    pub const Q5_1: Self = Self::Ggml { id: 7, name: "q5_1" };
    pub const Q8_0: Self = Self::Ggml { id: 8, name: "q8_0" };
    pub const Q2_K: Self = Self::Ggml { id: 10, name: "q2_K" };
    pub const Q3_K: Self = Self::Ggml { id: 11, name: "q3_K" };
    pub const Q4_K: Self = Self::Ggml { id: 12, name: "q4_K" };
    pub const Q5_K: Self = Self::Ggml { id: 13, name: "q5_K" };
    pub const Q6_K: Self = Self::Ggml { id: 14, name: "q6_K" };
    pub const TQ1_0: Self = Self::Ggml { id: 34, name: "tq1_0" };
    pub const TQ2_0: Self = Self::Ggml { id: 35, name: "tq2_0" };
    pub const IQ1_BN: Self = Self::Ggml { id: 134, name: "iq1_bn" };
    pub const IQ2_BN: Self = Self::Ggml { id: 135, name: "iq2_bn" };
    pub const IQ2_BN_R4: Self = Self::Ggml { id: 335, name: "iq2_bn_r4" };
}

impl StoredType {
    /// The usual lower-case name; block types of ggml keep its spelling, such as `q6_K`.
    pub const fn name(self) -> &'static str {
        match self {
            StoredType::F64 => "f64",
            StoredType::F32 => "f32",
            StoredType::F16 => "f16",
            StoredType::BF16 => "bf16",
            StoredType::I64 => "i64",
            StoredType::I32 => "i32",
            StoredType::I16 => "i16",
            StoredType::I8 => "i8",
            StoredType::U64 => "u64",
            StoredType::U32 => "u32",
            StoredType::U16 => "u16",
            StoredType::U8 => "u8",
            StoredType::Bool => "bool",
            StoredType::F8E4M3 => "f8_e4m3",
            StoredType::F8E5M2 => "f8_e5m2",
            StoredType::I2S => "i2_s",
            StoredType::Ggml { name, .. } => name,
        }
    }

    /// The dense type that executors and quantisers read, for `F32`, `F16` and `BF16`.
    pub const fn dense(self) -> Option<DType> {
        match self {
            StoredType::F32 => Some(DType::F32),
            StoredType::F16 => Some(DType::F16),
            StoredType::BF16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// How dense values are stored: one by one, or in blocks that can be decoded.
    pub fn dense_type(self) -> Option<DenseType> {
        let StoredType::Ggml { name, .. } = self else { return self.dense().map(DenseType::Plain) };
        BlockType::ALL.into_iter().find(|blocks| blocks.name() == name).map(DenseType::Blocks)
    }

    /// The type of dense values stored so.
    pub const fn of(dense: DenseType) -> Self {
        match dense {
            DenseType::Plain(DType::F32) => StoredType::F32,
            DenseType::Plain(DType::F16) => StoredType::F16,
            DenseType::Plain(DType::BF16) => StoredType::BF16,
            DenseType::Blocks(BlockType::Q4_0) => StoredType::Q4_0,
            DenseType::Blocks(BlockType::Q4_1) => StoredType::Q4_1,
            DenseType::Blocks(BlockType::Q5_0) => StoredType::Q5_0,
            DenseType::Blocks(BlockType::Q5_1) => StoredType::Q5_1,
            DenseType::Blocks(BlockType::Q8_0) => StoredType::Q8_0,
            DenseType::Blocks(BlockType::Q2K) => StoredType::Q2_K,
            DenseType::Blocks(BlockType::Q3K) => StoredType::Q3_K,
            DenseType::Blocks(BlockType::Q4K) => StoredType::Q4_K,
            DenseType::Blocks(BlockType::Q5K) => StoredType::Q5_K,
            DenseType::Blocks(BlockType::Q6K) => StoredType::Q6_K,
        }
    }

    /// Bytes of one element, for all but packed types.
    pub const fn element_size(self) -> Option<u64> {
        match self {
            StoredType::F64 | StoredType::I64 | StoredType::U64 => Some(8),
            StoredType::F32 | StoredType::I32 | StoredType::U32 => Some(4),
            StoredType::F16 | StoredType::BF16 | StoredType::I16 | StoredType::U16 => Some(2),
            StoredType::I8 | StoredType::U8 | StoredType::Bool | StoredType::F8E4M3 | StoredType::F8E5M2 => {
                Some(1)
            }
            StoredType::I2S | StoredType::Ggml { .. } => None,
        }
    }

    /// Bytes that a tensor of this shape (outermost dimension first) takes; for `I2S` a quarter of the elements and
    /// the 32-byte tail. `None` if the size of the type is unknown, the shape is not whole blocks, or the number does
    /// not fit.
    pub fn byte_len(self, shape: &[u64]) -> Option<u64> {
        match self {
            StoredType::Ggml { id, name } => ggml::byte_len(id, name, shape),
            StoredType::I2S => {
                let count = element_count(shape)?;
                if !count.is_multiple_of(4) {
                    return None;
                }
                (count / 4).checked_add(I2S_TAIL)
            }
            _ => element_count(shape)?.checked_mul(self.element_size()?),
        }
    }
}

impl StoredType {
    /// The byte of a tensor's data at which its f32 scale stands, for the types that have one behind their trits: I2_S,
    /// TL1 and TL2.
    pub fn scale_at(self, shape: &[u64]) -> Option<u64> {
        match self {
            StoredType::I2S | StoredType::Ggml { name: "tl1", .. } => {
                element_count(shape).map(|count| count / 4)
            }
            StoredType::Ggml { name: "tl2", .. } => ggml::tl2_len(shape),
            _ => None,
        }
    }
}

/// Bytes after the trits of an I2_S tensor.
const I2S_TAIL: u64 = 32;

impl std::fmt::Display for StoredType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoredType::Ggml { id, name: "unknown" } => write!(f, "unknown ggml type {id}"),
            _ => f.write_str(self.name()),
        }
    }
}

fn element_count(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))
}

/// A tensor of a model file. Cloning copies none of its data.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Name in the file.
    pub name: String,
    /// Dimensions, outermost first (those of GGUF reversed). Empty for a single number.
    pub shape: Vec<u64>,
    /// Type of the elements or blocks.
    pub stored: StoredType,
    /// Exactly its bytes, for I2_S with the 32-byte tail. For types of ggml whose size is not known
    /// ([`StoredType::byte_len`] says `None`), all bytes up to the next tensor or the end of the file.
    pub data: ByteView,
    /// Name of the file, for messages.
    pub origin: Arc<str>,
}

impl StoredTensor {
    /// Number of elements; `None` if it does not fit 64 bits, which readers do not let through.
    pub fn elements(&self) -> Option<u64> {
        element_count(&self.shape)
    }
}

/// What a writer is told about a tensor before any data: enough to lay out the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// Name in the file.
    pub name: String,
    /// Type of the elements or blocks.
    pub stored: StoredType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

impl TensorPlan {
    /// A plan for one tensor.
    pub fn new(name: impl Into<String>, stored: StoredType, shape: impl Into<Vec<u64>>) -> Self {
        Self { name: name.into(), stored, shape: shape.into() }
    }
}

/// Tensors by name, in the order they were inserted.
#[derive(Debug, Clone, Default)]
pub struct TensorSet {
    tensors: Vec<StoredTensor>,
    places: HashMap<String, usize>,
}

impl TensorSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.places.get(name).map(|&place| &self.tensors[place])
    }

    /// All tensors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, StoredTensor> {
        self.tensors.iter()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// [`FormatError::DuplicateTensor`] if there is one of this name already; the set stays as it was.
    pub fn insert(&mut self, tensor: StoredTensor) -> Result<()> {
        if let Some(first) = self.get(&tensor.name) {
            return Err(FormatError::DuplicateTensor {
                name: quoted(&tensor.name),
                origin: first.origin.to_string(),
                other: tensor.origin.to_string(),
            });
        }
        self.places.insert(tensor.name.clone(), self.tensors.len());
        self.tensors.push(tensor);
        Ok(())
    }

    /// Adds all tensors of another set after those of this one.
    ///
    /// # Errors
    /// [`FormatError::DuplicateTensor`] at the first name that is in both.
    pub fn merge(&mut self, other: TensorSet) -> Result<()> {
        other.tensors.into_iter().try_for_each(|tensor| self.insert(tensor))
    }
}

impl<'a> IntoIterator for &'a TensorSet {
    type Item = &'a StoredTensor;
    type IntoIter = std::slice::Iter<'a, StoredTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, origin: &str) -> StoredTensor {
        let data = ByteView::from_vec(Vec::new());
        StoredTensor {
            name: name.into(),
            shape: vec![0],
            stored: StoredType::F32,
            data,
            origin: origin.into(),
        }
    }

    #[test]
    fn sizes_follow_type_and_shape() {
        for (stored, shape, bytes) in [
            (StoredType::F64, &[2, 3][..], Some(48)),
            (StoredType::BF16, &[5], Some(10)),
            (StoredType::Bool, &[7], Some(7)),
            (StoredType::F32, &[], Some(4)),
            (StoredType::F32, &[3, 0, 9], Some(0)),
            (StoredType::I2S, &[2, 128], Some(64 + 32)),
            (StoredType::I2S, &[0, 128], Some(32)),
            (StoredType::I2S, &[3], None),
            (StoredType::I2S, &[1 << 62, 8], None),
            (StoredType::F32, &[1 << 62], None),
            (StoredType::U8, &[1 << 32, 1 << 32], None),
            (ggml::type_of(2), &[3, 64], Some(3 * 2 * 18)),
            (ggml::type_of(14), &[2, 512], Some(2 * 2 * 210)),
            (ggml::type_of(14), &[2, 500], None),
            (ggml::type_of(135), &[3, 128], Some(3 * (4 + 32))),
            (ggml::type_of(134), &[3, 128], Some(3 * (2 + 26))),
            (ggml::type_of(38), &[2, 128], None),
            (ggml::type_of(9999), &[2, 128], None),
            (ggml::type_of(2), &[u64::MAX, 64], None),
            (ggml::type_of(2), &[], None),
        ] {
            assert_eq!(stored.byte_len(shape), bytes, "{stored} {shape:?}");
        }
    }

    #[test]
    fn types_of_ggml_have_names() {
        let name = |id| ggml::type_of(id).to_string();
        let names = [0, 30, 35, 36, 38, 135, 77].map(name);
        assert_eq!(names, ["f32", "bf16", "tq2_0", "i2_s", "tl1", "iq2_bn", "unknown ggml type 77"]);
        for id in (0..400).filter(|&id| !ggml::type_of(id).name().contains("unknown")) {
            assert_eq!(ggml::id_of(ggml::type_of(id)), Some(id));
        }
        assert_eq!(ggml::id_of(StoredType::U8), None);
    }

    #[test]
    fn types_with_names_of_their_own() {
        use StoredType as T;
        let named =
            [T::Q4_0, T::Q4_1, T::Q5_0, T::Q5_1, T::Q8_0, T::Q2_K, T::Q3_K, T::Q4_K, T::Q5_K, T::Q6_K];
        for (stored, blocks) in named.into_iter().zip(BlockType::ALL) {
            assert_eq!((stored.dense_type(), T::of(blocks.into())), (Some(blocks.into()), stored));
            assert_eq!(
                stored.byte_len(&[3, 256]),
                blocks.bytes().checked_mul(3 * 256 / blocks.len()).map(|n| n as u64)
            );
        }
        for stored in named.into_iter().chain([T::TQ1_0, T::TQ2_0, T::IQ1_BN, T::IQ2_BN, T::IQ2_BN_R4]) {
            assert_eq!(ggml::type_of(ggml::id_of(stored).unwrap()), stored);
        }
        assert_eq!((T::TQ1_0.dense_type(), T::F16.dense_type()), (None, Some(DType::F16.into())));
    }

    #[test]
    fn colliding_numbers_are_told_apart_by_room() {
        // [3200, 8640] is a shape of the 3B model: 3200 * (8640 - 256) / 3 * 5 / 8 + 3200 * 64, padded, and the scale.
        let shape = [3200u64, 8640];
        let tl2 = 3200 * 8384 / 3 * 5 / 8 + 3200 * 64;
        let tl2 = u64::next_multiple_of(tl2, 32) + 32;
        let settled = |id, room| ggml::settle(ggml::type_of(id), &shape, room, 32).name();
        assert_eq!(settled(39, tl2), "tl2");
        assert_eq!(settled(42, tl2), "tl2");
        assert_eq!(settled(39, 3200 * 8640 / 32 * 17), "mxfp4");
        assert_eq!(settled(42, 3200 * 8640 / 64 * 18), "q2_0");
        assert_eq!(settled(42, 1000), "unknown");
        assert_eq!(settled(39, u64::MAX), "unknown");
        assert_eq!(settled(14, 1000), "q6_K");
        // Without the scale behind it, which may be a tensor of its own.
        assert_eq!(settled(39, tl2 - 32), "tl2");
        assert_eq!(settled(36, 3200 * 8640 / 4 + 32), "i2_s");
        assert_eq!(settled(36, 3200 * 8640 / 32 * 18), "iq4_nl_4_4");
        assert_eq!(settled(36, 1000), "i2_s");
    }

    #[test]
    fn sets_keep_order_and_refuse_duplicates() {
        let mut set = TensorSet::new();
        assert!(set.is_empty());
        for name in ["b", "a", "c"] {
            set.insert(tensor(name, "one")).unwrap();
        }
        assert_eq!(
            set.insert(tensor("a", "two")).unwrap_err().to_string().split(';').next().unwrap(),
            "tensor \"a\" occurs twice, in one and in two"
        );
        let names: Vec<&str> = set.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!((names, set.len()), (vec!["b", "a", "c"], 3));
        assert!(set.get("c").is_some() && set.get("d").is_none());

        let mut more = TensorSet::new();
        more.insert(tensor("d", "two")).unwrap();
        set.merge(more.clone()).unwrap();
        assert_eq!(set.get("d").unwrap().origin.as_ref(), "two");
        assert!(set.merge(more).is_err());
        assert_eq!((&set).into_iter().count(), 4);
    }
}
