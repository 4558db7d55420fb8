//! [`Envelope`]: what is around the choices of a completion: the same in all chunks of a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use bitnet_inference::InferenceEngine;
use serde_json::{Map, Value, json};

use crate::common::ids::new_id;
use crate::models::ModelHandle;

/// Who answers, and when.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    fingerprint: String,
}

impl Envelope {
    /// An answer of this model that begins now; `prefix` begins its id.
    pub(super) fn new(prefix: &str, model: &ModelHandle) -> Self {
        Self {
            id: new_id(prefix),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            model: model.id().to_owned(),
            fingerprint: fingerprint(model.engine()),
        }
    }

    /// An object of this kind with these choices.
    pub(super) fn with(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(self.id));
        map.insert("object".to_owned(), json!(object));
        map.insert("created".to_owned(), json!(self.created));
        map.insert("model".to_owned(), json!(self.model));
        map.insert("system_fingerprint".to_owned(), json!(self.fingerprint));
        map.insert("choices".to_owned(), Value::Array(choices));
        map
    }

    /// The chunks of this kind that come last: the one that was held, then, if it is wanted, one with the usage. The last of
    /// them tells the times.
    pub(super) fn last_chunks(
        &self,
        object: &str,
        held: Option<Value>,
        usage: Option<Value>,
        timings: Value,
    ) -> Vec<Value> {
        let mut chunks: Vec<Value> = held.into_iter().collect();
        if let Some(usage) = usage {
            let mut chunk = self.with(object, Vec::new());
            chunk.insert("usage".to_owned(), usage);
            chunks.push(Value::Object(chunk));
        }
        if let Some(last) = chunks.last_mut() {
            last["timings"] = timings;
        }
        chunks
    }

    /// A chunk of this kind that tells how much of a prompt is computed.
    pub(super) fn progress(&self, object: &str, done: usize, total: usize, cached: usize, ms: f64) -> Value {
        let mut chunk = self.with(object, Vec::new());
        let progress = json!({"total": total, "cache": cached, "processed": done, "time_ms": ms});
        chunk.insert("prompt_progress".to_owned(), progress);
        Value::Object(chunk)
    }

    /// One for tests.
    #[cfg(test)]
    pub(super) fn fixed() -> Self {
        let text = |text: &str| text.to_owned();
        Self { id: text("id-1"), created: 7, model: text("m"), fingerprint: text("fp_1") }
    }
}

/// The same for the same version of this program with the same model, and another for another: with a seed, equal
/// fingerprints mean equal texts.
fn fingerprint(engine: &InferenceEngine) -> String {
    let model = engine.model();
    let facts = format!(
        "{}\n{}\n{}\n{}\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        model.name,
        model.format,
        model.file_bytes,
        engine.context(),
        engine.info().description,
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, facts.as_bytes());
    let start: String = digest.as_ref().iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("fp_{start}")
}
