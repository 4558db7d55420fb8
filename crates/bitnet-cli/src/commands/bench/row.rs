//! [`Row`]: the figures of one test with what they belong to, and [`Machine`].

use std::time::{Duration, SystemTime};

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::{MemorySize, process};
use bitnet_inference::InferenceEngine;
use bitnet_inference::benchmark::{BenchmarkResult, BenchmarkTest};
use serde_json::{Map, Value, json};

/// What was measured on.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) cpu: CpuFeatures,
    pub(super) memory: Option<MemorySize>,
}

impl Machine {
    pub(super) fn detect() -> Self {
        Self { cpu: CpuFeatures::detect(), memory: process::total_memory() }
    }

    /// Name of the processor.
    pub(super) fn cpu_name(&self) -> &str {
        self.cpu.model.as_deref().unwrap_or("unknown processor")
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let memory = self.memory.map_or_else(String::new, |m| format!(", {m}"));
        format!(
            "{} ({}, {} cores, {} threads{memory})",
            self.cpu_name(),
            self.cpu.arch,
            self.cpu.cores,
            self.cpu.threads
        )
    }
}

/// One test of one engine.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) model: String,
    place: String,
    format: String,
    pub(super) weights: MemorySize,
    pub(super) parameters: u64,
    /// What computes, the first word of its description: `CPU`, `CUDA`, ...
    pub(super) backend: String,
    pub(super) kernels: &'static str,
    pub(super) threads: usize,
    pub(super) result: BenchmarkResult,
    /// Most memory of the process so far, without the buffer that measures the bandwidth.
    pub(super) peak: Option<MemorySize>,
    kv: MemorySize,
    load: Duration,
    at: SystemTime,
}

impl Row {
    pub(super) fn new(engine: &InferenceEngine, result: &BenchmarkResult, peak: Option<MemorySize>) -> Self {
        let (model, info) = (engine.model(), engine.info());
        Self {
            model: model.name.clone(),
            place: model.place.clone(),
            format: model.format.clone(),
            weights: info.weight_bytes,
            parameters: engine.spec().parameters(),
            backend: info.description.split(' ').next().unwrap_or_default().to_uppercase(),
            kernels: info.kernels,
            threads: info.threads,
            result: result.clone(),
            peak,
            kv: engine.kv_memory(),
            load: engine.load_time(),
            at: SystemTime::now(),
        }
    }

    pub(super) fn test(&self) -> &BenchmarkTest {
        &self.result.test
    }

    /// Speed that the limits allow, in tokens a second.
    pub(super) fn limit(&self) -> Option<f64> {
        let (seconds, _) = self.result.work.bound(&self.result.limits()?);
        Some(self.test().tokens() as f64 / seconds)
    }

    /// All figures by name; the names that llama-bench has are its own.
    pub(super) fn fields(&self, machine: &Machine) -> Map<String, Value> {
        let mut fields = self.identity(machine);
        fields.extend(self.figures());
        fields
    }

    /// What was measured on what.
    fn identity(&self, machine: &Machine) -> Map<String, Value> {
        let t = self.test();
        object(json!({
            "build_version": env!("CARGO_PKG_VERSION"),
            "cpu_info": machine.cpu_name(),
            "backends": self.backend,
            "kernels": self.kernels,
            "model_filename": self.place,
            "model_name": self.model,
            "model_type": self.format,
            "model_size": self.weights.as_bytes(),
            "model_n_params": self.parameters,
            "n_threads": self.threads,
            "n_batch": t.sequences,
            "n_prompt": t.prompt,
            "n_gen": t.generate,
            "n_depth": t.depth,
            "test": t.name(),
            "test_time": timestamp(self.at),
        }))
    }

    /// What came out.
    fn figures(&self) -> Map<String, Value> {
        let (r, t) = (&self.result, self.test());
        let (speed, seconds) = (r.tokens_per_second(), r.seconds());
        let first = r.first_token();
        let latency = r.latency();
        let limits = r.limits();
        let part = r.of_limit();
        let tokens = t.tokens() as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        object(json!({
            "repetitions": speed.count,
            "avg_ns": (seconds.mean * 1e9).round() as u64,
            "stddev_ns": (seconds.spread * 1e9).round() as u64,
            "avg_ts": speed.mean,
            "stddev_ts": speed.spread,
            "median_ts": speed.median,
            "first_token_ms": first.map(|f| f.mean * 1e3),
            "first_token_stddev_ms": first.map(|f| f.spread * 1e3),
            "token_p50_ms": latency.map(|l| ms(l.p50)),
            "token_p95_ms": latency.map(|l| ms(l.p95)),
            "token_p99_ms": latency.map(|l| ms(l.p99)),
            "machine_read_gb_s": limits.map(|l| l.read_bytes / 1e9),
            "machine_int8_gmac_s": limits.and_then(|l| l.macs).map(|m| m / 1e9),
            "limit_ts": self.limit(),
            "memory_limit_ts": limits.map(|l| tokens * l.read_bytes / r.work.bytes()),
            "int8_limit_ts": limits.and_then(|l| l.macs).map(|macs| tokens * macs / r.work.macs()),
            "of_limit": part.map(|(p, _)| p.mean),
            "of_limit_stddev": part.map(|(p, _)| p.spread),
            "limited_by": part.map(|(_, bound)| bound.name()),
            "work_bytes": r.work.bytes(),
            "work_macs": r.work.macs(),
            "read_gb_s": r.read_bytes() / 1e9,
            "int8_gmac_s": r.macs() / 1e9,
            "peak_bytes": self.peak.map(MemorySize::as_bytes),
            "kv_bytes": self.kv.as_bytes(),
            "load_ms": ms(self.load),
        }))
    }

    /// What has no place in a table of one value a column: the repetitions.
    pub(super) fn samples(&self) -> Map<String, Value> {
        let r = &self.result;
        let nanoseconds = |t: Duration| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
        let total: Vec<u64> = r.repetitions.iter().map(|r| nanoseconds(r.total())).collect();
        let speed: Vec<f64> = r.samples().collect();
        let limits = |of: fn(&bitnet_inference::benchmark::Limits) -> Option<f64>| -> Vec<Option<f64>> {
            r.repetitions.iter().map(|r| r.limits.as_ref().and_then(of).map(|v| v / 1e9)).collect()
        };
        let mut map = Map::new();
        map.insert("samples_ns".to_owned(), json!(total));
        map.insert("samples_ts".to_owned(), json!(speed));
        map.insert("samples_machine_read_gb_s".to_owned(), json!(limits(|l| Some(l.read_bytes))));
        map.insert("samples_machine_int8_gmac_s".to_owned(), json!(limits(|l| l.macs)));
        map
    }
}

/// The fields of what was written as an object.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// A time as `2026-11-25T13:05:09Z`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day that are `days` after the first of January 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        (days, year) = (days - length, year + 1);
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        (days, month) = (days - length, month + 1);
    }
    (year, month, days + 1)
}

#[cfg(test)]
pub(super) mod tests {
    use bitnet_inference::benchmark::roofline::{Phase, Work};
    use bitnet_inference::benchmark::{Limits, Repetition};

    use super::*;

    /// A row for tests, with two repetitions.
    pub(in super::super) fn row(test: BenchmarkTest, threads: usize, seconds: f64) -> Row {
        let macs = |tokens: usize| 2e9 * (tokens * test.sequences) as f64;
        let repetition = |factor: f64| Repetition {
            prompt: Duration::from_secs_f64(if test.prompt > 0 { seconds * factor } else { 0.0 }),
            steps: vec![Duration::from_secs_f64(seconds * factor / 10.0); test.generate],
            limits: Some(Limits { read_bytes: 30e9 * threads as f64, macs: Some(100e9 * threads as f64) }),
        };
        Row {
            model: "a <model>, \"quoted\" & more".to_owned(),
            place: "/models/a".to_owned(),
            format: "test".to_owned(),
            weights: MemorySize::MB(849),
            parameters: 2_412_820_480,
            backend: "CPU".to_owned(),
            kernels: "avx2",
            threads,
            result: BenchmarkResult {
                test,
                work: Work {
                    prompt: Phase { bytes: 5e8 * test.prompt.min(1) as f64, macs: macs(test.prompt) },
                    generate: Phase { bytes: 8e8 * test.generate as f64, macs: macs(test.generate) },
                },
                repetitions: vec![repetition(1.0), repetition(1.1)],
            },
            peak: Some(MemorySize::MB(900)),
            kv: MemorySize::MB(10),
            load: Duration::from_millis(1500),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    pub(in super::super) fn machine() -> Machine {
        let cpu = CpuFeatures { model: Some("A <CPU> & more".to_owned()), ..CpuFeatures::detect() };
        Machine { cpu, memory: Some(MemorySize::GB(24)) }
    }

    #[test]
    fn times_are_written_as_dates() {
        let at = |seconds| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn fields_have_the_names_of_llama_bench() {
        let row = row(BenchmarkTest { depth: 64, ..BenchmarkTest::prompt(512) }, 2, 4.0);
        let fields = row.fields(&machine());
        assert_eq!(
            (&fields["n_prompt"], &fields["n_gen"], &fields["n_depth"]),
            (&json!(512), &json!(0), &json!(64))
        );
        assert_eq!(fields["test"], "pp512 @ d64");
        assert!((fields["avg_ts"].as_f64().unwrap() - (128.0 + 128.0 / 1.1) / 2.0).abs() < 1e-9);
        assert_eq!(fields["limited_by"], "int8");
        // 1024 G multiply-adds at 200 G a second.
        assert!((fields["limit_ts"].as_f64().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(fields["token_p50_ms"], Value::Null);
        assert_eq!(row.samples()["samples_ts"].as_array().unwrap().len(), 2);
    }
}
