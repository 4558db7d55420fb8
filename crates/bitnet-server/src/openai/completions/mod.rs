//! `/v1/completions`.

mod prompts;
mod texts;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bitnet_inference::{GenerateRequest, Generation, InferenceEngine, Prompt};
use serde_json::Value;

pub(super) use self::prompts::{Inputs, inputs};
use self::texts::Texts;
use super::answer::{Answer, Happening};
use super::envelope::Envelope;
use super::request::{self, Body, Delivery, model, read};
use super::sse;
use super::usage::Usage;
use crate::common::fields::{self, find};
use crate::common::pieces::Pieces;
use crate::common::reply::{Part, Parts};
use crate::common::timings::timings;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::models::{ModelHandle, TrackedStream};
use crate::state::AppState;

/// Most completions that one body may ask for, over all its prompts.
const MOST_COMPLETIONS: usize = 128;

/// What a body asks for.
#[derive(Debug)]
struct Asked {
    prompts: Vec<Prompt>,
    request: GenerateRequest,
    echo: bool,
    delivery: Delivery,
}

impl Asked {
    fn read(body: &Body) -> Result<Self, ApiError> {
        let delivery = Delivery::read(body)?;
        let prompts = prompts::read(body)?;
        if read(body, "suffix", fields::text)?.is_some_and(|suffix| !suffix.is_empty()) {
            let message = "suffix is not possible: this model continues texts, it does not fill gaps";
            return Err(ApiError::bad_param("suffix", message));
        }
        let mut request = request::generate(body, Prompt::text(""))?;
        request.best_of = read(body, "best_of", fields::count)?;
        let echo = read(body, "echo", fields::truth)?.unwrap_or(false);
        request.logprobs = logprobs(body)?;
        if echo && request.logprobs.is_some() {
            let message =
                "echo with logprobs is not possible: log probabilities are those of generated tokens";
            return Err(ApiError::bad_param("echo", message));
        }
        let ranks = request.best_of.is_some_and(|best_of| best_of > request.n);
        if ranks && delivery.stream {
            let message =
                "best_of greater than n is not possible with a stream: the best is known at the end only";
            return Err(ApiError::bad_param("best_of", message));
        }
        let each = request.n.max(request.best_of.unwrap_or(0));
        if each.saturating_mul(prompts.len()) > MOST_COMPLETIONS {
            let message = format!(
                "{} prompts with {each} completions each are too many: at most {MOST_COMPLETIONS} completions are possible",
                prompts.len()
            );
            return Err(ApiError::bad_param(if each > 1 { "n" } else { "prompt" }, message));
        }
        Ok(Self { prompts, request, echo, delivery })
    }
}

/// `logprobs` is a number of alternatives here; llama-server's `n_probs` means the same, and `true` none.
fn logprobs(body: &Body) -> Result<Option<usize>, ApiError> {
    match find(body, &["logprobs"]) {
        None => Ok(read(body, "n_probs", fields::count)?.filter(|&n| n > 0)),
        Some((_, Value::Bool(wanted))) => Ok(wanted.then_some(0)),
        Some(found) => Ok(Some(fields::count(found)?)),
    }
}

/// Continues texts.
pub(super) async fn complete(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<Body>,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&body)?;
    let model = state.model(model(&body)?).await?;
    let echoes = echoes(model.engine(), &asked)?;
    let streams = start(&model, &asked, &context).await?;
    let envelope = Envelope::new("cmpl-", &model);
    let pieces = asked.request.logprobs.map(|_| Pieces::of(model.engine()));
    if asked.request.best_of.is_some_and(|best_of| best_of > asked.request.n) {
        return best(streams, envelope, echoes, pieces).await;
    }
    let mut answer = Answer::new(streams, || Parts::new(None, None));
    let texts = Texts::new(envelope, &echoes, asked.request.n, pieces);
    if asked.delivery.stream {
        let stream = TextStream { answer, texts, delivery: asked.delivery, stage: Stage::Begin };
        return Ok(sse::response(stream));
    }
    let mut texts = texts;
    while let Some(happening) = answer.next().await? {
        if let Happening::Part { choice, part } = happening {
            texts.collect(choice, part);
        }
    }
    Ok(whole(&texts, &answer.usage, timings(&answer.stats())))
}

/// The response of texts that are whole.
fn whole(texts: &Texts, usage: &Usage, timings: Value) -> Response {
    let mut told = texts.whole();
    told.insert("usage".to_owned(), usage.told());
    told.insert("timings".to_owned(), timings);
    Json(told).into_response()
}

/// The texts of the prompts, if they are to be repeated.
fn echoes(engine: &InferenceEngine, asked: &Asked) -> Result<Vec<String>, ApiError> {
    let echo = |prompt: &Prompt| match prompt {
        _ if !asked.echo => Ok(String::new()),
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(tokens) => {
            let tokens: Vec<u32> =
                tokens.iter().copied().filter(|&token| (token as usize) < engine.spec().vocab_size).collect();
            Ok(engine.tokenizer()?.decode(&tokens, true))
        }
        _ => Ok(String::new()),
    };
    asked.prompts.iter().map(echo).collect()
}

/// Starts a request for each prompt. All of them are handed over before the first is waited for.
async fn start(
    model: &ModelHandle,
    asked: &Asked,
    context: &RequestContext,
) -> Result<Vec<TrackedStream>, ApiError> {
    let requests = asked.prompts.iter().map(|prompt| {
        let request = GenerateRequest { prompt: prompt.clone(), ..asked.request.clone() };
        model.start(request, context)
    });
    futures_util::future::try_join_all(requests).await
}

/// Waits for all completions of all prompts and tells the best.
async fn best(
    streams: Vec<TrackedStream>,
    envelope: Envelope,
    echoes: Vec<String>,
    pieces: Option<Pieces>,
) -> Result<Response, ApiError> {
    let mut usage = Usage::default();
    let mut done: Vec<Generation> = Vec::new();
    let each = futures_util::future::try_join_all(streams.into_iter().map(TrackedStream::finish)).await?;
    let n = each.first().map_or(0, Vec::len);
    for generations in each {
        let prompt = generations.first().map(|first| first.stats).unwrap_or_default();
        usage.prompt += prompt.prompt_tokens;
        usage.cached += prompt.cached_tokens;
        done.extend(generations);
    }
    let mut texts = Texts::new(envelope, &echoes, n, pieces);
    let last = done.last().map(|last| last.stats).unwrap_or_default();
    for (choice, generation) in done.into_iter().enumerate() {
        usage.add(&generation.stats);
        texts.take(choice, &generation);
    }
    Ok(whole(&texts, &usage, timings(&last)))
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Running,
    End,
}

/// Completions as a stream of events.
struct TextStream {
    answer: Answer,
    texts: Texts,
    delivery: Delivery,
    stage: Stage,
}

impl sse::Source for TextStream {
    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Running;
                let echoes: String = self.texts.begin().iter().map(sse::data).collect();
                if !echoes.is_empty() {
                    return Some(echoes);
                }
            }
            Stage::End => return None,
            Stage::Running => {}
        }
        loop {
            match self.answer.next().await {
                Ok(Some(Happening::Part { choice, part })) => {
                    let text = self.events(choice, part);
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
                Ok(Some(Happening::Progress { done, total })) if self.delivery.progress => {
                    let chunk =
                        self.texts.progress(done, total, self.answer.usage.cached, self.answer.elapsed_ms());
                    return Some(sse::data(&chunk));
                }
                Ok(Some(Happening::Progress { .. })) => {}
                Ok(None) => {
                    self.stage = Stage::End;
                    let times = timings(&self.answer.stats());
                    let usage = self.delivery.include_usage.then(|| self.answer.usage.told());
                    let last = self.texts.end(usage, times);
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

impl TextStream {
    fn events(&mut self, choice: usize, part: Part) -> String {
        let mut chunks = self.texts.part(choice, part);
        if self.delivery.timings_per_token {
            for chunk in &mut chunks {
                chunk["timings"] = timings(&self.answer.stats());
            }
        }
        chunks.iter().map(sse::data).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        for (body, param) in [
            (json!({"prompt": "a", "suffix": "b"}), "suffix"),
            (json!({"prompt": "a", "echo": true, "logprobs": 1}), "echo"),
            (json!({"prompt": "a", "echo": 1}), "echo"),
            (json!({"prompt": "a", "stream": true, "best_of": 2}), "best_of"),
            (json!({"prompt": "a", "best_of": "x"}), "best_of"),
            (json!({"prompt": "a", "n": 129}), "n"),
            (json!({"prompt": vec!["a"; 129]}), "prompt"),
            (json!({"prompt": "a", "logprobs": "5"}), "logprobs"),
            (json!({"prompt": "a", "stream": "yes"}), "stream"),
            (json!({"prompt": "a", "stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"prompt": "a", "stop": vec!["x"; 65]}), "stop"),
            (json!({"prompt": "a", "stop": "x".repeat(1025)}), "stop"),
            (json!({"prompt": "a", "max_tokens": 1.5}), "max_tokens"),
            (json!({"prompt": "a", "temperature": "hot"}), "temperature"),
        ] {
            let error = Asked::read(body.as_object().unwrap()).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{body}: {error}"
            );
        }
    }

    #[test]
    fn log_probabilities_in_all_spellings() {
        let asked = |body: Value| logprobs(body.as_object().unwrap()).unwrap();
        assert_eq!(asked(json!({})), None);
        assert_eq!(asked(json!({"logprobs": 0})), Some(0));
        assert_eq!(asked(json!({"logprobs": 5, "n_probs": 3})), Some(5));
        assert_eq!(asked(json!({"n_probs": 3})), Some(3));
        assert_eq!((asked(json!({"logprobs": true})), asked(json!({"logprobs": false}))), (Some(0), None));
    }
}
