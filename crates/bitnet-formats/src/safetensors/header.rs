//! The JSON header, parsed straight into its entries: no tree of values, no room for what is not there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::METADATA_KEY;
use crate::error::quoted;

/// More tensors than any model has; bounds the memory that a hostile header can take.
pub(super) const MAX_TENSORS: usize = 1 << 20;
const MAX_METADATA: usize = 1 << 16;
const MAX_DIMENSIONS: usize = 16;

/// The header of a file.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Its length in the file; set by who found it.
    pub(super) bytes: u64,
    pub(super) tensors: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// One tensor of the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// First byte and one past the last, from the beginning of the data.
    pub(super) data_offsets: [u64; 2],
}

#[derive(serde::Deserialize)]
struct Fields {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

struct Shape(Vec<u64>);

/// Strings by unique string keys, at most `LIMIT` of them.
#[derive(Debug)]
pub(super) struct StringMap<const LIMIT: usize>(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                let mut has_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA_KEY {
                        if std::mem::replace(&mut has_metadata, true) {
                            return Err(A::Error::custom("__metadata__ occurs twice"));
                        }
                        let StringMap::<MAX_METADATA>(metadata) =
                            map.next_value().map_err(|e| inside("__metadata__", &e))?;
                        header.metadata = metadata;
                        continue;
                    }
                    if header.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    let Fields { dtype, shape: Shape(shape), data_offsets } =
                        map.next_value().map_err(|e| inside(&format!("tensor {}", quoted(&name)), &e))?;
                    header.tensors.push(Entry { name, dtype, shape, data_offsets });
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// The same error with its place in front.
fn inside<E: Error>(place: &str, error: &E) -> E {
    E::custom(format_args!("{place}: {error}"))
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape, an array of whole numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(A::Error::custom(format_args!("more than {MAX_DIMENSIONS} dimensions")));
                    }
                    shape.push(dim);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

impl<'de, const LIMIT: usize> Deserialize<'de> for StringMap<LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<const LIMIT: usize>;
        impl<'de, const LIMIT: usize> Visitor<'de> for MapVisitor<LIMIT> {
            type Value = StringMap<LIMIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if strings.len() == LIMIT {
                        return Err(A::Error::custom(format_args!("more than {LIMIT} entries")));
                    }
                    match strings.entry(key) {
                        Slot::Vacant(slot) => slot.insert(value),
                        Slot::Occupied(slot) => {
                            return Err(A::Error::custom(format_args!(
                                "{} occurs twice",
                                quoted(slot.key())
                            )));
                        }
                    };
                }
                Ok(StringMap(strings))
            }
        }
        deserializer.deserialize_map(MapVisitor::<LIMIT>)
    }
}
