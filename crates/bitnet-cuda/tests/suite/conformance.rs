//! Every architecture variant, every type of keys and values, both kinds of kernels: the oracle's bits.

use bitnet_model::KvType;
use bitnet_model::conformance::{Tolerance, run};

use crate::executor;

fn conforms(kernels: &str, kv_type: KvType) {
    run(Tolerance::Bits, kv_type, &mut |sample| {
        Ok(Box::new(executor(&sample.spec, &sample.weights, kv_type, kernels)?))
    })
    .unwrap_or_else(|e| panic!("{kernels}, {kv_type}: {e}"));
}

#[test]
fn kernels_with_tensor_cores_equal_the_oracle_with_f16() {
    conforms("sm_80", KvType::F16);
}

#[test]
fn kernels_with_tensor_cores_equal_the_oracle_with_int8() {
    conforms("sm_80", KvType::Int8);
}

#[test]
fn kernels_without_tensor_cores_equal_the_oracle_with_f32() {
    conforms("sm_75", KvType::F32);
}
