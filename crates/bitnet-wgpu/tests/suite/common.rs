//! What the tests share: an adapter, or a failure that says how to get one.

use bitnet_model::conformance::Sample;
use bitnet_model::{ExecError, ModelSpec, Weights};
use bitnet_wgpu::{NO_ADAPTER_HELP, WgpuExecutor, WgpuOptions, adapters};

/// Whether there is an adapter to test on. On Linux one must be there (Mesa's lavapipe will do), elsewhere if
/// `BITNET_REQUIRE_GPU=1`; `BITNET_SKIP_GPU=1` skips the tests.
///
/// # Panics
/// If there must be one and is none.
pub(crate) fn is_there() -> bool {
    let says = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
    if says("BITNET_SKIP_GPU") {
        return false;
    }
    let there = !adapters().is_empty();
    let required = says("BITNET_REQUIRE_GPU") || cfg!(target_os = "linux");
    assert!(
        there || !required,
        "no adapter to test on: {NO_ADAPTER_HELP} (BITNET_SKIP_GPU=1 skips these tests)"
    );
    there
}

/// Options that take software adapters, too.
pub(crate) fn options() -> WgpuOptions {
    WgpuOptions { allow_software: true, ..WgpuOptions::default() }
}

/// An executor for a model.
pub(crate) fn executor(
    spec: &ModelSpec,
    weights: &Weights,
    options: &WgpuOptions,
) -> Result<WgpuExecutor, ExecError> {
    WgpuExecutor::new(spec.clone(), weights, options, &mut |_, _| {})
}

/// An executor for a sample.
pub(crate) fn of_sample(sample: &Sample, options: &WgpuOptions) -> Result<WgpuExecutor, ExecError> {
    executor(&sample.spec, &sample.weights, options)
}
