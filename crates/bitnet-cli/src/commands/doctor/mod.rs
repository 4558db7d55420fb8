//! `bitnet doctor`: what is well on this machine, what is not, and what to do about it.
//!
//! Each module has the checks of one area and gives [`Finding`]s. What Linux tells in files is read through
//! [`system::System`], which can have any root. Nothing is changed without `--fix`.

mod cache;
mod finding;
mod gpu;
mod memory;
mod model;
mod network;
mod processor;
mod speed;
mod system;

use std::process::ExitCode;

use bitnet_hub::{Cache, CacheFault, Hub, HubConfig};
use bitnet_model::synth::ShapePreset;
use serde_json::json;

use self::finding::{Finding, State, count, summary};
use self::system::System;
use crate::args::DoctorArgs;
use crate::error::CliError;
use crate::output::{self, Notes, Progress};

/// The port that `bitnet serve` listens on if nothing else is said.
const PORT: u16 = 8080;
/// The model that most people want to run.
const COMMON: &str = "bitnet-b1.58-2B-4T";

pub(super) fn run(args: &DoctorArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let mut report = Report { as_it_comes: !args.json, findings: Vec::new() };
    let (system, kernels) = (System::at("/"), args.kernels.as_deref());
    report.add(processor::findings(&system, kernels))?;
    // A model is looked at before memory, which shall hold it.
    let mut progress = Progress::new("looking at the model", notes);
    let (found, model) = match &args.model {
        None => (Vec::new(), None),
        Some(path) => {
            let options = crate::model::load_options(&args.format)?;
            let source = crate::model::source(Some(path), &args.format.hub, notes)?;
            model::named(&source, &options, args.deep, &mut |done, total| progress.set(done, total))
        }
    };
    progress.clear();
    let common = ShapePreset::B2_4T.spec();
    let wanted = match &model {
        Some(model) => memory::Wanted { name: &model.name, spec: &model.spec, is_asked: true },
        None => memory::Wanted { name: COMMON, spec: &common, is_asked: false },
    };
    report.add(memory::findings(&system, wanted))?;
    report.add(gpu::findings(&system, std::env::var_os("PATH")))?;
    report.add(found)?;
    report.add(vec![model::bundled(kernels)])?;
    report.add(hub(args, notes)?)?;
    if !args.quick {
        report.add(speed::machine(kernels))?;
        report.add(vec![speed::bundled(kernels)])?;
    }
    report.finish()
}

/// Cache and network.
fn hub(args: &DoctorArgs, notes: Notes) -> Result<Vec<Finding>, CliError> {
    if let Err(error) = HubConfig::from_env().and_then(Hub::new) {
        let finding = Finding::new("cache", "settings", State::Problem, error.to_string());
        let advice = "set the variable to what it should be, or unset it";
        return Ok(vec![finding.advise(advice), network::port(PORT)]);
    }
    let config = crate::hub::open(&args.format.hub)?.config().clone();
    let mut progress = Progress::new("comparing hashes", notes);
    let mut checked = cache::check(&config, args.deep, &mut |done, total| progress.set(done, total));
    if args.fix {
        progress.clear();
        let mended = mend(&config, &checked.faults, notes)?;
        if mended > 0 {
            checked = cache::check(&config, args.deep, &mut |done, total| progress.set(done, total));
        }
    }
    progress.clear();
    let mut findings = checked.findings;
    findings.extend([network::port(PORT), network::hub(&config, args.online)]);
    Ok(findings)
}

/// Removes what is of no use.
fn mend(config: &HubConfig, faults: &[CacheFault], notes: Notes) -> Result<usize, CliError> {
    let mended = Cache::new(&config.cache).mend(faults)?;
    match mended {
        0 => notes.say("there is nothing that --fix can put right"),
        1 => notes.say("removed 1 file that was of no use"),
        n => notes.say(&format!("removed {n} files that were of no use")),
    }
    Ok(mended)
}

/// What was found so far, shown as it comes.
struct Report {
    as_it_comes: bool,
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, findings: Vec<Finding>) -> Result<(), CliError> {
        for finding in findings {
            if self.as_it_comes {
                output::result(&finding.text(self.findings.last()))?;
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    fn finish(self) -> Result<ExitCode, CliError> {
        let problems = count(&self.findings, State::Problem);
        if self.as_it_comes {
            output::result(&format!("\n{}\n", summary(&self.findings)))?;
        } else {
            output::json(&json!({
                "version": env!("CARGO_PKG_VERSION"),
                "ok": problems == 0,
                "problems": problems,
                "warnings": count(&self.findings, State::Warning),
                "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            }))?;
        }
        Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
