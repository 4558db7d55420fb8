//! `/completion`.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bitnet_inference::{FinishReason, GenerateRequest, InferenceEngine, Prompt, SamplingParams, StreamEvent};
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value};

use super::answer::Completion;
use super::request::{CompletionRequest, Wanted};
use super::settings::settings;
use crate::common::fields::{self, find};
use crate::common::pieces::Pieces;
use crate::common::reply::cancelled;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::models::{ModelHandle, TrackedStream};
use crate::state::AppState;

/// How often a stream in which nothing happens shows that it is alive.
const PING: Duration = Duration::from_secs(15);

/// A completion and where its events come from.
struct Running {
    completion: Completion,
    events: TrackedStream,
}

/// `/completion` and `/completions`.
pub(super) async fn completion(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let name = find(&body, &["model"]).map(fields::text).transpose()?;
    let model = state.model(name).await?;
    let body = CompletionRequest::read(&body)?;
    let (wanted, is_list) = (body.wanted.clone(), body.is_list());
    let encoder = model.clone();
    let requests = state.blocking(move || body.requests(encoder.engine())).await?;
    let requests = requests.into_iter().enumerate();
    // What fails before it begins is told with a status.
    let running =
        try_join_all(requests.map(|(index, request)| start(index, &model, request, &wanted, &context)))
            .await?;
    if wanted.stream {
        return Ok(Sse::new(sse(running)).keep_alive(KeepAlive::new().interval(PING)).into_response());
    }
    let mut answers = Vec::with_capacity(running.len());
    for mut one in running {
        let mut last = Value::Null;
        while let Some(event) = one.next().await? {
            if let Some(object) = one.completion.push(event).pop() {
                last = object;
            }
        }
        answers.push(last);
    }
    let answer = if is_list { Value::Array(answers) } else { answers.pop().unwrap_or_default() };
    Ok(Json(answer).into_response())
}

async fn start(
    index: usize,
    model: &ModelHandle,
    request: GenerateRequest,
    wanted: &Wanted,
    context: &RequestContext,
) -> Result<Running, ApiError> {
    let engine = model.engine();
    let params = SamplingParams::resolve(&request.sampling, engine.defaults())
        .map_err(bitnet_inference::EngineError::from)?;
    let settings = settings(&params, params.seed, &request, wanted);
    let prompt = text_of(engine, &request.prompt);
    let name = model.id().to_owned();
    let completion = Completion::new(index, name, wanted.clone(), Pieces::of(engine), prompt, settings);
    Ok(Running { completion, events: model.start(request, context).await? })
}

/// A prompt as text, special tokens included.
fn text_of(engine: &InferenceEngine, prompt: &Prompt) -> String {
    match (prompt, engine.tokenizer()) {
        (Prompt::Tokens(tokens), Ok(tokenizer)) => tokenizer.decode(tokens, false),
        _ => String::new(),
    }
}

impl Running {
    /// The next event; `None` after the last.
    async fn next(&mut self) -> Result<Option<StreamEvent>, ApiError> {
        let event = self.events.next().await.transpose()?;
        match &event {
            Some(StreamEvent::Finished { generation, .. })
                if generation.finish == FinishReason::Cancelled =>
            {
                Err(cancelled())
            }
            _ => Ok(event),
        }
    }
}

/// The chunks of all completions as they come. One that fails ends with an error.
fn sse(running: Vec<Running>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::select_all(running.into_iter().map(|one| Box::pin(objects(one))))
        .map(|object: Value| Ok(Event::default().data(object.to_string())))
}

fn objects(running: Running) -> impl Stream<Item = Value> {
    let batches = stream::unfold(Some(running), async |running| {
        let mut running = running?;
        match running.next().await {
            Ok(Some(event)) => Some((running.completion.push(event), Some(running))),
            Ok(None) => None,
            Err(error) => Some((vec![error.openai_body()], None)),
        }
    });
    batches.flat_map(stream::iter)
}
