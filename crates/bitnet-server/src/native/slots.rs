//! `/slots`: what is being computed.
//!
//! The scheduler has no fixed slots: there is room for a number of sequences, and each takes a place while it runs. Places
//! are listed as slots, those in use first.

use axum::Json;
use axum::extract::{Query, State};
use bitnet_inference::scheduler::{SchedulerStats, SlotState, SlotStats};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::AppState;

/// What is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    model: Option<String>,
    /// Not 0: no free place is an error.
    fail_on_no_slot: Option<u8>,
}

/// `GET /slots`.
pub(super) async fn slots(
    State(state): State<AppState>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    if !state.config().slots {
        return Err(ApiError::not_supported(
            "this server does not tell of its slots; start it without --no-slots",
        ));
    }
    let model = state.model(asked.model.as_deref()).await?;
    let stats = model.engine().scheduler().stats();
    if asked.fail_on_no_slot.is_some_and(|fail| fail != 0) && stats.running >= stats.max_running {
        return Err(ApiError::unavailable("no slot is free"));
    }
    Ok(Json(Value::Array(list(&stats, model.engine().context()))))
}

/// All places, those in use first.
fn list(stats: &SchedulerStats, context: usize) -> Vec<Value> {
    let running: Vec<&SlotStats> =
        stats.slots.iter().filter(|slot| slot.state != SlotState::Waiting).collect();
    let places = stats.max_running.max(running.len());
    (0..places).map(|place| slot(place, running.get(place).copied(), context)).collect()
}

fn slot(place: usize, slot: Option<&SlotStats>, context: usize) -> Value {
    let Some(slot) = slot else {
        return json!({
            "id": place, "id_task": -1, "n_ctx": context, "speculative": false, "is_processing": false, "state": "idle",
            "next_token": {"has_next_token": false, "n_decoded": 0, "n_remain": -1},
        });
    };
    json!({
        "id": place,
        "id_task": slot.id,
        "request_id": slot.request_id.as_deref(),
        "n_ctx": context,
        "speculative": false,
        "is_processing": true,
        "state": slot.state.name(),
        "n_prompt_tokens": slot.prompt_tokens,
        "n_prompt_tokens_processed": slot.computed_tokens.min(slot.prompt_tokens),
        "seconds": slot.started.elapsed().as_secs_f64(),
        "next_token": {"has_next_token": true, "n_decoded": slot.generated_tokens, "n_remain": -1},
    })
}
