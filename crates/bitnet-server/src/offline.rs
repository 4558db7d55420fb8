//! Requests that do not come over HTTP: bodies from files ([`Offline::answer`]), and objects some of whose fields say how to
//! continue a text ([`apply`], [`conversation`]), in the spellings that the APIs know.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use bitnet_inference::{ChatMessage, GenerateRequest, InferenceEngine};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use crate::common::constraint::constraint;
use crate::common::sampling::SamplingFields;
use crate::context::REQUEST_ID;
use crate::error::{ApiError, ServerError};
use crate::openai;
use crate::server::Server;

/// What a server answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The status, as HTTP has it.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// The routes of a server, asked without a connection. Made by [`Server::offline`].
#[derive(Debug, Clone)]
pub struct Offline {
    routes: Router,
}

impl Server {
    /// The server for requests that do not come over HTTP.
    ///
    /// # Errors
    /// As [`router`](Self::router).
    pub fn offline(&self) -> Result<Offline, ServerError> {
        Ok(Offline { routes: self.router()? })
    }
}

impl Offline {
    /// Answers a body that is posted to a path, as a client would be answered over a connection; `id` is the request's. What
    /// is wrong with the request is in the answer. Answers that would be streams come as one text.
    pub async fn answer(&self, path: &str, id: &str, body: &Map<String, Value>) -> Answered {
        let text = serde_json::to_string(body).unwrap_or_default();
        let request =
            Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json");
        let Ok(request) = request.header(REQUEST_ID, id).body(Body::from(text)) else {
            let error = ApiError::bad_request(format!("{path:?} is no path, or {id:?} is no id"));
            return Answered { status: error.status.as_u16(), body: error.openai_body() };
        };
        let Ok(response) = self.routes.clone().oneshot(request).await;
        let status = response.status().as_u16();
        // What a handler answers with is in memory already.
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answered { status, body }
    }
}

/// Puts what the fields of an object say about sampling, limits, stop strings and constraints over what `request` says. Fields
/// that say nothing about these are not looked at.
///
/// # Errors
/// The first field of a wrong type or value.
pub fn apply(fields: &Map<String, Value>, request: &mut GenerateRequest) -> Result<(), ApiError> {
    SamplingFields::from_map(fields)?.apply(request);
    if let Some(constraint) = constraint(fields)? {
        request.constraint = Some(constraint);
    }
    Ok(())
}

/// The conversation in the field `messages` of an object, in the form of chat completions.
///
/// # Errors
/// What cannot be, by name.
pub fn conversation(
    engine: &InferenceEngine,
    fields: &Map<String, Value>,
) -> Result<Vec<ChatMessage>, ApiError> {
    openai::messages(fields, engine.model().chat_template.as_ref())
}

#[cfg(test)]
mod tests {
    use bitnet_inference::{Constraint, Prompt, SamplingOverrides};

    use super::*;
    use crate::config::ServerConfig;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_given_engine_answers_bodies() {
        let engine = InferenceEngine::bundled().threads(1).build().unwrap();
        let server = Server::with_engine(ServerConfig::default(), &engine).unwrap().offline().unwrap();
        let body = object(json!({"prompt": "The cat", "max_tokens": 3, "seed": 1, "temperature": 0.5}));
        let answered = server.answer("/v1/completions", "r1", &body).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        let sampling = SamplingOverrides { temperature: Some(0.5), ..SamplingOverrides::default() };
        let request = GenerateRequest::new(Prompt::text("The cat")).max_tokens(3).sampling(sampling).seed(1);
        let text = engine.generate_blocking(&request).unwrap().text;
        assert_eq!(
            (answered.body["choices"][0]["text"].as_str(), &answered.body["model"]),
            (Some(text.as_str()), &json!(engine.model().name))
        );
        for (path, body, status) in [
            ("/v1/completions", json!({"prompt": 1.5}), 400),
            ("/v1/none", json!({}), 404),
            ("no path", json!({}), 400),
        ] {
            let answered = server.answer(path, "r2", &object(body)).await;
            assert_eq!(answered.status, status, "{path}: {answered:?}");
            assert!(answered.body["error"]["message"].is_string(), "{answered:?}");
        }
    }

    #[test]
    fn fields_are_put_over_what_is_there() {
        let mut request = GenerateRequest::new(Prompt::text("x")).max_tokens(5).seed(9).stop("a");
        request.sampling.top_k = Some(3);
        let fields =
            json!({"temp": 0.5, "stop": "b", "n_predict": 7, "guided_choice": ["yes"], "city": "Rome"});
        apply(&object(fields), &mut request).unwrap();
        let sampling = &request.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(3), Some(9)));
        assert_eq!((request.max_tokens, request.stop), (Some(7), vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(request.constraint, Some(Constraint::Choice(vec!["yes".to_owned()])));
        let error = apply(&object(json!({"top_p": "high"})), &mut GenerateRequest::new(Prompt::text("x")));
        assert!(error.unwrap_err().message.contains("top_p = \"high\""));
    }
}
