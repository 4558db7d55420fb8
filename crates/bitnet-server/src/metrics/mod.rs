//! [`Metrics`]: what the server counts, told at `/metrics` in Prometheus's text form.
//!
//! Names begin with `bitnet_`; llama-server's names are there as well, see [`llama`].

mod engines;
mod llama;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub(crate) use self::llama::Totals;
use crate::error::ServerError;
use crate::state::AppState;

/// Bounds of times to the first token, in the queue and of whole requests, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Bounds of times between tokens, in seconds.
const BETWEEN_TOKENS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 1.0, 5.0];

const REQUESTS: &str = "bitnet_requests_total";
const REQUEST_SECONDS: &str = "bitnet_request_duration_seconds";
const PANICS: &str = "bitnet_handler_panics_total";
const FIRST_TOKEN: &str = "bitnet_time_to_first_token_seconds";
const INTER_TOKEN: &str = "bitnet_inter_token_seconds";
const QUEUE_SECONDS: &str = "bitnet_queue_seconds";
const PROMPT_TOKENS: &str = "bitnet_prompt_tokens_total";
const CACHED_TOKENS: &str = "bitnet_prompt_tokens_cached_total";
const GENERATED_TOKENS: &str = "bitnet_generated_tokens_total";
const GENERATIONS: &str = "bitnet_generations_total";

/// What is counted as it happens, with the words that `/metrics` has about it.
const HELP: &[(&str, &str)] = &[
    (REQUESTS, "HTTP requests by route and status; 499: the client went away"),
    (REQUEST_SECONDS, "From the head of a request to the last byte of its answer"),
    (PANICS, "Requests that failed by a panic in their handler"),
    (FIRST_TOKEN, "From the arrival of a request to its first token"),
    (INTER_TOKEN, "From one token of a completion to its next"),
    (QUEUE_SECONDS, "From the arrival of a request to its start"),
    (PROMPT_TOKENS, "Tokens of prompts"),
    (CACHED_TOKENS, "Tokens of prompts that were computed before"),
    (GENERATED_TOKENS, "Tokens generated"),
    (GENERATIONS, "Completions by the reason of their end"),
];

/// The server's own recorder: two servers in one process do not count each other's requests.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    panics: Counter,
    models: Mutex<HashMap<Arc<str>, Arc<ModelMetrics>>>,
    pub(crate) totals: Totals,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What is counted of one model.
pub(crate) struct ModelMetrics {
    id: Arc<str>,
    pub(crate) first_token: Histogram,
    pub(crate) inter_token: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) prompt_tokens: Counter,
    pub(crate) cached_tokens: Counter,
    pub(crate) generated_tokens: Counter,
    /// Tokens of completions that ended, and the time they took.
    ended: Mutex<(usize, Duration)>,
}

impl ModelMetrics {
    /// Adds a completion that ended.
    pub(crate) fn add(&self, tokens: usize, time: Duration) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = (ended.0 + tokens, ended.1 + time);
    }

    /// Tokens a second of the mean completion, if there was one.
    pub(crate) fn rate(&self) -> Option<f64> {
        let (tokens, time) = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
    }
}

impl std::fmt::Debug for ModelMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ModelMetrics").field(&self.id).finish()
    }
}

fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, None)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for name in [FIRST_TOKEN, QUEUE_SECONDS, REQUEST_SECONDS] {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &SECONDS)?;
    }
    let between = Matcher::Full(INTER_TOKEN.to_owned());
    Ok(builder.set_buckets_for_metric(between, &BETWEEN_TOKENS)?.build_recorder())
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, ServerError> {
        let recorder = recorder().map_err(|error| ServerError::Metrics(error.to_string()))?;
        for (name, help) in HELP {
            // The words belong to the name, whatever kind of metric has it.
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        let panics = recorder.register_counter(&key(PANICS, &[]), &metadata());
        let handle = recorder.handle();
        Ok(Self { recorder, handle, panics, models: Mutex::default(), totals: Totals::default() })
    }

    /// The counters of a model.
    pub(crate) fn model(&self, id: &Arc<str>) -> Arc<ModelMetrics> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let made = models.entry(Arc::clone(id)).or_insert_with(|| {
            let labels: &[(&'static str, &str)] = &[("model", id)];
            let histogram = |name| self.recorder.register_histogram(&key(name, labels), &metadata());
            let counter = |name| self.recorder.register_counter(&key(name, labels), &metadata());
            Arc::new(ModelMetrics {
                id: Arc::clone(id),
                first_token: histogram(FIRST_TOKEN),
                inter_token: histogram(INTER_TOKEN),
                queue: histogram(QUEUE_SECONDS),
                prompt_tokens: counter(PROMPT_TOKENS),
                cached_tokens: counter(CACHED_TOKENS),
                generated_tokens: counter(GENERATED_TOKENS),
                ended: Mutex::default(),
            })
        });
        Arc::clone(made)
    }

    pub(crate) fn request_done(&self, route: &str, status: u16, took: Duration) {
        let status = status.to_string();
        let count = key(REQUESTS, &[("route", route), ("status", &status)]);
        self.recorder.register_counter(&count, &metadata()).increment(1);
        let times = key(REQUEST_SECONDS, &[("route", route)]);
        self.recorder.register_histogram(&times, &metadata()).record(took.as_secs_f64());
    }

    pub(crate) fn panicked(&self) {
        self.panics.increment(1);
    }

    /// Counts the end of a completion.
    pub(crate) fn ended(&self, model: &str, reason: &str) {
        let count = key(GENERATIONS, &[("model", model), ("reason", reason)]);
        self.recorder.register_counter(&count, &metadata()).increment(1);
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)], help: &'static str) -> Gauge {
        self.recorder.describe_gauge(name.into(), None, help.into());
        self.recorder.register_gauge(&key(name, labels), &metadata())
    }

    /// Histograms keep what was recorded in lists until these are sorted into buckets; without this they would grow.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything, in Prometheus's text form.
    pub(crate) fn render(&self, state: &AppState) -> String {
        let cache = state.registry().cache_stats();
        self.gauge("bitnet_models_loaded", &[], "Models that are loaded").set(cache.models as f64);
        let resident =
            self.gauge("bitnet_models_bytes", &[], "Memory of all models, keys and values included");
        resident.set(cache.resident_bytes as f64);
        let uptime = self.gauge("bitnet_uptime_seconds", &[], "Age of the server");
        uptime.set(state.started().elapsed().as_secs_f64());
        if let Some(memory) = bitnet_core::process::resident() {
            let gauge = self.gauge("process_resident_memory_bytes", &[], "Resident memory of the process");
            gauge.set(memory.as_bytes() as f64);
        }
        self.read_engines(state);
        self.upkeep();
        let mut text = self.handle.render();
        text.push_str(&llama::render(state));
        text
    }
}
