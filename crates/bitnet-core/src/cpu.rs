//! What the processor can do, asked once at run time.

/// Instruction sets that kernels ask for, and the processor's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Name of the processor, if the system tells.
    pub model: Option<String>,
    /// Processor architecture: `x86_64`, `aarch64`, ...
    pub arch: &'static str,
    /// Instruction set extensions that matter here and are present, in the order of their age.
    pub features: Vec<&'static str>,
    /// Threads that this process may run at once (respects affinity and container limits).
    pub threads: usize,
    /// Physical cores behind them, if the system tells; else the same number.
    pub cores: usize,
}

macro_rules! detect {
    ($macro:ident: $($feature:tt),*) => {{
        let mut found = Vec::new();
        $(if std::arch::$macro!($feature) { found.push($feature); })*
        found
    }};
}

impl CpuFeatures {
    /// Asks the processor and the operating system.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let features = detect!(is_x86_feature_detected: "sse4.1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw",
            "avx512vl", "avx512vbmi", "avx512vnni", "avx512bf16", "avxvnni", "gfni");
        #[cfg(target_arch = "x86_64")]
        let features: Vec<_> =
            features.into_iter().chain(crate::amx::is_available().then_some("amx-int8")).collect();
        #[cfg(target_arch = "aarch64")]
        let features = detect!(is_aarch64_feature_detected: "neon", "dotprod", "fp16", "i8mm", "bf16", "sve");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let features = Vec::new();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (model, cores) = describe();
        let cores = cores.unwrap_or(threads).clamp(1, threads);
        Self { model, arch: std::env::consts::ARCH, features, threads, cores }
    }

    /// Whether an extension is present.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }
}

/// Name and number of physical cores, from `/proc/cpuinfo`.
fn describe() -> (Option<String>, Option<usize>) {
    std::fs::read_to_string("/proc/cpuinfo").map_or((None, None), |text| describe_from(&text))
}

/// As [`describe`], from the text of `/proc/cpuinfo`. ARM kernels tell numbers instead of a name, and neither packages nor
/// cores: there a thread is a core.
fn describe_from(text: &str) -> (Option<String>, Option<usize>) {
    let field = |line: &str, name: &str| -> Option<String> {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    let model = text.lines().find_map(|l| field(l, "model name")).or_else(|| arm_model(text, field));
    let mut cores = std::collections::BTreeSet::new();
    let mut package = String::new();
    for line in text.lines() {
        if let Some(id) = field(line, "physical id") {
            package = id;
        } else if let Some(id) = field(line, "core id") {
            cores.insert((package.clone(), id));
        }
    }
    (model, (!cores.is_empty()).then_some(cores.len()))
}

/// The kinds of ARM cores of a processor, each once, in the order of their numbers in the system.
fn arm_model(text: &str, field: impl Fn(&str, &str) -> Option<String>) -> Option<String> {
    let hex = |text: String| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let mut names: Vec<String> = Vec::new();
    let mut implementer = 0;
    for line in text.lines() {
        if let Some(number) = field(line, "CPU implementer").and_then(hex) {
            implementer = number;
        } else if let Some(part) = field(line, "CPU part").and_then(hex) {
            let known = ARM_CORES.iter().find(|core| (core.0, core.1) == (implementer, part));
            let name = known.map_or_else(
                || format!("ARM core {part:#05x} of implementer {implementer:#04x}"),
                |core| core.2.to_owned(),
            );
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    (!names.is_empty()).then(|| names.join(" + "))
}

/// Implementer, part and name, from the main ID registers that the vendors document.
const ARM_CORES: &[(u32, u32, &str)] = &[
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd09, "Cortex-A73"),
    (0x41, 0xd0a, "Cortex-A75"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse N1"),
    (0x41, 0xd0d, "Cortex-A77"),
    (0x41, 0xd40, "Neoverse V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd44, "Cortex-X1"),
    (0x41, 0xd46, "Cortex-A510"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd48, "Cortex-X2"),
    (0x41, 0xd49, "Neoverse N2"),
    (0x41, 0xd4d, "Cortex-A715"),
    (0x41, 0xd4e, "Cortex-X3"),
    (0x41, 0xd4f, "Neoverse V2"),
    (0xc0, 0xac3, "Ampere-1"),
    (0xc0, 0xac4, "Ampere-1A"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_as_systems_tell() {
        let x86 = "model name\t: A processor\nphysical id\t: 0\ncore id\t: 0\n\n\
                   model name\t: A processor\nphysical id\t: 0\ncore id\t: 0\n\n\
                   model name\t: A processor\nphysical id\t: 1\ncore id\t: 0\n";
        assert_eq!(describe_from(x86), (Some("A processor".to_owned()), Some(2)));
        let arm = "CPU implementer\t: 0x41\nCPU part\t: 0xd05\n\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n\
                   CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nCPU implementer\t: 0x99\nCPU part\t: 0x1\n";
        let name = "Cortex-A55 + Cortex-A76 + ARM core 0x001 of implementer 0x99";
        assert_eq!(describe_from(arm), (Some(name.to_owned()), None));
        assert_eq!(describe_from(""), (None, None));
    }

    #[test]
    fn detects_something_sane() {
        let cpu = CpuFeatures::detect();
        assert!(cpu.threads >= 1 && cpu.cores >= 1 && cpu.cores <= cpu.threads);
        assert!(!cpu.has("no such feature"));
    }
}
