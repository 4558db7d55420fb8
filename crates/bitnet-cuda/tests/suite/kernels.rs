//! The kernels in the program are those of the sources, for every target.

use bitnet_cuda::{argument_sizes, needs_tensor_cores, targets};

#[test]
fn every_target_has_every_kernel() {
    for target in targets() {
        let ptx = target.ptx().unwrap();
        let version = format!(".target {}\n", target.name);
        assert!(ptx.contains(&version), "{}", target.name);
        assert!(!ptx.contains(".extern .func"), "{} calls what is not in it", target.name);
        for (kernel, bytes) in argument_sizes() {
            let entry = format!(".entry {kernel}(");
            let there = ptx.contains(&entry);
            assert_eq!(
                there,
                target.tensor_cores || !needs_tensor_cores(kernel),
                "{kernel} in {}",
                target.name
            );
            if there {
                let argument = format!(".param .align 8 .b8 {kernel}_param_0[{bytes}]");
                assert!(ptx.contains(&argument), "the argument of {kernel} in {}", target.name);
            }
        }
    }
}
