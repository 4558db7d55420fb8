//! A few seconds of speed: memory, multiplier, and the bundled model.

use std::ops::ControlFlow;

use bitnet_core::cpu::CpuFeatures;
use bitnet_inference::benchmark::{BenchmarkOptions, BenchmarkTest, Limits, Probe};
use bitnet_inference::{EngineError, InferenceEngine};
use bitnet_model::synth::ShapePreset;

use super::finding::{Finding, State};
use crate::model;

const AREA: &str = "speed";
/// How often the machine's limits are measured.
const MEASUREMENTS: usize = 4;
/// From this spread of measurements on, figures mean little.
const UNSTEADY: f64 = 0.25;
/// Bytes a second below which any machine of the last ten years is short of something.
const SLOW_MEMORY: f64 = 5e9;

/// The machine's limits; `kernels` is the set that was asked for.
pub(super) fn machine(kernels: Option<&str>) -> Vec<Finding> {
    match limits(kernels) {
        Ok(limits) => vec![memory(&limits), multiplier(&limits)],
        Err(error) => vec![failed("limits", &format!("the machine's limits could not be measured: {error}"))],
    }
}

/// The bundled model.
pub(super) fn bundled(kernels: Option<&str>) -> Finding {
    match tokens(kernels) {
        Ok((generate, prompt)) => {
            let message = format!("the bundled model generates {generate:.0} tokens/s and reads {prompt:.0}");
            Finding::new(AREA, "bundled_model", State::Fine, message)
                .value("generated_per_second", generate)
                .value("prompt_per_second", prompt)
        }
        Err(error) => failed("bundled_model", &format!("the bundled model could not be measured: {error}")),
    }
}

fn failed(check: &'static str, message: &str) -> Finding {
    Finding::new(AREA, check, State::Warning, message).advise("see the findings about processor and memory")
}

fn limits(kernels: Option<&str>) -> Result<Vec<Limits>, String> {
    let set = bitnet_cpu::chosen_kernel_set(kernels)?;
    let threads = CpuFeatures::detect().cores;
    let mut probe = Probe::new().map_err(|error| error.to_string())?;
    (0..MEASUREMENTS).map(|_| probe.measure(threads, set).map_err(|error| error.to_string())).collect()
}

/// The largest of some figures, and by which part the smallest is below it.
fn best(figures: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let most = figures.clone().fold(0.0, f64::max);
    let least = figures.fold(f64::INFINITY, f64::min);
    (most, if most > 0.0 { 1.0 - least / most } else { 0.0 })
}

fn memory(limits: &[Limits]) -> Finding {
    let (most, spread) = best(limits.iter().map(|limits| limits.read_bytes));
    // Each token reads every ternary weight and the int8 rows of the output layer.
    let spec = ShapePreset::B2_4T.spec();
    let bytes = (spec.ternary_parameters() / 4) as f64 + (spec.vocab_size * spec.hidden_size) as f64;
    let (speed, expected) = (most / 1e9, most / bytes);
    let message =
        format!("memory gives {speed:.1} GB/s: at most {expected:.0} tokens/s of bitnet-b1.58-2B-4T");
    let found = if most < SLOW_MEMORY {
        Finding::new(AREA, "memory", State::Warning, format!("{message}, which is little"))
            .advise("look for other busy programs, a single memory module, or a small virtual machine")
    } else if spread > UNSTEADY {
        let message = format!("{message}, but {:.0} % less at times", 100.0 * spread);
        Finding::new(AREA, "memory", State::Warning, message)
            .advise("other programs, or other virtual machines on this host, take memory bandwidth")
    } else {
        Finding::new(AREA, "memory", State::Fine, message)
    };
    found
        .value("read_bytes_per_second", most)
        .value("spread", spread)
        .value("tokens_per_second_of_2b4t", expected)
}

fn multiplier(limits: &[Limits]) -> Finding {
    let macs: Vec<f64> = limits.iter().filter_map(|limits| limits.macs).collect();
    if macs.is_empty() {
        return Finding::new(
            AREA,
            "multiplier",
            State::Note,
            "the int8 multiplier of these kernels cannot be measured",
        );
    }
    let (most, spread) = best(macs.iter().copied());
    let message = format!("the int8 multiplier does {:.0} GMAC/s", most / 1e9);
    let found = if spread > UNSTEADY {
        let message = format!("{message}, but {:.0} % less at times", 100.0 * spread);
        Finding::new(AREA, "multiplier", State::Warning, message)
            .advise("other programs are busy, or the processor slows down because of heat or a quota")
    } else {
        Finding::new(AREA, "multiplier", State::Fine, message)
    };
    found.value("macs_per_second", most).value("spread", spread)
}

/// Tokens a second that the bundled model generates, and that it reads of a prompt.
fn tokens(kernels: Option<&str>) -> Result<(f64, f64), EngineError> {
    let engine =
        InferenceEngine::builder().model(model::bundled()).kernels(kernels.map(str::to_owned)).build()?;
    let options = BenchmarkOptions { repetitions: 3, ..BenchmarkOptions::default() };
    let tests = [BenchmarkTest::generate(64), BenchmarkTest::prompt(128)];
    let results = engine.benchmark_with(&tests, options, &mut |_| ControlFlow::Continue(()))?;
    let speed = |index: usize| results.get(index).map_or(0.0, |result| result.tokens_per_second().mean);
    Ok((speed(0), speed(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(read: &[f64], macs: Option<f64>) -> Vec<Limits> {
        read.iter().map(|&read_bytes| Limits { read_bytes, macs }).collect()
    }

    #[test]
    fn slow_and_unsteady_machines_are_told() {
        let state = |read: &[f64]| memory(&measured(read, None)).state;
        assert_eq!(state(&[20e9, 19e9]), State::Fine);
        assert_eq!(state(&[20e9, 10e9]), State::Warning);
        assert_eq!(state(&[2e9, 2e9]), State::Warning);
        let message = memory(&measured(&[17e9], None)).message;
        assert!(message.contains("17.0 GB/s: at most 20 tokens/s"), "{message}");
        assert_eq!(multiplier(&measured(&[1e9], None)).state, State::Note);
        assert_eq!(multiplier(&measured(&[1e9, 1e9], Some(5e9))).state, State::Fine);
        assert_eq!(multiplier(&[]).state, State::Note);
        assert_eq!(best([4.0, 1.0, 2.0].into_iter()), (4.0, 0.75));
    }
}
