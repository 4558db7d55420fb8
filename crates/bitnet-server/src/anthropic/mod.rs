//! Anthropic's Messages API: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! [`request`] reads bodies and makes requests to the engine of them, [`events`] makes the parts of an answer into
//! server-sent events or one message, [`error`] puts errors into the API's shape. What a language model cannot do (images,
//! documents other than text, tools that Anthropic's servers run) is refused by name.

mod content;
mod error;
mod events;
mod request;

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bitnet_inference::Prompt;
use futures_util::{Stream, stream};
use serde_json::json;

pub(crate) use self::error::error_body;
use self::events::{Message, Sent};
use self::request::{MessagesRequest, Plan};
use crate::common::reply::Reply;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// How often a stream in which nothing happens shows that it is alive.
const PING: Duration = Duration::from_secs(15);

/// The paths of this API.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/v1/messages", post(messages)).route("/v1/messages/count_tokens", post(count_tokens))
}

async fn messages(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<MessagesRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(body.model()).await?;
    let streamed = body.is_streamed();
    let name = body.model().unwrap_or(model.id()).to_owned();
    let Plan { request, parser } = body.plan(model.engine())?;
    let mut reply = Reply::start(&model, request, &context, parser).await?;
    let message = Message::new(name, reply.prompt_tokens, reply.cached_tokens);
    if streamed {
        let keep_alive = KeepAlive::new().interval(PING).event(event(&events::ping()));
        return Ok(Sse::new(sse(reply, message)).keep_alive(keep_alive).into_response());
    }
    let mut message = message;
    while let Some(part) = reply.next().await? {
        message.collect(part);
    }
    Ok(Json(message.whole()).into_response())
}

async fn count_tokens(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<MessagesRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(body.model()).await?;
    let prompt = body.prompt(model.engine())?;
    let tokens = model.blocking(move |engine| engine.encode(&Prompt::ChatWith(prompt))).await?;
    Ok(Json(json!({"input_tokens": tokens.len()})).into_response())
}

fn event(sent: &Sent) -> Event {
    Event::default().event(sent.name).data(sent.data.to_string())
}

/// The events of an answer. After an error nothing follows.
fn sse(reply: Reply, message: Message) -> impl Stream<Item = Result<Event, Infallible>> {
    let begin: Vec<Sent> = message.begin();
    let rest = stream::unfold(Some((reply, message)), async |running| {
        let (mut reply, mut message) = running?;
        match reply.next().await {
            Ok(Some(part)) => Some((message.stream(part), Some((reply, message)))),
            Ok(None) => None,
            Err(error) => Some((vec![events::failed(&error)], None)),
        }
    });
    let sent = futures_util::StreamExt::chain(stream::iter([begin]), rest);
    futures_util::StreamExt::flat_map(sent, |sent| {
        stream::iter(sent.into_iter().map(|sent| Ok(event(&sent))).collect::<Vec<_>>())
    })
}
