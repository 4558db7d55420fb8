//! Without the feature `mlx` every answer says so.
#![cfg(not(feature = "mlx"))]

use bitnet_mlx::{MlxError, MlxExecutor, MlxOptions, device_info};
use bitnet_model::ExecError;
use bitnet_model::conformance::samples;

#[test]
fn a_build_without_mlx_says_so() {
    assert_eq!(device_info(), Err(MlxError::NotBuilt));
    let sample = samples().swap_remove(0);
    let result = MlxExecutor::new(sample.spec, &sample.weights, &MlxOptions::default(), &mut |_, _| {});
    match result {
        Err(ExecError::Unsupported { backend: "mlx", what }) => assert_eq!(what, "this build has no MLX"),
        other => panic!("{other:?}"),
    }
}
