//! The names that llama-server has for what both servers count, so that its dashboards work.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitnet_inference::scheduler::SchedulerStats;

use super::engines::usage;
use crate::state::AppState;

/// Sums over all models.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    prompt_tokens: AtomicU64,
    prompt_nanos: AtomicU64,
    generated_tokens: AtomicU64,
    generated_nanos: AtomicU64,
    longest: AtomicU64,
}

impl Totals {
    /// Adds a completion: tokens computed of its prompt and tokens generated, with the times they took.
    pub(crate) fn add(&self, prompt: (usize, Duration), generated: (usize, Duration), context: usize) {
        let add = |sum: &AtomicU64, n: u64| sum.fetch_add(n, Ordering::Relaxed);
        add(&self.prompt_tokens, prompt.0 as u64);
        add(&self.prompt_nanos, prompt.1.as_nanos() as u64);
        add(&self.generated_tokens, generated.0 as u64);
        add(&self.generated_nanos, generated.1.as_nanos() as u64);
        self.longest.fetch_max(context as u64, Ordering::Relaxed);
    }
}

/// Tokens a second.
fn rate(tokens: u64, nanos: u64) -> f64 {
    if nanos == 0 { 0.0 } else { tokens as f64 / (nanos as f64 * 1e-9) }
}

pub(super) fn render(state: &AppState) -> String {
    let totals = &state.metrics().totals;
    let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    let (prompt, generated) = (read(&totals.prompt_tokens), read(&totals.generated_tokens));
    let (prompt_nanos, generated_nanos) = (read(&totals.prompt_nanos), read(&totals.generated_nanos));
    let engines: Vec<SchedulerStats> =
        state.registry().loaded().iter().map(|(_, engine)| engine.scheduler().stats()).collect();
    let sum = |count: fn(&SchedulerStats) -> usize| engines.iter().map(count).sum::<usize>() as f64;
    let mut out = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(
            out,
            "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n"
        );
    };
    line("prompt_tokens_total", "counter", "Tokens of prompts computed", prompt as f64);
    line("prompt_seconds_total", "counter", "Time that prompts took", prompt_nanos as f64 * 1e-9);
    line("tokens_predicted_total", "counter", "Tokens generated", generated as f64);
    line(
        "tokens_predicted_seconds_total",
        "counter",
        "Time that generation took",
        generated_nanos as f64 * 1e-9,
    );
    line("prompt_tokens_seconds", "gauge", "Tokens of prompts a second", rate(prompt, prompt_nanos));
    line("predicted_tokens_seconds", "gauge", "Tokens generated a second", rate(generated, generated_nanos));
    line("n_tokens_max", "gauge", "Longest context so far", read(&totals.longest) as f64);
    line("requests_processing", "gauge", "Completions being computed", sum(|stats| stats.running));
    line("requests_deferred", "gauge", "Requests that wait", sum(|stats| stats.queued));
    line(
        "n_decode_total",
        "counter",
        "Forward calls",
        engines.iter().map(|stats| stats.steps).sum::<u64>() as f64,
    );
    let tokens = sum(|stats| stats.blocks_in_use * stats.block_size);
    line("kv_cache_tokens", "gauge", "Tokens whose keys and values are kept for requests", tokens);
    let ratio = engines.iter().map(usage).fold(0.0, f64::max);
    line("kv_cache_usage_ratio", "gauge", "Part of the KV cache in use, of the fullest model", ratio);
    out
}
