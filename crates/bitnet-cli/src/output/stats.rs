//! The closing line of statistics, its longer form, and both as JSON.

use std::time::Duration;

use bitnet_core::{MemorySize, process};
use bitnet_inference::{FinishReason, Generation, InferenceEngine, KvType};
use serde_json::json;

use super::Notes;

/// Facts about an engine that statistics name, as they are at the end of a generation.
#[derive(Debug)]
pub(crate) struct EngineFacts {
    load: Duration,
    weights: MemorySize,
    in_file: MemorySize,
    kv: MemorySize,
    kv_type: KvType,
    kv_per_token: MemorySize,
    context: usize,
    executor: String,
    peak: Option<MemorySize>,
    resident: Option<MemorySize>,
}

impl EngineFacts {
    pub(crate) fn of(engine: &InferenceEngine) -> Self {
        Self {
            load: engine.load_time(),
            weights: engine.info().weight_bytes,
            in_file: engine.info().file_bytes,
            kv: engine.kv_memory(),
            kv_type: engine.info().kv_type,
            kv_per_token: engine.info().kv_bytes_per_token(),
            context: engine.context(),
            executor: engine.info().description.clone(),
            peak: process::peak_resident(),
            resident: process::resident(),
        }
    }

    /// Resident memory that is not weights.
    fn beside_weights(&self) -> Option<MemorySize> {
        let bytes = self.resident?.as_bytes().saturating_sub(self.weights.as_bytes());
        Some(MemorySize::bytes(bytes))
    }
}

/// A time in the unit that suits it.
fn time(t: Duration) -> String {
    match t.as_secs_f64() {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A number with as many digits as matter.
pub(crate) fn rate(r: f64) -> String {
    if r < 100.0 { format!("{r:.1}") } else { format!("{r:.0}") }
}

fn size(size: Option<MemorySize>) -> String {
    size.map_or_else(|| "unknown".to_owned(), |s| s.to_string())
}

fn finish(reason: &FinishReason) -> String {
    match reason {
        FinishReason::Stop => "the model stopped".to_owned(),
        FinishReason::StopString(text) => format!("stopped at {text:?}"),
        FinishReason::Length => "reached -n".to_owned(),
        FinishReason::ContextFull => "context full".to_owned(),
        FinishReason::Cancelled => "interrupted".to_owned(),
    }
}

/// Prints the closing line, and with `all` what the engine took as well.
pub(crate) fn print_stats(notes: Notes, generation: &Generation, facts: &EngineFacts, all: bool) {
    let s = &generation.stats;
    let cached = if s.cached_tokens > 0 { format!(" ({} cached)", s.cached_tokens) } else { String::new() };
    notes.say(&format!(
        "[prompt {} tokens{cached}, {} tok/s | generated {} tokens, {} tok/s, {:.3} ms/token | first token {} | \
         peak memory {} | seed {} | {}]",
        s.prompt_tokens,
        rate(s.prompt_tokens_per_second()),
        s.generated_tokens,
        rate(s.tokens_per_second()),
        s.ms_per_token(),
        time(s.time_to_first_token),
        size(facts.peak),
        s.seed,
        finish(&generation.finish),
    ));
    if !all {
        return;
    }
    let mut weights = facts.weights.to_string();
    if facts.in_file > MemorySize::bytes(0) {
        weights += &format!(" (and {} left in the file)", facts.in_file);
    }
    let rows = [
        ("executor", facts.executor.clone()),
        ("load time", time(facts.load)),
        ("weights", weights),
        ("KV cache", format!("{} reserved (context {})", facts.kv, facts.context)),
        ("  each token", format!("{} ({})", facts.kv_per_token, facts.kv_type)),
        ("resident memory", size(facts.resident)),
        ("  beside the weights", size(facts.beside_weights())),
        ("peak memory", size(facts.peak)),
        ("prompt time", time(s.prefill)),
        ("generation time", time(s.decode)),
    ];
    for (name, value) in rows {
        notes.say(&format!("{name:<22}{value}"));
    }
}

/// What an answer took, in the lines that users of ollama know.
#[derive(Debug)]
pub(crate) struct Timings<'a> {
    pub(crate) load: Duration,
    pub(crate) generation: &'a Generation,
}

impl std::fmt::Display for Timings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = &self.generation.stats;
        let evaluated = s.prompt_tokens - s.cached_tokens;
        let rows = [
            ("total duration", time(s.time_to_first_token + s.decode)),
            ("load duration", time(self.load)),
            ("prompt eval count", format!("{evaluated} token(s)")),
            ("prompt eval duration", time(s.prefill)),
            ("prompt eval rate", format!("{:.2} tokens/s", s.prompt_tokens_per_second())),
            ("eval count", format!("{} token(s)", s.generated_tokens)),
            ("eval duration", time(s.decode)),
            ("eval rate", format!("{:.2} tokens/s", s.tokens_per_second())),
        ];
        let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<22}{value}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The same for machines.
pub(crate) fn stats_json(generation: &Generation, facts: &EngineFacts) -> serde_json::Value {
    let s = &generation.stats;
    let ms = |t: Duration| t.as_secs_f64() * 1e3;
    let bytes = |size: Option<MemorySize>| size.map(MemorySize::as_bytes);
    json!({
        "prompt_tokens": s.prompt_tokens,
        "cached_tokens": s.cached_tokens,
        "generated_tokens": s.generated_tokens,
        "prompt_tokens_per_second": s.prompt_tokens_per_second(),
        "tokens_per_second": s.tokens_per_second(),
        "ms_per_token": s.ms_per_token(),
        "time_to_first_token_ms": ms(s.time_to_first_token),
        "prompt_ms": ms(s.prefill),
        "generation_ms": ms(s.decode),
        "load_ms": ms(facts.load),
        "executor": facts.executor,
        "context": facts.context,
        "weight_bytes": facts.weights.as_bytes(),
        "weight_bytes_in_file": facts.in_file.as_bytes(),
        "kv_bytes": facts.kv.as_bytes(),
        "kv_type": facts.kv_type.name(),
        "kv_bytes_per_token": facts.kv_per_token.as_bytes(),
        "resident_bytes": bytes(facts.resident),
        "resident_beside_weights_bytes": bytes(facts.beside_weights()),
        "peak_bytes": bytes(facts.peak),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_in_fitting_units() {
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(time(Duration::from_millis(123)), "123 ms");
        assert_eq!(time(Duration::from_millis(1500)), "1.50 s");
        assert_eq!((rate(12.34), rate(1234.5)), ("12.3".to_owned(), "1234".to_owned()));
    }
}
