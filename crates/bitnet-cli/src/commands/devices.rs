//! `bitnet devices`: what this machine computes with.

use std::process::ExitCode;

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::{MemorySize, process};
use bitnet_cpu::KernelSetInfo;
use serde_json::json;

use crate::args::DevicesArgs;
use crate::error::CliError;
use crate::output::{self, Table};

pub(super) fn run(args: &DevicesArgs) -> Result<ExitCode, CliError> {
    let cpu = CpuFeatures::detect();
    let sets = bitnet_cpu::kernel_sets();
    let chosen = bitnet_cpu::chosen_kernel_set(args.kernels.as_deref()).map_err(|error| {
        CliError::failed(error).hint("leave out --kernels and BITNET_KERNELS to see the sets of this machine")
    })?;
    if args.json { as_json(&cpu, &sets, chosen) } else { as_text(&cpu, &sets, chosen) }?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(cpu: &CpuFeatures, sets: &[KernelSetInfo], chosen: &str) -> Result<(), CliError> {
    let unknown = || "unknown".to_owned();
    let memory = |size: Option<MemorySize>| size.map_or_else(unknown, |s| s.to_string());
    let mut table = Table::default();
    table.row([&"processor", &cpu.model.clone().unwrap_or_else(unknown)]);
    table.row([&"architecture", &cpu.arch]);
    table.row([&"cores", &format!("{} ({} threads)", cpu.cores, cpu.threads)]);
    table.row([&"features", &cpu.features.join(" ")]);
    table.row([&"memory", &memory(process::total_memory())]);
    table.row([&"available", &memory(process::available_memory())]);
    let mut kernels = Table::default();
    for set in sets {
        let state = match (set.name == chosen, set.available) {
            (true, _) => "chosen",
            (false, true) => "available",
            (false, false) => "not on this processor",
        };
        kernels.row([&"", &set.name, &state, &format!("needs {}", set.requires)]);
    }
    output::result(&format!("{table}kernel sets\n{kernels}"))
}

fn as_json(cpu: &CpuFeatures, sets: &[KernelSetInfo], chosen: &str) -> Result<(), CliError> {
    let bytes = |size: Option<MemorySize>| size.map(MemorySize::as_bytes);
    let set = |set: &KernelSetInfo| {
        json!({
            "name": set.name,
            "available": set.available,
            "chosen": set.name == chosen,
            "requires": set.requires,
        })
    };
    output::json(&json!({
        "devices": [{
            "kind": "cpu",
            "name": cpu.model,
            "architecture": cpu.arch,
            "cores": cpu.cores,
            "threads": cpu.threads,
            "features": cpu.features,
            "kernel_sets": sets.iter().map(set).collect::<Vec<_>>(),
            "kernel_set": chosen,
            "memory_bytes": bytes(process::total_memory()),
            "available_bytes": bytes(process::available_memory()),
        }],
    }))
}
