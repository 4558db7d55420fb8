//! GPUs and their drivers: what is there, and whether models run on it.

use std::ffi::OsString;
use std::path::PathBuf;

use bitnet_inference::{Device, DeviceSelector};

use super::finding::{Finding, State};
use super::system::System;

const AREA: &str = "gpu";

/// Folders where libraries of drivers lie.
const LIBRARIES: [&str; 10] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/local/lib",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/Windows/System32",
];

/// All checks; `programs` is what `PATH` says.
pub(super) fn findings(system: &System, programs: Option<OsString>) -> Vec<Finding> {
    let selector = DeviceSelector::new();
    let unused = |device: Device, is_there: bool| {
        let reason = selector.devices().iter().find(|status| same(status.device, device));
        let reason = reason.and_then(|status| status.reason.as_deref());
        match (is_there, reason) {
            (true, Some(why)) => format!("; not used: {why}"),
            _ => String::new(),
        }
    };
    let (cards, driver) = (nvidia_cards(system), nvidia_driver(system));
    let library = library(system, &["libcuda.so.1", "libcuda.so", "nvcuda.dll"]);
    let tool = program(system, programs, &["nvidia-smi", "nvidia-smi.exe"]);
    let is_there = !cards.is_empty() || driver.is_some() || library.is_some();
    let message = if is_there {
        let parts = [
            match cards.len() {
                0 => "no device file in /dev".to_owned(),
                n => format!("{n} device{}", if n == 1 { "" } else { "s" }),
            },
            driver
                .as_ref()
                .map_or_else(|| "no kernel driver".to_owned(), |version| format!("driver {version}")),
            (if library.is_some() { "libcuda" } else { "no libcuda" }).to_owned(),
            (if tool.is_some() { "nvidia-smi" } else { "no nvidia-smi" }).to_owned(),
        ];
        format!("NVIDIA: {}{}", parts.join(", "), unused(Device::Cuda(0), true))
    } else {
        "NVIDIA: no GPU and no driver".to_owned()
    };
    let nvidia = Finding::new(AREA, "nvidia", State::Note, message)
        .value("devices", cards)
        .value("driver", driver)
        .value("libcuda", library.map(|path| path.display().to_string()))
        .value("nvidia_smi", tool.map(|path| path.display().to_string()))
        .value("used", selector.is_cuda_available());
    vec![nvidia, vulkan(system, &unused, selector.is_wgpu_available())]
}

fn same(a: Device, b: Device) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

fn vulkan(system: &System, unused: &dyn Fn(Device, bool) -> String, used: bool) -> Finding {
    let loader = library(system, &["libvulkan.so.1", "libvulkan.so", "vulkan-1.dll"]);
    let nodes: Vec<String> =
        system.names("/dev/dri").into_iter().filter(|name| name.starts_with("render")).collect();
    let drivers: Vec<String> =
        ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"]
            .iter()
            .flat_map(|folder| system.names(folder))
            .filter(|name| name.ends_with(".json"))
            .collect();
    let message = match (&loader, drivers.len()) {
        (None, _) => "Vulkan: no loader".to_owned(),
        (Some(_), n) => {
            format!(
                "Vulkan: loader, {n} drivers, {} GPUs in /dev/dri{}",
                nodes.len(),
                unused(Device::Vulkan, n > 0)
            )
        }
    };
    Finding::new(AREA, "vulkan", State::Note, message)
        .value("loader", loader.map(|path| path.display().to_string()))
        .value("drivers", drivers)
        .value("devices", nodes)
        .value("used", used)
}

/// The device files of cards: `nvidia0`, `nvidia1`, ...
fn nvidia_cards(system: &System) -> Vec<String> {
    let is_card = |name: &String| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    system.names("/dev").into_iter().filter(is_card).collect()
}

/// The version of the kernel driver.
fn nvidia_driver(system: &System) -> Option<String> {
    let text = system.text("/proc/driver/nvidia/version")?;
    let is_version =
        |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Some(text.split_ascii_whitespace().find(is_version).unwrap_or("of unknown version").to_owned())
}

fn library(system: &System, names: &[&str]) -> Option<PathBuf> {
    let places = LIBRARIES.iter().flat_map(|folder| names.iter().map(move |name| format!("{folder}/{name}")));
    places.map(|place| system.path(&place)).find(|path| path.exists())
}

fn program(system: &System, programs: Option<OsString>, names: &[&str]) -> Option<PathBuf> {
    let programs = programs?;
    let folders = std::env::split_paths(&programs).filter_map(|folder| folder.to_str().map(str::to_owned));
    let mut places = folders.flat_map(|folder| names.iter().map(move |name| format!("{folder}/{name}")));
    places.find_map(|place| Some(system.path(&place)).filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::super::system::tests::machine;
    use super::*;

    #[test]
    fn a_machine_without_gpus_is_fine() {
        let (_root, system) = machine(&[]);
        let all = findings(&system, None);
        assert!(all.iter().all(|finding| finding.state == State::Note), "{all:?}");
        assert!(all[0].message.contains("no GPU") && all[1].message.contains("no loader"));
    }

    #[test]
    fn drivers_are_found_by_their_files() {
        let (_root, system) = machine(&[
            ("/dev/nvidia0", ""),
            ("/dev/nvidiactl", ""),
            (
                "/proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Tue\nGCC version: 12.2.0\n",
            ),
            ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", ""),
            ("/opt/bin/nvidia-smi", ""),
            ("/usr/lib64/libvulkan.so.1", ""),
            ("/usr/share/vulkan/icd.d/lvp_icd.json", "{}"),
            ("/dev/dri/renderD128", ""),
        ]);
        let all = findings(&system, Some("/usr/bin:/opt/bin".into()));
        let nvidia = &all[0].message;
        for part in ["1 device,", "driver 580.65.06", ", libcuda", ", nvidia-smi"] {
            assert!(nvidia.contains(part), "{part}: {nvidia}");
        }
        assert!(all[1].message.contains("1 drivers, 1 GPUs"), "{}", all[1].message);
        if !DeviceSelector::new().is_cuda_available() {
            assert!(nvidia.contains("not used: "), "{nvidia}");
        }
        let (_root, half) = machine(&[("/dev/nvidia0", "")]);
        assert!(findings(&half, None)[0].message.contains("no libcuda"));
    }
}
