//! Every architecture variant, every type of keys and values, both kinds of kernels: the oracle's bits.

use bitnet_model::KvType;
use bitnet_model::conformance::{Tolerance, run};

use crate::{executor, on_device};

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
fn kernels_without_tensor_cores_equal_the_oracle_with_int8() {
    conforms("sm_75", KvType::Int8);
}

/// The other pairs differ in little that the two above do not run, and the emulator takes its time.
#[test]
fn every_other_pair_equals_the_oracle_on_a_device() {
    if !on_device() {
        println!("run on a device only (BITNET_CUDA_TEST=device)");
        return;
    }
    for (kernels, kv_type) in
        [("sm_80", KvType::F32), ("sm_80", KvType::Int8), ("sm_75", KvType::F32), ("sm_75", KvType::F16)]
    {
        conforms(kernels, kv_type);
    }
}
