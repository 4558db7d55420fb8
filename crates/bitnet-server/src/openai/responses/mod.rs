//! `/v1/responses`, without memory: every request brings all it needs, and nothing is kept.

mod events;
mod input;
mod object;

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bitnet_inference::Constraint;
use serde_json::{Value, json};

use self::events::Events;
use self::object::Told;
use super::answer::{Answer, Happening};
use super::envelope::Envelope;
use super::request::{Body, list, model, object, read};
use super::task::Task;
use super::{format, sse};
use crate::common::fields::{self, find};
use crate::common::pieces::Pieces;
use crate::common::reply::Parts;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// Answers a conversation.
pub(super) async fn respond(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<Body>,
) -> Result<Response, ApiError> {
    refuse_memory(&body)?;
    let stream = read(&body, "stream", fields::truth)?.unwrap_or(false);
    let model = state.model(model(&body)?).await?;
    let engine = model.engine();
    let messages = input::read(&body, engine.model().chat_template.as_ref())?;
    let mut task = Task::new(engine, &body, messages, answer_format(&body)?)?;
    task.request.n = 1;
    task.request.logprobs = logprobs(&body)?;
    let tokenizer = engine.tokenizer().ok().cloned();
    let running = model.start(task.request.clone(), &context).await?;
    let mut answer = Answer::new(vec![running], || Parts::new(task.parser(), tokenizer.clone()));
    let envelope = Envelope::new("resp_", &model);
    let pieces = task.request.logprobs.map(|_| Pieces::of(engine));
    let mut events = Events::new(Told::new(&envelope, &body, engine, &task), pieces);
    if stream {
        let waiting = events.begin().into();
        return Ok(sse::response(ResponseStream { answer, events, waiting, ended: false }));
    }
    events.begin();
    while let Some(happening) = answer.next().await? {
        if let Happening::Part { part, .. } = happening {
            events.part(part);
        }
    }
    events.end(&answer.usage);
    Ok(Json(events.response()).into_response())
}

/// What would need a memory of earlier responses is refused, as is what would need one of this. `store` is not an error
/// since clients send it without being asked; that nothing is stored the response says.
fn refuse_memory(body: &Body) -> Result<(), ApiError> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if find(body, &[name]).is_some() {
            let message = format!(
                "{name} is not possible: this server keeps no responses; send the whole conversation as input"
            );
            return Err(ApiError::bad_param(name, message));
        }
    }
    if read(body, "background", fields::truth)? == Some(true) {
        let message = "background is not possible: this server keeps no responses; use a stream";
        return Err(ApiError::bad_param("background", message));
    }
    Ok(())
}

fn answer_format(body: &Body) -> Result<Option<Constraint>, ApiError> {
    let text = read(body, "text", object)?;
    let format = text.and_then(|text| find(text, &["format"]));
    Ok(format.map(|(_, format)| format::constraint("text.format", format)).transpose()?.flatten())
}

/// Log probabilities are asked for by `include`; `top_logprobs` says of how many alternatives.
fn logprobs(body: &Body) -> Result<Option<usize>, ApiError> {
    let top = read(body, "top_logprobs", fields::count)?;
    if let Some(top) = top.filter(|&top| top > 20) {
        let message = format!("top_logprobs = {top} is not possible: it must be from 0 to 20");
        return Err(ApiError::bad_param("top_logprobs", message));
    }
    let include = read(body, "include", list)?.unwrap_or_default();
    let included = include.iter().any(|name| name == "message.output_text.logprobs");
    Ok(included.then(|| top.unwrap_or(0)))
}

/// A response as a stream of events.
struct ResponseStream {
    answer: Answer,
    events: Events,
    waiting: VecDeque<(&'static str, Value)>,
    ended: bool,
}

impl sse::Source for ResponseStream {
    async fn next(&mut self) -> Option<String> {
        loop {
            if !self.waiting.is_empty() {
                return Some(self.waiting.drain(..).map(|(name, event)| sse::named(name, &event)).collect());
            }
            if self.ended {
                return None;
            }
            let next = self.answer.next().await;
            match next {
                Ok(Some(Happening::Part { part, .. })) => self.waiting.extend(self.events.part(part)),
                Ok(Some(Happening::Progress { .. })) => {}
                Ok(None) => {
                    self.ended = true;
                    self.waiting.extend(self.events.end(&self.answer.usage));
                }
                Err(error) => {
                    self.ended = true;
                    self.waiting.extend(self.events.fail(&error));
                }
            }
        }
    }
}

/// The `error` of a response that failed.
fn told_error(error: &ApiError) -> Value {
    json!({"code": error.code.as_deref().unwrap_or(error.kind), "message": error.message})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_needs_a_memory() {
        for (body, param) in [
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": {"id": "c"}}), "conversation"),
            (json!({"background": true}), "background"),
        ] {
            let error = refuse_memory(body.as_object().unwrap()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)));
        }
        let fine = json!({"store": true, "previous_response_id": null, "background": false});
        assert_eq!(refuse_memory(fine.as_object().unwrap()), Ok(()));
    }

    #[test]
    fn formats_and_log_probabilities() {
        let body = json!({"text": {"format": {"type": "json_object"}}, "include": ["message.output_text.logprobs"], "top_logprobs": 2});
        let body = body.as_object().unwrap();
        assert_eq!(answer_format(body).unwrap(), Some(Constraint::JsonObject));
        assert_eq!(logprobs(body).unwrap(), Some(2));
        let plain = json!({"text": {}, "top_logprobs": 2});
        assert_eq!(answer_format(plain.as_object().unwrap()).unwrap(), None);
        assert_eq!(logprobs(plain.as_object().unwrap()).unwrap(), None);
        let wrong = json!({"text": {"format": "json"}});
        assert_eq!(
            answer_format(wrong.as_object().unwrap()).unwrap_err().param.as_deref(),
            Some("text.format")
        );
    }
}
