//! The conformance suite on an adapter, with and without what adapters may lack.
#![allow(clippy::unwrap_used)]

mod common;

use bitnet_model::KvType;
use bitnet_model::conformance::{self, Tolerance};
use bitnet_wgpu::WgpuOptions;

const TOLERANCE: Tolerance = Tolerance::Relative(2e-2);

fn conforms(options: &WgpuOptions) {
    if !common::is_there() {
        return;
    }
    conformance::run(TOLERANCE, options.kv_type, &mut |sample| {
        Ok(Box::new(common::of_sample(sample, options)?))
    })
    .unwrap_or_else(|e| panic!("{options:?}: {e}"));
}

#[test]
fn every_model_conforms_with_f16_keys_and_values() {
    conforms(&common::options());
}

#[test]
fn every_model_conforms_with_f32_keys_and_values() {
    conforms(&WgpuOptions { kv_type: KvType::F32, ..common::options() });
}

#[test]
fn every_model_conforms_with_int8_keys_and_values() {
    conforms(&WgpuOptions { kv_type: KvType::Int8, ..common::options() });
}
