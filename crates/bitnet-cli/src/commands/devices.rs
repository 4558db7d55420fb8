//! `bitnet devices`: what this machine computes with, and what is chosen.

use std::process::ExitCode;

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::{MemorySize, process};
use bitnet_cpu::KernelSetInfo;
use bitnet_inference::{Device, DeviceSelector, DeviceStatus};
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::error::CliError;
use crate::output::{self, Table};

pub(super) fn run(args: &DevicesArgs) -> Result<ExitCode, CliError> {
    let cpu = CpuFeatures::detect();
    let sets = bitnet_cpu::kernel_sets();
    let chosen = bitnet_cpu::chosen_kernel_set(args.kernels.as_deref()).map_err(|error| {
        CliError::failed(error).hint("leave out --kernels and BITNET_KERNELS to see the sets of this machine")
    })?;
    let selector = DeviceSelector::new();
    if args.json {
        as_json(&cpu, &sets, chosen, &selector)
    } else {
        as_text(&cpu, &sets, chosen, &selector)
    }?;
    Ok(ExitCode::SUCCESS)
}

/// What becomes of a device.
fn state(status: &DeviceStatus, best: Device) -> String {
    match (&status.reason, &status.only_named) {
        (Some(why), _) => format!("not available: {why}"),
        (None, _) if status.device == best => "chosen".to_owned(),
        (None, Some(why)) => format!("only by --device {}: {why}", status.device),
        (None, None) => "available".to_owned(),
    }
}

fn as_text(
    cpu: &CpuFeatures,
    sets: &[KernelSetInfo],
    chosen: &str,
    selector: &DeviceSelector,
) -> Result<(), CliError> {
    let unknown = || "unknown".to_owned();
    let memory = |size: Option<MemorySize>| size.map_or_else(unknown, |s| s.to_string());
    let mut table = Table::default();
    table.row([&"processor", &cpu.model.clone().unwrap_or_else(unknown)]);
    table.row([&"architecture", &cpu.arch]);
    table.row([&"cores", &format!("{} ({} threads)", cpu.cores, cpu.threads)]);
    table.row([&"features", &cpu.features.join(" ")]);
    table.row([&"memory", &memory(process::total_memory())]);
    table.row([&"available", &memory(process::available_memory())]);
    let mut devices = Table::default();
    let best = selector.select(Device::Auto).device;
    for status in selector.devices() {
        let memory = status.memory.map_or_else(String::new, |size| match status.free {
            Some(free) => format!("{size}, {free} free"),
            None => size.to_string(),
        });
        let name = match &status.driver {
            Some(driver) => format!("{} ({driver})", status.name),
            None => status.name.clone(),
        };
        devices.row([&"", &status.device, &name, &memory, &state(status, best)]);
    }
    let mut kernels = Table::default();
    for set in sets {
        let state = match (set.name == chosen, set.available) {
            (true, _) => "chosen",
            (false, true) => "available",
            (false, false) => "not on this processor",
        };
        kernels.row([&"", &set.name, &state, &format!("needs {}", set.requires)]);
    }
    output::result(&format!("{table}devices\n{devices}kernel sets\n{kernels}"))
}

fn as_json(
    cpu: &CpuFeatures,
    sets: &[KernelSetInfo],
    chosen: &str,
    selector: &DeviceSelector,
) -> Result<(), CliError> {
    let bytes = |size: Option<MemorySize>| size.map(MemorySize::as_bytes);
    let set = |set: &KernelSetInfo| {
        json!({
            "name": set.name,
            "available": set.available,
            "chosen": set.name == chosen,
            "requires": set.requires,
        })
    };
    let processor = json!({
        "kind": "cpu",
        "name": cpu.model,
        "available": true,
        "architecture": cpu.arch,
        "cores": cpu.cores,
        "threads": cpu.threads,
        "features": cpu.features,
        "kernel_sets": sets.iter().map(set).collect::<Vec<_>>(),
        "kernel_set": chosen,
        "memory_bytes": bytes(process::total_memory()),
        "available_bytes": bytes(process::available_memory()),
    });
    let other = |status: &DeviceStatus| {
        json!({
            "kind": status.device.to_string(),
            "name": status.name,
            "available": status.is_available(),
            "reason": status.reason.as_ref().or(status.only_named.as_ref()),
            "driver": status.driver,
            "memory_bytes": bytes(status.memory),
            "available_bytes": bytes(status.free),
        })
    };
    let others = selector.devices().iter().filter(|status| status.device != Device::Cpu).map(other);
    let devices: Vec<Value> = std::iter::once(processor).chain(others).collect();
    output::json(&json!({
        "chosen": selector.select(Device::Auto).device.to_string(),
        "devices": devices,
    }))
}
