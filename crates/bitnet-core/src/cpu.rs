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
    let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else { return (None, None) };
    let field = |line: &str, name: &str| -> Option<String> {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    let model = text.lines().find_map(|l| field(l, "model name"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_something_sane() {
        let cpu = CpuFeatures::detect();
        assert!(cpu.threads >= 1 && cpu.cores >= 1 && cpu.cores <= cpu.threads);
        assert!(!cpu.has("no such feature"));
    }
}
