//! `/v1/chat/completions`.

mod chunks;
mod whole;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use self::chunks::Chunks;
use self::whole::Whole;
use super::answer::{Answer, Happening};
use super::envelope::Envelope;
use super::request::{Body, Delivery, model, read};
use super::task::Task;
use super::{format, logprobs, messages, sse};
use crate::common::pieces::Pieces;
use crate::common::reply::Parts;
use crate::common::timings::timings;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// Answers a conversation.
pub(super) async fn complete(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<Body>,
) -> Result<Response, ApiError> {
    let delivery = Delivery::read(&body)?;
    let model = state.model(model(&body)?).await?;
    let engine = model.engine();
    let messages = messages::read(&body, engine.model().chat_template.as_ref())?;
    let form = read(&body, "response_format", Ok)?.map(|(field, value)| format::constraint(field, value));
    let mut task = Task::new(engine, &body, messages, form.transpose()?.flatten())?;
    task.request.logprobs = logprobs::of_chat(&body)?;
    let tells_logprobs = task.request.logprobs.is_some();

    let tokenizer = engine.tokenizer().ok().cloned();
    let stream = model.start(task.request.clone(), &context).await?;
    let mut answer = Answer::new(vec![stream], || Parts::new(task.parser(), tokenizer.clone()));
    let envelope = Envelope::new("chatcmpl-", &model);
    let pieces = Pieces::of(engine);
    if delivery.stream {
        let chunks = Chunks::new(envelope, answer.choices(), tells_logprobs.then_some(pieces));
        return Ok(sse::response(ChatStream { answer, chunks, delivery, stage: Stage::Begin }));
    }
    let mut whole = Whole::new(answer.choices());
    while let Some(happening) = answer.next().await? {
        if let Happening::Part { choice, part } = happening {
            whole.push(choice, part);
        }
    }
    let mut told = envelope.with("chat.completion", whole.choices(tells_logprobs.then_some(&pieces)));
    told.insert("usage".to_owned(), answer.usage.told());
    told.insert("timings".to_owned(), timings(&answer.stats()));
    Ok(Json(told).into_response())
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Running,
    End,
}

/// A chat completion as a stream of events.
struct ChatStream {
    answer: Answer,
    chunks: Chunks,
    delivery: Delivery,
    stage: Stage,
}

impl sse::Source for ChatStream {
    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Running;
                return Some(self.chunks.begin().iter().map(sse::data).collect());
            }
            Stage::End => return None,
            Stage::Running => {}
        }
        loop {
            match self.answer.next().await {
                Ok(Some(happening)) => {
                    let text = self.events(happening);
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
                Ok(None) => {
                    self.stage = Stage::End;
                    let times = timings(&self.answer.stats());
                    let usage = self.delivery.include_usage.then(|| self.answer.usage.told());
                    let last = self.chunks.end(usage, times);
                    return Some(last.iter().map(sse::data).collect::<String>() + sse::DONE);
                }
                Err(error) => {
                    self.stage = Stage::End;
                    return Some(sse::error(&error));
                }
            }
        }
    }
}

impl ChatStream {
    fn events(&mut self, happening: Happening) -> String {
        let mut chunks = match happening {
            Happening::Part { choice, part } => self.chunks.part(choice, part),
            Happening::Progress { done, total } if self.delivery.progress => {
                let cached = self.answer.usage.cached;
                vec![self.chunks.progress(done, total, cached, self.answer.elapsed_ms())]
            }
            Happening::Progress { .. } => Vec::new(),
        };
        if self.delivery.timings_per_token {
            for chunk in &mut chunks {
                chunk["timings"] = timings(&self.answer.stats());
            }
        }
        chunks.iter().map(sse::data).collect()
    }
}
