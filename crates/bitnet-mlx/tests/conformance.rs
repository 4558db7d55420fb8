//! The conformance suite beside the oracle.
#![cfg(feature = "mlx")]
#![allow(clippy::unwrap_used)]

mod common;

use bitnet_mlx::MlxOptions;
use bitnet_model::KvType;
use bitnet_model::conformance::{self, Tolerance};

/// Most rows agree to float noise (see `agreement.rs`). Where noise carries an activation over a rounding border, this row and
/// those that attend to it differ by about a hundredth, in these small models; some meet several.
const TOLERANCE: Tolerance = Tolerance::Relative(4e-2);

fn conforms(kv_type: KvType) {
    conformance::run(TOLERANCE, kv_type, &mut |sample| {
        Ok(Box::new(common::of_sample(sample, &MlxOptions { kv_type, ..common::options() })?))
    })
    .unwrap_or_else(|e| panic!("{kv_type}: {e}"));
}

#[test]
fn every_model_conforms_with_f16_keys_and_values() {
    conforms(KvType::F16);
}

#[test]
fn every_model_conforms_with_f32_keys_and_values() {
    conforms(KvType::F32);
}

#[test]
fn every_model_conforms_with_int8_keys_and_values() {
    conforms(KvType::Int8);
}
