//! Every function of every kernel set that this processor can run, against scalar code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bitnet_cpu::kernel_sets;
use bitnet_cpu::kernels::checks;

#[test]
fn every_function_of_every_set_gives_the_bits_of_scalar_code() {
    for set in kernel_sets() {
        if !set.available {
            println!("skipped {}: this processor lacks {}", set.name, set.requires);
            continue;
        }
        for check in checks::run(set.name).unwrap() {
            let cases = check.outcome.unwrap_or_else(|e| panic!("{}, {}: {e}", set.name, check.name));
            assert!(cases > 0, "{}, {}", set.name, check.name);
        }
    }
    assert!(checks::run("abacus").is_err());
}
