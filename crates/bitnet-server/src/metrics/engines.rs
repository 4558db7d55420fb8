//! What the engines' schedulers say of themselves, read when `/metrics` is asked for.

use bitnet_inference::scheduler::SchedulerStats;
use metrics::Recorder;

use super::{Metrics, key, metadata};
use crate::state::AppState;

impl Metrics {
    /// Reads the schedulers of all loaded models.
    pub(super) fn read_engines(&self, state: &AppState) {
        for (id, engine) in state.registry().loaded() {
            self.read_engine(&id, &engine.scheduler().stats());
        }
    }

    fn read_engine(&self, model: &str, stats: &SchedulerStats) {
        let gauge = |name, help, value: f64| self.gauge(name, &[("model", model)], help).set(value);
        let count = |name: &'static str, help: &'static str, value: u64| {
            self.recorder.describe_counter(name.into(), None, help.into());
            let counter = self.recorder.register_counter(&key(name, &[("model", model)]), &metadata());
            counter.absolute(value);
        };
        gauge("bitnet_queue_length", "Requests that wait", stats.queued as f64);
        gauge("bitnet_queue_capacity", "Requests that may wait", stats.queue_capacity as f64);
        gauge("bitnet_running", "Completions that are computed together", stats.running as f64);
        gauge("bitnet_running_limit", "Completions that may be computed together", stats.max_running as f64);
        gauge("bitnet_kv_blocks", "Blocks for keys and values there may be", stats.blocks_total as f64);
        gauge("bitnet_kv_blocks_used", "Blocks in use", stats.blocks_in_use as f64);
        gauge("bitnet_kv_blocks_cached", "Blocks kept to be found again", stats.blocks_cached as f64);
        gauge("bitnet_kv_usage_ratio", "Part of the blocks that is in use", usage(stats));
        count("bitnet_prefix_hit_tokens_total", "Tokens of prompts found computed", stats.prefix_hit_tokens);
        count("bitnet_speculation_drafted_total", "Tokens guessed by speculation", stats.drafted);
        count("bitnet_speculation_accepted_total", "Guessed tokens that were right", stats.accepted);
        count("bitnet_preemptions_total", "Sequences that gave up their blocks", stats.preemptions);
        count("bitnet_steps_total", "Forward calls", stats.steps);
        count("bitnet_rejected_total", "Requests refused as too many waited", stats.rejected);
        let acceptance = if stats.drafted == 0 { 0.0 } else { stats.accepted as f64 / stats.drafted as f64 };
        gauge("bitnet_speculation_acceptance_ratio", "Part of the guessed tokens that was right", acceptance);
    }
}

/// The part of the blocks that is in use.
pub(super) fn usage(stats: &SchedulerStats) -> f64 {
    if stats.blocks_total == 0 { 0.0 } else { stats.blocks_in_use as f64 / stats.blocks_total as f64 }
}
