//! Every codec against reference vectors, its packer, and damaged bytes.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

use super::*;
use crate::codec::{I2sLayout, pack_hf, pack_i2s};
use bitnet_core::DType;
use proptest::prelude::*;

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../../testdata/vectors/vectors.json")).unwrap()
}

fn hex(v: &serde_json::Value) -> Vec<u8> {
    let s = v.as_str().unwrap();
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn trits(v: &serde_json::Value) -> (usize, usize, Vec<i8>) {
    let rows = v.as_array().unwrap();
    let flat: Vec<i8> =
        rows.iter().flat_map(|r| r.as_array().unwrap()).map(|t| t.as_i64().unwrap() as i8).collect();
    (rows.len(), flat.len() / rows.len(), flat)
}

fn matrix(rows: usize, cols: usize, codec: TritCodec, data: Vec<u8>) -> Result<TernaryMatrix> {
    TernaryMatrix::new(rows, cols, 1.0, codec, RowOrder::Natural, ByteView::from_vec(data))
}

#[test]
fn row_block_packing_of_transformers() {
    let v = vectors();
    let (rows, cols, t) = trits(&v["hf_pack"]["ternary"]);
    let bytes = hex(&v["hf_pack"]["packed_hex"]);
    assert_eq!(pack_hf(&t, rows, cols).unwrap(), bytes);
    assert_eq!(matrix(rows, cols, TritCodec::HfPacked, bytes).unwrap().to_trits().unwrap(), t);
}

#[test]
fn all_three_layouts_of_i2s() {
    let v = vectors();
    let v = &v["row_formats"];
    let (rows, cols, t) = trits(&v["ternary_4x256"]);
    for (layout, key) in [
        (I2sLayout::Group128, "i2_s_block128_hex"),
        (I2sLayout::Group64, "i2_s_block64_arm_hex"),
        (I2sLayout::Rows4, "i2_s_1x4_hex"),
    ] {
        let bytes = hex(&v[key]);
        assert_eq!(pack_i2s(layout, &t, rows, cols).unwrap(), bytes, "{key}");
        assert_eq!(
            matrix(rows, cols, TritCodec::I2S(layout), bytes).unwrap().to_trits().unwrap(),
            t,
            "{key}"
        );
    }
}

#[test]
fn code_three_is_refused() {
    let m = matrix(4, 2, TritCodec::HfPacked, vec![0b0100_0000, 0b0011_0000]).unwrap();
    let mut out = [0; 2];
    m.decode_row(1, &mut out).unwrap();
    assert_eq!(m.decode_row(2, &mut out), Err(QuantError::InvalidCode { row: 2 }));
    let m = matrix(1, 128, TritCodec::I2S(I2sLayout::Group128), vec![3; 32]).unwrap();
    assert!(m.to_trits().is_err());
}

#[test]
fn lengths_shapes_and_scales_are_checked() {
    assert!(matches!(matrix(4, 8, TritCodec::HfPacked, vec![0; 7]), Err(QuantError::WrongLength { .. })));
    assert!(matches!(
        matrix(6, 8, TritCodec::HfPacked, vec![0; 12]),
        Err(QuantError::UnsupportedShape { .. })
    ));
    let i2s = TritCodec::I2S(I2sLayout::Group128);
    assert!(matches!(matrix(4, 100, i2s, vec![0; 100]), Err(QuantError::UnsupportedShape { .. })));
    assert!(matrix(usize::MAX, usize::MAX, i2s, vec![]).is_err());
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let data = ByteView::from_vec(vec![0x55; 8]);
        let m = TernaryMatrix::new(4, 8, scale, TritCodec::HfPacked, RowOrder::Natural, data);
        assert!(matches!(m, Err(QuantError::BadScale { .. })), "{scale}");
    }
}

#[test]
fn real_masters_round_to_the_packed_trits() {
    // The packed trits came from f32 masters; the bf16 copies may cross a rounding threshold, rarely.
    let read = |bytes: &'static [u8]| {
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        (header, &bytes[8 + n..])
    };
    let (mh, mdata) = read(include_bytes!("../../../../testdata/bitnet-tiny/layer0_master.safetensors"));
    let (ph, pdata) = read(include_bytes!("../../../bitnet-tiny/model/model.safetensors"));
    let part = |h: &serde_json::Value, data: &'static [u8], name: &str| {
        let o = h[name]["data_offsets"].as_array().unwrap();
        ByteView::from_static(&data[o[0].as_u64().unwrap() as usize..o[1].as_u64().unwrap() as usize])
    };
    let (mut total, mut differ) = (0usize, 0usize);
    for name in mh.as_object().unwrap().keys().filter(|k| k.ends_with(".weight")) {
        let shape = mh[name]["shape"].as_array().unwrap();
        let (rows, cols) = (shape[0].as_u64().unwrap() as usize, shape[1].as_u64().unwrap() as usize);
        let master = part(&mh, mdata, name);
        let m = crate::absmean::measure(DType::BF16, master.as_slice()).unwrap();
        let codec = TritCodec::Dense { dtype: DType::BF16.into(), inv: m.inv };
        let ours = TernaryMatrix::new(rows, cols, m.scale, codec, RowOrder::Natural, master).unwrap();
        let theirs =
            matrix(rows, cols, TritCodec::HfPacked, part(&ph, pdata, name).as_slice().to_vec()).unwrap();
        let scale = part(&ph, pdata, &format!("{name}_scale"));
        let mut packed_scale = [0.0];
        DType::BF16.decode(scale.as_slice(), &mut packed_scale);
        assert!((m.scale / packed_scale[0] - 1.0).abs() < 0.01, "{name}");
        let (a, b) = (ours.to_trits().unwrap(), theirs.to_trits().unwrap());
        total += a.len();
        differ += a.iter().zip(&b).filter(|(a, b)| a != b).count();
    }
    assert!(total > 3_000_000 && differ * 500 < total, "{differ} of {total} trits differ");
}

#[test]
fn interleaved_rows_are_undone() {
    // One head of 6 rows: model rows a0 a1 a2 b0 b1 b2 are stored as a0 b0 a1 b1 a2 b2.
    let order = RowOrder::RotaryInterleaved { head_dim: 6 };
    let stored: Vec<usize> = (0..12).map(|r| order.stored_row(r)).collect();
    assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn packing_round_trips(rows in 1usize..4, cols in 1usize..4, seed in any::<u64>()) {
        let (rows, cols) = (rows * 4, cols * 128);
        let mut s = seed | 1;
        let t: Vec<i8> = (0..rows * cols).map(|_| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((s >> 33) % 3) as i8 - 1
        }).collect();
        let hf = matrix(rows, cols, TritCodec::HfPacked, pack_hf(&t, rows, cols).unwrap()).unwrap();
        prop_assert_eq!(hf.to_trits().unwrap(), t.clone());
        for layout in [I2sLayout::Group128, I2sLayout::Group64, I2sLayout::Rows4] {
            let bytes = pack_i2s(layout, &t, rows, cols).unwrap();
            prop_assert_eq!(matrix(rows, cols, TritCodec::I2S(layout), bytes).unwrap().to_trits().unwrap(), t.clone());
        }
    }
}
