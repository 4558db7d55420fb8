//! Memory: how much there is, huge pages, swap, and whether a model fits.

use bitnet_core::{MemorySize, process};
use bitnet_inference::KvType;
use bitnet_model::ModelSpec;

use super::finding::{Finding, State};
use super::system::System;

const AREA: &str = "memory";
/// What a running engine takes beside weights and context: program, tokenizer, buffers.
const BESIDE: u64 = 150 << 20;
/// Version 1 of control groups says so if there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// A model that shall fit.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// What it is called.
    pub(super) name: &'a str,
    /// Its shape.
    pub(super) spec: &'a ModelSpec,
    /// Whether someone asked for it.
    pub(super) is_asked: bool,
}

/// All checks.
pub(super) fn findings(system: &System, model: Wanted<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    let free = match available(system) {
        Some(free) => {
            out.push(room(system, free));
            Some(free)
        }
        None => process::available_memory().map(MemorySize::as_bytes),
    };
    match free {
        Some(free) => out.push(fits(free, model)),
        None => out.push(Finding::new(
            AREA,
            "room",
            State::Note,
            "this system does not tell how much memory is free",
        )),
    }
    out.extend(huge_pages(system));
    out.extend(swap(system));
    out
}

/// What the control groups leave of their limit: limit and rest. Cached pages of files count as free, which they become.
fn limit(system: &System) -> Option<(u64, u64)> {
    let rest = |limits: Vec<String>, used: Vec<String>, stats: Vec<String>, cached: &str| {
        let number = |text: &String| text.parse::<u64>().ok();
        let mut out = Vec::new();
        for (index, limit) in limits.iter().enumerate() {
            let (Some(limit), Some(used)) = (number(limit), used.get(index).and_then(number)) else {
                continue;
            };
            let files = stats.get(index).and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok())
            });
            let used = used.saturating_sub(files.unwrap_or(0));
            out.push((limit, limit.saturating_sub(used)));
        }
        out
    };
    let of = |unified: &str, legacy: &str| {
        let controller = if legacy.is_empty() { "" } else { "memory" };
        system.groups(unified, controller, legacy)
    };
    let two = rest(of("memory.max", ""), of("memory.current", ""), of("memory.stat", ""), "inactive_file ");
    let one = rest(
        of("", "memory.limit_in_bytes"),
        of("", "memory.usage_in_bytes"),
        of("", "memory.stat"),
        "total_inactive_file ",
    );
    two.into_iter().chain(one).filter(|(limit, _)| *limit < NO_LIMIT).min_by_key(|(_, rest)| *rest)
}

/// Bytes that a program can still have.
fn available(system: &System) -> Option<u64> {
    let machine = system.memory("MemAvailable")?;
    Some(limit(system).map_or(machine, |(_, rest)| rest.min(machine)))
}

fn room(system: &System, free: u64) -> Finding {
    let total = system.memory("MemTotal").unwrap_or(free);
    let size = MemorySize::bytes;
    let mut message = format!("{} of {} are free", size(free), size(total));
    let limit = limit(system).map(|(limit, _)| limit).filter(|limit| *limit < total);
    if let Some(limit) = limit {
        message = format!(
            "{} are free: the container may use {} of the machine's {}",
            size(free),
            size(limit),
            size(total)
        );
    }
    Finding::new(AREA, "room", State::Fine, message)
        .value("total_bytes", total)
        .value("available_bytes", free)
        .value("container_limit_bytes", limit)
}

/// Bytes that a model takes without its context, and with all of it.
fn needs(spec: &ModelSpec) -> (u64, u64) {
    // Two bits a ternary weight, int8 rows of the output layer.
    let weights = spec.ternary_parameters() / 4 + (spec.vocab_size * spec.hidden_size) as u64;
    let element = match KvType::default() {
        KvType::F32 => 4,
        KvType::F16 => 2,
        KvType::Int8 => 1,
    };
    let context = (2 * spec.num_layers * spec.kv_size() * element * spec.context_length) as u64;
    (weights + BESIDE, weights + BESIDE + context)
}

fn fits(free: u64, Wanted { name, spec, is_asked }: Wanted<'_>) -> Finding {
    let (least, most) = needs(spec);
    let (size, full) = (MemorySize::bytes, spec.context_length);
    let found = if free < least {
        let message = format!("too little for {name}, which needs about {}", size(least));
        let state = if is_asked { State::Problem } else { State::Warning };
        Finding::new(AREA, "model", state, message).advise("end other programs, or choose a smaller model")
    } else if free < most {
        let message = format!(
            "enough for {name} ({}), but not for all its context of {full} tokens ({})",
            size(least),
            size(most)
        );
        Finding::new(AREA, "model", State::Warning, message)
            .advise("lower --ctx-size, or keep the context in less with --kv-type int8")
    } else {
        Finding::new(
            AREA,
            "model",
            State::Fine,
            format!("enough for {name} with all its context of {full} tokens: about {}", size(most)),
        )
    };
    found.value("model", name).value("weights_bytes", least).value("with_context_bytes", most)
}

/// Whether large buffers lie on huge pages.
fn huge_pages(system: &System) -> Option<Finding> {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = system.text(FILE)?;
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or(text.as_str(), |(chosen, _)| chosen);
    let found = if chosen == "never" {
        Finding::new(
            AREA,
            "huge_pages",
            State::Warning,
            "huge pages are off, which makes large models slower",
        )
        .advise(format!("echo madvise | sudo tee {FILE}"))
    } else {
        Finding::new(AREA, "huge_pages", State::Fine, format!("huge pages are there for who asks ({chosen})"))
    };
    Some(found.value("setting", chosen))
}

/// Whether weights may be on a disk when they are needed.
fn swap(system: &System) -> Option<Finding> {
    let (total, free) = (system.memory("SwapTotal")?, system.memory("SwapFree")?);
    let used = total.saturating_sub(free);
    let (memory, rest) = (system.memory("MemTotal")?, system.memory("MemAvailable")?);
    let size = MemorySize::bytes;
    let found = if total == 0 {
        Finding::new(
            AREA,
            "swap",
            State::Note,
            "there is no swap: nothing is slowed down by it, and nothing helps when memory runs out",
        )
    } else if used > total / 2 && rest < memory / 5 {
        let message = format!(
            "{} of {} swap are in use and memory is short: weights may be swapped out",
            size(used),
            size(total)
        );
        Finding::new(AREA, "swap", State::Warning, message)
            .advise("end other programs before a large model is loaded")
    } else {
        Finding::new(AREA, "swap", State::Fine, format!("{} of {} swap are in use", size(used), size(total)))
    };
    Some(found.value("total_bytes", total).value("used_bytes", used))
}

#[cfg(test)]
mod tests {
    use bitnet_model::synth::ShapePreset;

    use super::super::system::tests::machine;
    use super::*;

    const PLENTY: &str =
        "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

    fn states(system: &System) -> Vec<(String, State)> {
        let spec = ShapePreset::B2_4T.spec();
        let all = findings(system, Wanted { name: "the model", spec: &spec, is_asked: true });
        all.iter().map(|f| (f.json()["check"].as_str().unwrap().to_owned(), f.state)).collect()
    }

    #[test]
    fn what_is_there_and_what_is_needed() {
        let (least, most) = needs(&ShapePreset::B2_4T.spec());
        assert!((900 << 20..1100 << 20).contains(&least), "{least}");
        assert_eq!(most - least, 4096 * 75 * 1024);
        let (_root, system) = machine(&[
            ("/proc/meminfo", PLENTY),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let expected = [
            ("room", State::Fine),
            ("model", State::Fine),
            ("huge_pages", State::Fine),
            ("swap", State::Note),
        ];
        assert_eq!(states(&system), expected.map(|(name, state)| (name.to_owned(), state)));
    }

    #[test]
    fn little_memory_is_told() {
        let spec = ShapePreset::B2_4T.spec();
        let wanted = |is_asked| Wanted { name: "m", spec: &spec, is_asked };
        let state = |free: u64| fits(free, wanted(true)).state;
        let (least, most) = needs(&spec);
        assert_eq!(
            [state(least - 1), state(least), state(most)],
            [State::Problem, State::Warning, State::Fine]
        );
    }

    #[test]
    fn limits_of_containers_count() {
        let (_root, two) = machine(&[
            ("/proc/meminfo", PLENTY),
            ("/proc/self/cgroup", "0::/box\n"),
            ("/sys/fs/cgroup/box/memory.max", "1000000000\n"),
            ("/sys/fs/cgroup/box/memory.current", "500000000\n"),
            ("/sys/fs/cgroup/box/memory.stat", "anon 5\ninactive_file 100000000\n"),
        ]);
        assert_eq!((available(&two), limit(&two)), (Some(600_000_000), Some((1_000_000_000, 600_000_000))));
        assert!(states(&two).contains(&("model".to_owned(), State::Problem)));
        let (_root, one) = machine(&[
            ("/proc/meminfo", PLENTY),
            ("/proc/self/cgroup", "1:memory:/x\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5"),
        ]);
        assert_eq!((available(&one), limit(&one)), (Some(12_000_000 * 1024), None));
    }

    #[test]
    fn huge_pages_that_are_off_and_swap_in_use_are_told() {
        let (_root, system) = machine(&[
            (
                "/proc/meminfo",
                "MemTotal: 1000 kB\nMemAvailable: 100 kB\nSwapTotal: 1000 kB\nSwapFree: 10 kB\n",
            ),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"),
        ]);
        let off = huge_pages(&system).unwrap();
        assert_eq!((off.state, swap(&system).unwrap().state), (State::Warning, State::Warning));
        assert!(off.advice.unwrap().contains("transparent_hugepage/enabled"));
        let (_root, nothing) = machine(&[]);
        assert!(huge_pages(&nothing).is_none() && swap(&nothing).is_none());
        assert!(!states(&nothing).is_empty());
    }
}
