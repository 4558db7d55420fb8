//! The codecs of GGUF files against the bytes of ggml, ik_llama.cpp and bitnet.cpp, and damaged bytes.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

use super::*;
use crate::{RowOrder, TernaryMatrix, absmean};
use bitnet_core::bytes::ByteView;
use bitnet_core::{BlockType, DType};
use proptest::prelude::*;
use serde_json::Value;

fn vectors(name: &str) -> Value {
    let text = match name {
        "ggml_blocks" => include_str!("../../../../testdata/vectors/ggml_blocks.json"),
        _ => include_str!("../../../../testdata/vectors/vectors.json"),
    };
    serde_json::from_str(text).unwrap()
}

fn hex(v: &Value) -> Vec<u8> {
    let s = v.as_str().unwrap();
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn floats(v: &Value) -> Vec<f32> {
    hex(v).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn trits(v: &Value) -> (usize, usize, Vec<i8>) {
    let rows = v.as_array().unwrap();
    let flat: Vec<i8> =
        rows.iter().flat_map(|r| r.as_array().unwrap()).map(|t| t.as_i64().unwrap() as i8).collect();
    (rows.len(), flat.len() / rows.len(), flat)
}

fn unpack(codec: TritCodec, rows: usize, cols: usize, bytes: &[u8]) -> Result<Vec<i8>> {
    let data = ByteView::from_vec(bytes.to_vec());
    TernaryMatrix::new(rows, cols, 1.0, codec, RowOrder::Natural, data)?.to_trits()
}

/// A codec that stores scales, and its packer.
type Scaled = (TritCodec, fn(&[i8], usize, usize, f32) -> Result<Vec<u8>>);

const SCALED: [Scaled; 5] = [
    (TritCodec::Tq1_0, pack_tq1_0),
    (TritCodec::Tq2_0, pack_tq2_0),
    (TritCodec::Iq1Bn, pack_iq1_bn),
    (TritCodec::Iq2Bn, pack_iq2_bn),
    (TritCodec::Iq2BnR4, pack_iq2_bn_r4),
];

#[test]
fn types_of_ggml_and_ik() {
    let v = vectors("ggml_blocks");
    let ternary = (&v["ternary"], [("tq1_0", 0), ("tq2_0", 1)].as_slice());
    let ik = (&v["ik"], [("iq1_bn", 2), ("iq2_bn", 3), ("iq2_bn_r4", 4)].as_slice());
    for (v, kinds) in [ternary, ik] {
        let (rows, cols, t) = trits(&v["trits"]);
        let scale = v["scale"].as_f64().unwrap() as f32;
        for &(key, index) in kinds {
            let (codec, pack) = SCALED[index];
            let bytes = hex(&v[key]);
            assert_eq!(pack(&t, rows, cols, scale).unwrap(), bytes, "{key}");
            assert_eq!(unpack(codec, rows, cols, &bytes).unwrap(), t, "{key}");
            assert_eq!(codec.common_scale(&bytes, rows, cols).unwrap(), Some(scale), "{key}");
        }
    }
    // The vectors that were written from the description of the layouts.
    let v = &vectors("vectors")["row_formats"];
    let (_, cols, t) = trits(&v["ternary_4x256"]);
    for (key, index) in [("tq1_0_row0_hex", 0), ("tq2_0_row0_hex", 1), ("iq2_bn_row0_hex", 3)] {
        let (codec, pack) = SCALED[index];
        let bytes = hex(&v[key]);
        assert_eq!(pack(&t[..cols], 1, cols, 0.73).unwrap(), bytes, "{key}");
        assert_eq!(unpack(codec, 1, cols, &bytes).unwrap(), t[..cols], "{key}");
    }
}

#[test]
fn ternary_values_in_block_types() {
    let v = &vectors("ggml_blocks")["ternary"];
    let (rows, cols, t) = trits(&v["trits"]);
    let bytes = hex(&v["q8_0"]);
    let m = absmean::measure(BlockType::Q8_0, &bytes).unwrap();
    assert!(m.already_ternary && (m.scale - 0.6123).abs() < 1e-3, "{m:?}");
    let codec = TritCodec::Dense { dtype: BlockType::Q8_0.into(), inv: m.inv };
    assert_eq!(unpack(codec, rows, cols, &bytes).unwrap(), t);
    assert!(matches!(codec.byte_len(2, 100), Err(QuantError::UnsupportedShape { .. })));
}

#[test]
fn blocks_decode_as_in_ggml() {
    let v = vectors("ggml_blocks");
    for blocks in BlockType::ALL {
        let (bytes, want) =
            (hex(&v["decode"][blocks.name()]["bytes"]), floats(&v["decode"][blocks.name()]["values_f32"]));
        let mut out = vec![0.0; want.len()];
        blocks.decode(&bytes, &mut out);
        assert_eq!(out, want, "{blocks}");
    }
}

#[test]
fn blocks_encode_as_in_ggml() {
    let v = &vectors("ggml_blocks")["encode"];
    let values = floats(&v["values_f32"]);
    for blocks in [BlockType::Q8_0, BlockType::Q4_0] {
        let mut out = vec![7];
        assert!(blocks.can_encode() && blocks.encode(&values, &mut out));
        assert_eq!(out[1..], hex(&v[blocks.name()]), "{blocks}");
    }
    let long: Vec<f32> =
        (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) * if i < 256 { 0.01 } else { -3.0 }).collect();
    let mut out = Vec::new();
    assert!(BlockType::Q6K.encode(&long, &mut out));
    let mut back = vec![0.0; 512];
    BlockType::Q6K.decode(&out, &mut back);
    for (block, back) in long.chunks(256).zip(back.chunks(256)) {
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>();
        let error = norm(&mut block.iter().zip(back).map(|(a, b)| a - b)) / norm(&mut block.iter().copied());
        assert!(error < 4e-4, "{error}");
    }
    out.clear();
    assert!(BlockType::Q6K.encode(&[0.0; 256], &mut out) && out.len() == 210);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        for blocks in [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q6K] {
            assert!(!blocks.encode(&[bad; 256], &mut out) && out.len() == 210, "{blocks} {bad}");
        }
    }
    assert!(!BlockType::Q8_0.encode(&[1.0; 33], &mut out) && !BlockType::Q4K.encode(&[1.0; 256], &mut out));
}

/// Trits that a script in Python makes as well.
fn hashed_trits(count: usize) -> Vec<i8> {
    (0..count as u64)
        .map(|i| (((i * 2_654_435_761) & 0xffff_ffff) >> 13) as i64)
        .map(|h| (h % 3) as i8 - 1)
        .collect()
}

#[test]
fn tiles_of_bitnet_cpp() {
    for v in vectors("ggml_blocks")["tl"].as_array().unwrap() {
        let number = |key: &str| v[key].as_u64().unwrap() as usize;
        let (rows, cols, len) = (number("rows"), number("cols"), number("bytes"));
        let t = hashed_trits(rows * cols);
        let (codec, mut bytes) = if v["kind"] == "tl1" {
            let tiles = TlTiles::tl1(rows, cols).unwrap();
            (TritCodec::Tl1(tiles), pack_tl1(tiles, &t, rows, cols).unwrap())
        } else {
            let tiles = TlTiles::tl2(rows, cols).unwrap();
            (TritCodec::Tl2(tiles), pack_tl2(tiles, &t, rows, cols).unwrap())
        };
        assert_eq!(bytes[..32], hex(&v["head"]), "{v}");
        assert!(unpack(codec, rows, cols, &bytes).unwrap() == t, "{v}");
        // The packer of bitnet.cpp fills up with zeros.
        bytes.resize(len, 0);
        let term = |(i, &b): (u64, &u8)| {
            (u64::from(b) + 1).wrapping_mul(i.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1))
        };
        let sum = (0..).zip(&bytes).map(term).fold(0u64, u64::wrapping_add);
        assert_eq!(v["sum"], sum.to_string(), "{v}");
    }
}

#[test]
fn all_presets_hold_their_shapes() {
    let models = [(1536, 1536, 4096), (3200, 3200, 8640), (4096, 1024, 14_336)];
    for (hidden, kv, ffn) in models {
        for (rows, cols) in [(hidden, hidden), (kv, hidden), (ffn, hidden), (hidden, ffn)] {
            let tl1 = TritCodec::Tl1(TlTiles::tl1(rows, cols).unwrap());
            assert_eq!(tl1.byte_len(rows, cols).unwrap(), (rows * cols / 4) as u64);
            if (rows, cols) != (4096, 1536) {
                TritCodec::Tl2(TlTiles::tl2(rows, cols).unwrap()).byte_len(rows, cols).unwrap();
            }
        }
    }
    assert_eq!((TlTiles::tl1(2560, 2560), TlTiles::tl2(4096, 1536)), (None, None));
    for odd in [
        TlTiles { block_rows: 0, block_cols: 0, tile_rows: 32 },
        TlTiles { block_rows: 32, block_cols: 0, tile_rows: 0 },
    ] {
        assert!(
            TritCodec::Tl1(odd).byte_len(32, 96).is_err() && TritCodec::Tl2(odd).byte_len(32, 96).is_err()
        );
    }
}

#[test]
fn codes_that_stand_for_nothing() {
    let zeros = |codec, rows, cols| vec![0u8; TritCodec::byte_len(codec, rows, cols).unwrap() as usize];
    // A byte between those of two numbers, a last digit that must be empty, a code 3.
    for (codec, at, byte) in [
        (TritCodec::Tq1_0, 5, 0x14),
        (TritCodec::Tq1_0, 47, 0x14),
        (TritCodec::Tq1_0, 50, 0x03),
        (TritCodec::Tq2_0, 63, 0x30),
        (TritCodec::Iq1Bn, 2, 0x14),
        (TritCodec::Iq1Bn, 14, 0xff),
        (TritCodec::Iq2Bn, 4, 0xc0),
        (TritCodec::Iq2BnR4, 16, 0x0c),
    ] {
        let (rows, cols) = (4, 256);
        let good = zeros(codec, rows, cols);
        unpack(codec, rows, cols, &good).unwrap();
        let mut bad = good;
        bad[at] = byte;
        assert_eq!(
            unpack(codec, rows, cols, &bad).map(drop),
            Err(QuantError::InvalidCode { row: 0 }),
            "{codec:?} {at}"
        );
    }
    let tl1 = TritCodec::Tl1(TlTiles::tl1(1536, 1536).unwrap());
    let mut bad = zeros(tl1, 1536, 1536);
    bad[0] = 0x90;
    assert!(unpack(tl1, 1536, 1536, &bad).is_err());
    let tl2 = TritCodec::Tl2(TlTiles::tl2(1536, 1536).unwrap());
    let mut bad = zeros(tl2, 1536, 1536);
    bad[0] = 0x0e;
    assert!(unpack(tl2, 1536, 1536, &bad).is_err());
}

#[test]
fn one_scale_for_all() {
    let (rows, cols) = (4, 512);
    let mut t = hashed_trits(rows * cols);
    t[cols..2 * cols].fill(0);
    for (codec, pack) in SCALED {
        let good = pack(&t, rows, cols, 0.5).unwrap();
        assert_eq!(codec.common_scale(&good, rows, cols).unwrap(), Some(0.5), "{codec:?}");
        // Another scale in the last row, and a packer of whole rows can be called for parts.
        let mut other = pack(&t, rows, cols, 0.5).unwrap();
        if codec != TritCodec::Iq2BnR4 {
            let two =
                [pack(&t[..3 * cols], 3, cols, 0.5).unwrap(), pack(&t[3 * cols..], 1, cols, 0.5).unwrap()];
            assert_eq!(two.concat(), good, "{codec:?}");
            other.truncate(two[0].len());
            other.extend(pack(&t[3 * cols..], 1, cols, 0.25).unwrap());
            let error = codec.common_scale(&other, rows, cols).unwrap_err();
            assert!(
                matches!(
                    error,
                    QuantError::SeveralScales { first_row: 0, first: 0.5, other_row: 3, other: 0.25, .. }
                ),
                "{error}"
            );
            assert!(error.to_string().contains("0.5 in row 0 and 0.25 in row 3"), "{error}");
        }
        let nothing = pack(&vec![0; rows * cols], rows, cols, 0.5).unwrap();
        assert_eq!(codec.common_scale(&nothing, rows, cols).unwrap(), Some(1.0));
        assert!(unpack(codec, rows, cols, &nothing).unwrap().iter().all(|&t| t == 0));
        assert!(matches!(codec.common_scale(&good[1..], rows, cols), Err(QuantError::WrongLength { .. })));
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(
                matches!(pack(&t, rows, cols, scale), Err(QuantError::BadScale { .. })),
                "{codec:?} {scale}"
            );
        }
    }
    // Quantisers of ik_llama.cpp write +1 in rows of zeros.
    let mut zero_row = pack_iq2_bn(&[1; 64], 1, 64, 1.0).unwrap();
    zero_row[..4].fill(0);
    assert_eq!(unpack(TritCodec::Iq2Bn, 1, 64, &zero_row).unwrap(), [0; 64]);
    let mut infinite = pack_tq2_0(&[1; 512], 1, 512, 1.0).unwrap();
    infinite[64..66].copy_from_slice(&[0, 0x7c]);
    assert!(matches!(TritCodec::Tq2_0.common_scale(&infinite, 1, 512), Err(QuantError::BadScale { .. })));
    let i2s = TritCodec::I2S(I2sLayout::Group128);
    assert_eq!(i2s.common_scale(&[0; 32], 1, 128).unwrap(), None);
    assert_eq!(
        TritCodec::Dense { dtype: DType::F32.into(), inv: 1.0 }.common_scale(&[0; 4], 1, 1).unwrap(),
        None
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packing_round_trips(rows in 1usize..3, blocks in 1usize..4, seed in any::<u64>()) {
        let (rows, cols) = (rows * 4, blocks * 256);
        let mut s = seed | 1;
        let t: Vec<i8> = (0..rows * cols).map(|_| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((s >> 33) % 3) as i8 - 1
        }).collect();
        for (codec, pack) in SCALED {
            let bytes = pack(&t, rows, cols, 1.5).unwrap();
            prop_assert_eq!(&unpack(codec, rows, cols, &bytes).unwrap(), &t);
            prop_assert_eq!(codec.common_scale(&bytes, rows, cols).unwrap(), Some(1.5));
        }
        for tile_rows in [32, 64] {
            let tiles = TlTiles { block_rows: 64, block_cols: 128, tile_rows };
            let t = &t.repeat(64 / rows)[..64 * cols];
            let bytes = pack_tl1(tiles, t, 64, cols).unwrap();
            prop_assert_eq!(&unpack(TritCodec::Tl1(tiles), 64, cols, &bytes).unwrap(), t);
        }
        let tiles = TlTiles { block_rows: 32, block_cols: 96, tile_rows: 32 };
        let t = &t.repeat(32 / rows)[..32 * cols];
        let bytes = pack_tl2(tiles, t, 32, cols).unwrap();
        prop_assert_eq!(&unpack(TritCodec::Tl2(tiles), 32, cols, &bytes).unwrap(), t);
    }
}
