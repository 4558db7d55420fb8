//! The numbers of ggml's tensor types and how many bytes their rows take.
//!
//! Sources: the tables of ggml, of bitnet.cpp (36 to 39) and of `ik_llama.cpp` (above 100). Numbers 36, 39 and 42 mean
//! different types in different programs; only the room that the file leaves for a tensor tells which.

use crate::tensor::StoredType;

/// Bytes behind a TL1 or TL2 tensor, of which the first four are the scale.
const TL2_TAIL: u64 = 32;

/// A block format: `elements` consecutive weights of a row take `bytes`, after `row_head` bytes at each row's start.
struct Block {
    id: u32,
    name: &'static str,
    elements: u64,
    bytes: u64,
    row_head: u64,
}

const fn block(id: u32, name: &'static str, elements: u64, bytes: u64) -> Block {
    Block { id, name, elements, bytes, row_head: 0 }
}

const BLOCKS: &[Block] = &[
    block(2, "q4_0", 32, 18),
    block(3, "q4_1", 32, 20),
    block(6, "q5_0", 32, 22),
    block(7, "q5_1", 32, 24),
    block(8, "q8_0", 32, 34),
    block(9, "q8_1", 32, 36),
    block(10, "q2_K", 256, 84),
    block(11, "q3_K", 256, 110),
    block(12, "q4_K", 256, 144),
    block(13, "q5_K", 256, 176),
    block(14, "q6_K", 256, 210),
    block(15, "q8_K", 256, 292),
    block(16, "iq2_xxs", 256, 66),
    block(17, "iq2_xs", 256, 74),
    block(18, "iq3_xxs", 256, 98),
    block(19, "iq1_s", 256, 50),
    block(20, "iq4_nl", 32, 18),
    block(21, "iq3_s", 256, 110),
    block(22, "iq2_s", 256, 82),
    block(23, "iq4_xs", 256, 136),
    block(29, "iq1_m", 256, 56),
    block(31, "q4_0_4_4", 32, 18),
    block(32, "q4_0_4_8", 32, 18),
    block(33, "q4_0_8_8", 32, 18),
    block(34, "tq1_0", 256, 54),
    block(35, "tq2_0", 256, 66),
    block(I2S, IQ4_NL_4_4, 32, 18),
    block(39, "mxfp4", 32, 17),
    block(40, "nvfp4", 64, 36),
    block(41, "q1_0", 128, 18),
    block(42, "q2_0", 64, 18),
    block(133, "q6_0", 32, 26),
    Block { id: 134, name: "iq1_bn", elements: 64, bytes: 13, row_head: 2 },
    Block { id: 135, name: "iq2_bn", elements: 64, bytes: 16, row_head: 4 },
    Block { id: 335, name: "iq2_bn_r4", elements: 64, bytes: 16, row_head: 4 },
];

/// Types with a name but without a size that follows from the shape alone.
const NAMED: &[(u32, &str)] =
    &[(4, "q4_2"), (5, "q4_3"), (37, "i8_s"), (38, "tl1"), (TL2_OLD, TL2), (TL2_NEW, TL2)];

/// What number 36 was in ggml for some months of 2024, before bitnet.cpp's files were the only ones with it.
const IQ4_NL_4_4: &str = "iq4_nl_4_4";
const I2S: u32 = 36;

const TL2: &str = "tl2";
const TL2_OLD: u32 = 39;
const TL2_NEW: u32 = 42;

const PLAIN: &[(u32, StoredType)] = &[
    (0, StoredType::F32),
    (1, StoredType::F16),
    (24, StoredType::I8),
    (25, StoredType::I16),
    (26, StoredType::I32),
    (27, StoredType::I64),
    (28, StoredType::F64),
    (30, StoredType::BF16),
    (36, StoredType::I2S),
];

/// The type with this number, in the meaning of the main line of ggml where programs differ.
pub(crate) fn type_of(id: u32) -> StoredType {
    if let Some(&(_, plain)) = PLAIN.iter().find(|(known, _)| *known == id) {
        return plain;
    }
    let block = BLOCKS.iter().find(|block| block.id == id).map(|block| block.name);
    let named = || NAMED.iter().find(|(known, _)| *known == id).map(|&(_, name)| name);
    StoredType::Ggml { id, name: block.or_else(named).unwrap_or("unknown") }
}

/// The number of a type, if GGUF files can hold it.
pub(crate) fn id_of(stored: StoredType) -> Option<u32> {
    if let StoredType::Ggml { id, .. } = stored {
        return Some(id);
    }
    PLAIN.iter().find(|(_, plain)| *plain == stored).map(|&(id, _)| id)
}

/// Settles which type a number with two meanings is: `room` bytes are free for a tensor of this `shape`, of which
/// less than `alignment` are padding.
pub(crate) fn settle(stored: StoredType, shape: &[u64], room: u64, alignment: u64) -> StoredType {
    let fits = |len: Option<u64>| len.is_some_and(|len| len <= room && room - len < alignment);
    if stored == StoredType::I2S {
        let other = StoredType::Ggml { id: I2S, name: IQ4_NL_4_4 };
        let is_other = !fits(stored.byte_len(shape)) && fits(other.byte_len(shape));
        return if is_other { other } else { stored };
    }
    let StoredType::Ggml { id: id @ (TL2_OLD | TL2_NEW), .. } = stored else { return stored };
    if fits(stored.byte_len(shape)) {
        stored
    } else if fits(tl2_len(shape)) || fits(tl2_len(shape).map(|len| len + TL2_TAIL)) {
        StoredType::Ggml { id, name: TL2 }
    } else {
        StoredType::Ggml { id, name: "unknown" }
    }
}

/// Elements that a row of this type must be a multiple of, if it is a block type of known size.
pub(crate) fn block_elements(id: u32, name: &str) -> Option<u64> {
    BLOCKS.iter().find(|block| block.id == id && block.name == name).map(|block| block.elements)
}

/// Bytes of a tensor of a block type; `None` for unknown types, rows that are not whole blocks, and overflow.
pub(crate) fn byte_len(id: u32, name: &str, shape: &[u64]) -> Option<u64> {
    let block = BLOCKS.iter().find(|block| block.id == id && block.name == name)?;
    let (cols, outer) = shape.split_last()?;
    if !cols.is_multiple_of(block.elements) {
        return None;
    }
    let rows = outer.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let row = (cols / block.elements).checked_mul(block.bytes)?.checked_add(block.row_head)?;
    rows.checked_mul(row)
}

/// Bytes of a TL2 tensor `[rows, cols]` without its scale: all but 256 columns in triples of 5 bits, the rest in pairs
/// of 4. (This is the room that bitnet.cpp gives every tensor, however many columns are in triples.)
pub(crate) fn tl2_len(shape: &[u64]) -> Option<u64> {
    let (cols, outer) = shape.split_last()?;
    let rows = outer.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let triples = cols.checked_sub(256)?.checked_mul(rows)? / 3;
    let pairs = rows.checked_mul(128)?;
    let payload = (triples.checked_mul(5)? / 8).checked_add(pairs / 2)?;
    payload.checked_next_multiple_of(32)
}
