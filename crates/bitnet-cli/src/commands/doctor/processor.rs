//! The processor: kernels, quotas, clocks, and who else wants it.

use bitnet_core::cpu::CpuFeatures;

use super::finding::{Finding, State};
use super::system::System;

const AREA: &str = "processor";
/// The part of a processor's time from which on it matters that others, or a quota, take it.
const MATTERS: f64 = 0.05;

/// All checks; `kernels` is the set that was asked for.
pub(super) fn findings(system: &System, kernels: Option<&str>) -> Vec<Finding> {
    let cpu = CpuFeatures::detect();
    let mut out = vec![description(&cpu), kernel_set(kernels)];
    out.extend(quota(system, cpu.threads));
    out.extend(throttling(system));
    out.extend(governor(system));
    out.extend(heat(system));
    out.extend(load(system, cpu.threads));
    if cfg!(debug_assertions) {
        let slow =
            Finding::new(AREA, "build", State::Warning, "this program was built for testing and is slow");
        out.push(slow.advise("build it with `cargo build --release`"));
    }
    out
}

fn description(cpu: &CpuFeatures) -> Finding {
    let name = cpu.model.as_deref().unwrap_or("a processor without a name");
    let message = format!("{name}: {} cores, {} threads, {}", cpu.cores, cpu.threads, cpu.features.join(" "));
    Finding::new(AREA, "features", State::Fine, message)
        .value("name", cpu.model.clone())
        .value("architecture", cpu.arch)
        .value("cores", cpu.cores)
        .value("threads", cpu.threads)
        .value("features", cpu.features.clone())
}

/// Whether the kernels compute what they should, and whether they are the fastest.
fn kernel_set(wanted: Option<&str>) -> Finding {
    let found = |state, message: String| Finding::new(AREA, "kernels", state, message);
    let (name, warnings) = match bitnet_cpu::tested_kernel_set(wanted) {
        Ok(tested) => tested,
        Err(why) => {
            return found(State::Problem, why).advise("unset BITNET_KERNELS, or leave out --kernels");
        }
    };
    let fastest = bitnet_cpu::chosen_kernel_set(None).unwrap_or(name);
    if let Some(warning) = warnings.first() {
        found(State::Problem, warning.clone())
            .advise("look for faults of memory or processor (an overclocked one?); else please report this")
    } else if name != fastest {
        found(State::Warning, format!("kernels {name} were asked for, but {fastest} are faster"))
            .advise("unset BITNET_KERNELS, or leave out --kernels")
    } else if name == "scalar" {
        found(State::Warning, "only scalar kernels run on this processor: correct, but slow".to_owned())
            .advise("x86-64 needs AVX2, FMA and F16C, which virtual machines may hide; ARM64 needs NEON")
    } else {
        found(State::Fine, format!("kernels {name}, which compute what scalar code computes"))
    }
    .value("kernels", name)
}

/// Processors that the control groups allow, if they limit that.
fn allowed(system: &System) -> Option<f64> {
    let share = |quota: &str, period: &str| -> Option<f64> {
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    };
    let unified = system.groups("cpu.max", "", "");
    let two = unified.iter().filter_map(|line| line.split_once(' ')).filter_map(|(q, p)| share(q, p));
    let quotas = system.groups("", "cpu", "cpu.cfs_quota_us");
    let periods = system.groups("", "cpu", "cpu.cfs_period_us");
    let one = quotas.iter().zip(&periods).filter_map(|(q, p)| share(q, p));
    two.chain(one).min_by(f64::total_cmp)
}

/// Whether a quota stops threads in the middle of their work.
fn quota(system: &System, threads: usize) -> Option<Finding> {
    let allowed = allowed(system)?;
    let enough = allowed >= threads as f64;
    let message = format!("the container may use {allowed:.2} processors");
    let found = if enough {
        Finding::new(AREA, "quota", State::Fine, message)
    } else {
        Finding::new(AREA, "quota", State::Warning, format!("{message}, fewer than {threads} threads need"))
            .advise(format!("use -t {}, or raise the quota (docker: --cpus)", allowed.floor().max(1.0)))
    };
    Some(found.value("processors", allowed))
}

/// How often a quota did.
fn throttling(system: &System) -> Option<Finding> {
    let stats = [system.groups("cpu.stat", "", ""), system.groups("", "cpu", "cpu.stat")].concat();
    let field = |text: &str, name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let part = |text: &String| Some((field(text, "nr_periods ")?, field(text, "nr_throttled ")?));
    let (periods, throttled) = stats.iter().filter_map(part).find(|(periods, _)| *periods > 0.0)?;
    let share = throttled / periods;
    let message = format!("the quota stopped this container in {:.0} % of its periods", 100.0 * share);
    (share > MATTERS).then(|| {
        Finding::new(AREA, "throttling", State::Warning, message)
            .advise("use fewer threads (-t), or raise the quota (docker: --cpus)")
            .value("share", share)
    })
}

/// Whether the system keeps the clock low.
fn governor(system: &System) -> Option<Finding> {
    const FOLDER: &str = "/sys/devices/system/cpu/cpu0/cpufreq";
    let of = |file: &str| system.text(&format!("{FOLDER}/{file}"));
    let governor = of("scaling_governor")?;
    let driver = of("scaling_driver").unwrap_or_default();
    let (now, most) = (
        system.number(&format!("{FOLDER}/scaling_max_freq")),
        system.number(&format!("{FOLDER}/cpuinfo_max_freq")),
    );
    // These drivers have a governor of that name that raises the clock when there is work.
    let adapts = ["intel_pstate", "amd-pstate-epp", "amd_pstate_epp"].contains(&driver.as_str());
    let saves = governor == "powersave" && !adapts
        || of("energy_performance_preference").is_some_and(|p| p == "power");
    let found = if saves {
        Finding::new(
            AREA,
            "governor",
            State::Warning,
            format!("the clock is kept low to save power (governor {governor})"),
        )
        .advise("sudo cpupower frequency-set -g performance, or choose a faster power profile")
    } else if let (Some(now), Some(most)) = (now, most)
        && (now as f64) < 0.9 * most as f64
    {
        let (now, most) = (now as f64 / 1e6, most as f64 / 1e6);
        Finding::new(
            AREA,
            "governor",
            State::Warning,
            format!("the clock is limited to {now:.2} of {most:.2} GHz"),
        )
        .advise("sudo cpupower frequency-set -u MAX, or choose a faster power profile")
    } else {
        Finding::new(AREA, "governor", State::Fine, format!("governor {governor}"))
    };
    Some(found.value("governor", governor).value("driver", driver))
}

/// Whether the processor was ever too hot.
fn heat(system: &System) -> Option<Finding> {
    const FOLDER: &str = "/sys/devices/system/cpu";
    let count =
        |name: &String| system.number(&format!("{FOLDER}/{name}/thermal_throttle/core_throttle_count"));
    let hot: u64 = system.names(FOLDER).iter().filter_map(count).fold(0, u64::saturating_add);
    (hot > 0).then(|| {
        Finding::new(
            AREA,
            "heat",
            State::Warning,
            format!("cores were too hot {hot} times since the start, and slowed down"),
        )
        .advise("look after fans and dust; fewer threads (-t) make less heat")
        .value("times", hot)
    })
}

/// Whether other programs are busy.
fn load(system: &System, threads: usize) -> Option<Finding> {
    let text = system.text("/proc/loadavg")?;
    let load: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    let found = if load > 0.5 * threads as f64 {
        let message =
            format!("other programs are busy: load {load:.1} on {threads} threads in the last minute");
        Finding::new(AREA, "load", State::Warning, message)
            .advise("speeds vary until they are done; `top` shows them")
    } else {
        Finding::new(AREA, "load", State::Fine, format!("little else runs: load {load:.1}"))
    };
    Some(found.value("load", load))
}

#[cfg(test)]
mod tests {
    use super::super::system::tests::machine;
    use super::*;

    #[test]
    fn a_machine_that_tells_nothing_has_no_faults_of_clocks() {
        let (_root, system) = machine(&[]);
        let all = findings(&system, None);
        assert!(all.iter().all(|finding| finding.state != State::Problem), "{all:?}");
        assert!(quota(&system, 2).is_none() && governor(&system).is_none() && load(&system, 2).is_none());
    }

    #[test]
    fn kernels_are_tested_and_named() {
        assert_eq!(
            kernel_set(None).state,
            if bitnet_cpu::chosen_kernel_set(None) == Ok("scalar") { State::Warning } else { State::Fine }
        );
        let unknown = kernel_set(Some("abacus"));
        assert_eq!(unknown.state, State::Problem);
        assert!(unknown.message.contains("abacus") && unknown.advice.is_some());
        if bitnet_cpu::chosen_kernel_set(None) != Ok("scalar") {
            assert!(kernel_set(Some("scalar")).message.contains("are faster"));
        }
    }

    #[test]
    fn quotas_below_the_threads_are_told() {
        let (_root, two) = machine(&[
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_periods 100\nnr_throttled 20\n"),
        ]);
        let found = quota(&two, 2).unwrap();
        assert_eq!(found.state, State::Warning);
        assert!(found.message.contains("1.50") && found.advice.unwrap().contains("-t 1"));
        assert_eq!(quota(&two, 1).unwrap().state, State::Fine);
        assert!(throttling(&two).unwrap().message.contains("20 %"));
        let (_root, one) = machine(&[
            ("/proc/self/cgroup", "3:cpu,cpuacct:/\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ]);
        assert!(quota(&one, 4).unwrap().message.contains("0.50"));
        let (_root, free) =
            machine(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")]);
        assert!(quota(&free, 4).is_none() && throttling(&free).is_none());
    }

    #[test]
    fn slow_clocks_and_heat_are_told() {
        let at = |file: &str| format!("/sys/devices/system/cpu/cpu0/cpufreq/{file}");
        let state = |files: &[(&str, &str)]| {
            let files: Vec<(String, &str)> = files.iter().map(|(file, text)| (at(file), *text)).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
            let (_root, system) = machine(&files);
            governor(&system).unwrap().state
        };
        assert_eq!(
            state(&[("scaling_governor", "powersave\n"), ("scaling_driver", "acpi-cpufreq")]),
            State::Warning
        );
        assert_eq!(
            state(&[("scaling_governor", "powersave"), ("scaling_driver", "intel_pstate")]),
            State::Fine
        );
        let saving = [
            ("scaling_governor", "powersave"),
            ("scaling_driver", "intel_pstate"),
            ("energy_performance_preference", "power"),
        ];
        assert_eq!(state(&saving), State::Warning);
        let limited = [
            ("scaling_governor", "performance"),
            ("scaling_max_freq", "1000000"),
            ("cpuinfo_max_freq", "3000000"),
        ];
        assert_eq!(state(&limited), State::Warning);
        let (_root, hot) = machine(&[
            ("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3"),
            ("/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "4"),
        ]);
        assert!(heat(&hot).unwrap().message.contains(" 7 times"));
    }

    #[test]
    fn busy_machines_are_told() {
        let (_root, system) = machine(&[("/proc/loadavg", "3.50 1.0 0.5 1/100 5\n")]);
        assert_eq!(
            (load(&system, 2).unwrap().state, load(&system, 16).unwrap().state),
            (State::Warning, State::Fine)
        );
        let (_root, odd) = machine(&[("/proc/loadavg", "\n")]);
        assert!(load(&odd, 2).is_none());
    }
}
