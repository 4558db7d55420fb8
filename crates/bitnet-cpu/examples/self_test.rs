//! The kernel sets of this processor on one thread: every function of each against scalar code, and the default set in
//! the conformance suite against the oracle.
//!
//! The tests of this crate check the same and more, but libtest always starts threads, and emulators that run single
//! programs of another architecture are not to be trusted with those; so this is a plain program, for
//! `cargo xtask arm64`.
//!
//! `self_test [SET]...`: the sets that must be available, in this order, the first of them the default. Without them
//! whatever is available is tested.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Instant;

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::pool::ThreadPool;
use bitnet_cpu::kernels::checks;
use bitnet_cpu::{CpuExecutor, CpuOptions, Form, kernel_sets, limits};
use bitnet_model::KvType;
use bitnet_model::conformance::{self, Tolerance};

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn note(&mut self, name: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(remark) => {
                self.passed += 1;
                println!("passed  {name}  {remark}");
            }
            Err(why) => {
                self.failed += 1;
                println!("FAILED  {name}: {why}");
            }
        }
    }
}

fn main() -> ExitCode {
    let expected: Vec<String> = std::env::args().skip(1).collect();
    let cpu = CpuFeatures::detect();
    println!("{} with {}", cpu.arch, cpu.features.join(" "));
    let mut tally = Tally::default();
    let available: Vec<&str> = kernel_sets().iter().filter(|set| set.available).map(|set| set.name).collect();
    if !expected.is_empty() {
        let outcome = if available == expected {
            Ok(available.join(" "))
        } else {
            Err(format!("{} instead of {}", available.join(" "), expected.join(" ")))
        };
        tally.note("the kernel sets of this processor, the fastest first", outcome);
    }
    for &set in &available {
        match checks::run(set) {
            Ok(checks) => {
                for check in checks {
                    let remark = check.outcome.map(|cases| format!("({cases} cases)"));
                    tally.note(&format!("{set}: {}", check.name), remark);
                }
            }
            Err(why) => tally.note(set, Err(why)),
        }
        tally.note(&format!("{set}: the loop that measures the int8 peak"), peak(set));
    }
    for (form, kv_type) in [(Form::TwoBit, KvType::F16), (Form::FiveTrits, KvType::Int8)] {
        let (set, start) = (available[0], Instant::now());
        let outcome =
            conforms(set, form, kv_type).map(|()| format!("({:.1} s)", start.elapsed().as_secs_f64()));
        tally.note(
            &format!("{set}: conformance suite, {} weights, {kv_type} keys and values", form.name()),
            outcome,
        );
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the loop of a kernel set; under emulation the figure itself says nothing.
fn peak(set: &str) -> Result<String, String> {
    let mut pool = ThreadPool::new(1).map_err(|error| error.to_string())?;
    match limits::int8_peak(&mut pool, set) {
        Some(peak) if peak > 0.0 => Ok(limits::multiplier(set).unwrap_or_default().to_owned()),
        other => Err(format!("gives {other:?}")),
    }
}

/// The conformance suite with one kernel set, one form of weights, one type of keys and values, and one thread.
fn conforms(set: &str, form: Form, kv_type: KvType) -> Result<(), String> {
    let options = CpuOptions {
        threads: Some(1),
        kernels: Some(set.to_owned()),
        form: Some(form),
        kv_type,
        ..CpuOptions::default()
    };
    let mut warnings = Vec::new();
    conformance::run(Tolerance::Bits, kv_type, &mut |sample| {
        let executor = CpuExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {})?;
        warnings.extend(executor.warnings().iter().cloned());
        Ok(Box::new(executor))
    })?;
    if warnings.is_empty() { Ok(()) } else { Err(warnings.join("; ")) }
}
